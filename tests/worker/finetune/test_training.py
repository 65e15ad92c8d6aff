"""Fine-tuning in one process: stages, freezing, early stopping, going on after a kill."""

from __future__ import annotations

import io
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ember.worker.finetune import training
from ember.worker.finetune.augment import Augmentation
from ember.worker.finetune.learner import Batch, Tuning
from ember.worker.finetune.process import TrainingJob, tune
from ember.worker.finetune.torch_learner import TorchLearner
from ember.worker.finetune.training import rate_at
from ember.worker.models.torch_texts import TorchTextEncoder
from staged_rows import LABELS, PICTURES, stage
from text_models import text_model
from tiny_models import spec_of

WORDS = ("the cat sat", "a big dog runs", "blue house")
TEXTS = [f"{WORDS[number % 3]} {number}".encode() for number in range(24)]


def job(folder: Path, model: str, **changes) -> TrainingJob:
    modality = changes.pop("modality", "image")
    given = {
        "labels": LABELS,
        "epochs": {"head": 2, "full": 2},
        "rates": {"head": 1e-2, "full": 1e-3},
        "batch_size": 5,
        "unfreeze": 1,
        "batch_norm": "frozen",
        "augmentation": Augmentation(),
        "patience": 9,
        "seed": 3,
        **changes,
    }
    spec = spec_of(Path(model.removeprefix("hf:")), modality=modality)
    return TrainingJob(spec, Tuning(**given), str(folder), threads=1)


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> set[str]:
    """Names of the weights that are bit by bit the same."""
    return {name for name in one if name in other and np.array_equal(one[name], other[name])}


@pytest.mark.parametrize(
    ("epochs", "free"),
    [({"head": 1, "full": 0}, ()), ({"head": 1, "full": 1}, ("resnet.encoder.stages.1.",))],
)
def test_what_is_frozen_stays_bit_by_bit(resnet, tmp_path, epochs, free):
    folder = stage(tmp_path / "run", PICTURES)
    told = tune(job(folder, resnet, epochs=epochs), None)
    before, after = weights(Path(resnet.removeprefix("hf:"))), weights(folder / "model")
    assert before.keys() == after.keys()
    changed = before.keys() - same(before, after)
    statistics = {name for name in before if "running_" in name or "num_batches" in name}
    assert not changed & statistics
    expected = {name for name in before if name.startswith((*free, "classifier."))} - statistics
    assert changed == expected
    assert [each["stage"] for each in told["history"]] == [s for s in epochs if epochs[s]]


def test_one_epoch_equals_a_plain_loop_in_torch(resnet, tmp_path):
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = stage(tmp_path / "run", PICTURES)
    own = ("ant", "bee", "cow", "dog", "elk")  # so that the head is kept, too
    asked = job(
        folder, resnet, labels=own, epochs={"head": 0, "full": 1}, unfreeze=None,
        batch_norm="trained", augmentation=None,
    )  # fmt: skip
    told = tune(asked, None)

    path = resnet.removeprefix("hf:")
    model = AutoModelForImageClassification.from_pretrained(path).train()
    processor = AutoImageProcessor.from_pretrained(path)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    )
    numbers = sorted(range(24), key=lambda number: (number * 0.6180339887) % 1)
    train = [row for row, number in enumerate(numbers) if number % 4 != 3]
    rng = np.random.default_rng([3, 1])
    rng.integers(2**31)
    shuffled = rng.permutation(train)
    losses = []
    for step, first in enumerate(range(0, len(shuffled), 5)):
        batch = [numbers[row] for row in shuffled[first : first + 5]]
        images = [Image.open(io.BytesIO(PICTURES[number])) for number in batch]
        logits = model(**processor(images, return_tensors="pt")).logits
        targets = torch.tensor([number % 3 for number in batch])
        loss = torch.nn.functional.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, 4, 1e-3)
        optimizer.step()
        losses.append(float(loss.detach()) * len(batch))
    after = weights(folder / "model")
    for name, value in model.state_dict().items():
        np.testing.assert_allclose(after[name], value.numpy(), rtol=1e-4, atol=1e-5)
    assert told["history"][0]["loss"] == pytest.approx(sum(losses) / 18, rel=1e-4)


def test_the_head_learns_the_same_from_kept_features(resnet, tmp_path, monkeypatch):
    from ember.worker.finetune.torch_learner import TorchLearner

    only_head = {"head": 3, "full": 0}
    kept = stage(tmp_path / "kept", PICTURES)
    quick = tune(job(kept, resnet, epochs=only_head), None)
    monkeypatch.setattr(TorchLearner, "encode", lambda *_: None)
    whole = stage(tmp_path / "whole", PICTURES, shuffled=True)  # the order of the file is nothing
    slow = tune(job(whole, resnet, epochs=only_head), None)
    for one, other in zip(quick["history"], slow["history"], strict=True):
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-4)
    name = "classifier.1.weight"
    np.testing.assert_allclose(
        weights(kept / "model")[name], weights(whole / "model")[name], rtol=1e-3, atol=1e-5
    )
    assert quick["history"][-1]["loss"] < quick["history"][0]["loss"]


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_killed_run_ends_with_the_same_weights(
    request, tmp_path, monkeypatch, modality, killed_after
):
    """Dropout in the texts' model, augmentation of the images: both drawn again as before."""
    model = request.getfixturevalue("resnet" if modality == "image" else "bert")
    contents = PICTURES if modality == "image" else TEXTS
    whole = stage(tmp_path / "whole", contents)
    expected = tune(job(whole, model, modality=modality), None)

    class Killed(Exception):
        pass

    record = training.Trainer._record

    def killed(self, epoch, stage):
        record(self, epoch, stage)
        if epoch.epoch == killed_after:
            raise Killed

    halved = stage(tmp_path / "halved", contents)
    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "_record", killed)
        with pytest.raises(Killed):
            tune(job(halved, model, modality=modality), None)
    assert not (halved / "model").exists()
    told = tune(job(halved, model, modality=modality), None)

    assert told["resumed_epochs"] == killed_after
    one, other = weights(whole / "model"), weights(halved / "model")
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6)
    for key in ("loss", "validation_loss", "rate"):
        assert [each[key] for each in told["history"]] == pytest.approx(
            [each[key] for each in expected["history"]], rel=1e-5
        )
    history = pq.read_table(halved / "model" / "history.parquet").to_pylist()
    assert [each["epoch"] for each in history] == [1, 2, 3, 4]
    assert sorted(path.name for path in (halved / "checkpoint").iterdir()) == [
        "4.state", "full.best", "head.best", "progress.json",
    ]  # fmt: skip


def test_two_processes_learn_what_one_does(resnet, tmp_path):
    changes = {"augmentation": None, "batch_size": 4}  # 18 rows: the last step has an odd share
    alone = stage(tmp_path / "alone", PICTURES)
    expected = tune(job(alone, resnet, **changes), None)
    both = stage(tmp_path / "both", PICTURES)
    asked = tmp_path / "order.pickle"
    asked.write_bytes(pickle.dumps(job(both, resnet, **changes)))
    code = (
        "import pickle, sys; from ember.worker.finetune.process import tune_together; "
        f"tune_together(pickle.load(open({str(asked)!r}, 'rb')))"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
        )
        for rank in ("0", "1")
    ]
    said = [rank.communicate()[1].decode() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    one, other = weights(alone / "model"), weights(both / "model")
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-3, atol=1e-4)
    history = pq.read_table(both / "model" / "history.parquet").to_pylist()
    for ours, theirs in zip(history, expected["history"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert ours["validation_accuracy"] == theirs["validation_accuracy"]


def test_a_stage_ends_when_nothing_gets_better_and_the_best_epoch_is_kept(resnet, tmp_path):
    folder = stage(tmp_path / "run", PICTURES)
    changes = {"epochs": {"head": 0, "full": 8}, "rates": {"head": 1, "full": 1e-30}, "patience": 2}
    told = tune(job(folder, resnet, **changes), None)
    assert len(told["history"]) == 3  # the first, and two that are no better
    assert told["best"]["epoch"] == 1


def test_the_learning_rate_rises_and_falls():
    rates = [rate_at(step, 100, 2.0) for step in range(100)]
    assert rates[9] == rates[10] == max(rates) == 2.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_augmentation_crops_and_mirrors_as_the_seed_says():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8))
    augmentation = Augmentation(min_area=0.2)
    crops = [
        np.asarray(augmentation.apply(image, (32, 24), np.random.default_rng(seed)))
        for seed in (0, 0, 1, 2)
    ]
    assert {crop.shape for crop in crops} == {(24, 32, 3)}
    assert np.array_equal(crops[0], crops[1])
    assert not np.array_equal(crops[0], crops[2])

    left_white = np.zeros((40, 40, 3), np.uint8)
    left_white[:, :20] = 255
    picture = Image.fromarray(left_white)
    for flip in (True, False):
        draws = (np.random.default_rng(seed) for seed in range(12))
        some = [np.asarray(Augmentation(flip, 0.9).apply(picture, (8, 8), rng)) for rng in draws]
        assert {bool(crop[:, 0].mean() > 128) for crop in some} == {True, not flip}
    boxes = [augmentation._box((50, 80), np.random.default_rng(seed)) for seed in range(200)]
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 50
        assert 0 <= top < bottom <= 80
        assert (right - left) * (bottom - top) >= 0.2 * 50 * 80 * 0.999
        assert 0.7499 <= (right - left) / (bottom - top) <= 1.3334


@pytest.mark.parametrize("kind", ["longformer", "ibert", "xmod", "albert"])
def test_the_longest_text_to_learn_from_is_the_longest_to_embed(tmp_path, kind):
    folder = text_model(tmp_path, kind)
    it = job(tmp_path, f"hf:{folder}", modality="text")
    learner = TorchLearner(it.spec, it.tuning, "cpu", 1)
    learner.begin("full")
    words = b" ".join(b"w%d" % (number % 50) for number in range(100))
    items = [learner.prepare(text, None) for text in (words, b"w1")]
    loss, _ = learner.train(Batch(items, np.array([0, 1]), encoded=False), 1e-3, 2)
    encoder = TorchTextEncoder(it.spec, "cpu", 1)
    assert items[0].shape[1] == encoder.max_tokens == (40 if kind == "albert" else 38)
    assert np.isfinite(loss)
