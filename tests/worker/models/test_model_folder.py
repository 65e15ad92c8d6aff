"""Model folders are data: they choose no code, and all the weights they read are their own."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from ember.errors import InvalidInput
from ember.worker import task
from ember.worker.finetune.learner import Tuning
from ember.worker.finetune.torch_learner import TorchLearner
from ember.worker.models.model_folder import check_folder, loading
from ember.worker.spec import Generation, ModelSpec, hash_files
from tiny_models import MAX_TOKENS, tiny_bert, tiny_captioner, tiny_gpt2
from tiny_models import spec_of as tiny_spec

TUNING = Tuning(
    labels=("a", "b"),
    epochs={"head": 1, "full": 0},
    rates={"head": 1e-3, "full": 1e-3},
    batch_size=2,
    unfreeze=None,
    batch_norm="frozen",
    augmentation=None,
    patience=None,
    seed=0,
)


@pytest.fixture
def folder(bert_folder, tmp_path) -> Path:
    return Path(shutil.copytree(bert_folder, tmp_path / "model"))


def spec_of(folder: Path) -> ModelSpec:
    return ModelSpec(
        name=f"hf:{folder.name}",
        family="hf",
        modality="text",
        path=str(folder),
        layer="mean",
        runtime="torch",
        precision="float32",
        batch_size=None,
        normalize=False,
        max_pixels=10**6,
        weights_sha256=hash_files(folder),
        preprocessing="",
    )


def embed(folder: Path, text: str) -> np.ndarray:
    batch = pa.RecordBatch.from_pydict({"id": [1], "content": [text]})
    (done,) = task.embed_batches([batch], spec_of(folder))
    return np.asarray(done["embedding"][0].as_py(), np.float32)


def change(file: Path, **settings) -> None:
    found = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps({**found, **settings}), "utf-8")


# --- what chooses code -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer_config.json", "inner/preprocessor_config.json"]
)
def test_a_folder_that_names_code_of_its_own_is_refused_with_the_name(folder, file):
    (folder / "inner").mkdir()
    change(folder / file, auto_map={"AutoModel": "modeling_evil.Evil"})
    with pytest.raises(InvalidInput, match=r"names code .*auto_map: modeling_evil\.Evil"):
        check_folder(folder)


@pytest.mark.parametrize("learner", [False, True])
@pytest.mark.parametrize("native", [False, True])
def test_code_in_a_folder_never_runs_and_nobody_is_asked(
    folder, tmp_path, monkeypatch, fresh_process, native, learner
):
    """Whoever loads a spec without the driver's check is safe as well."""
    sign = tmp_path / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(sign)!r}, 'w')\n", "utf-8")
    code = {"AutoConfig": "modeling_evil.Config", "AutoModel": "modeling_evil.Evil"}
    change(folder / "config.json", auto_map=code, model_type="bert" if native else "evil")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    if native:
        load(folder, learner)
    else:
        with pytest.raises(InvalidInput, match="hf:model cannot be loaded"):
            load(folder, learner)
    assert not sign.exists()


def load(folder: Path, learner: bool) -> None:
    if learner:
        TorchLearner(spec_of(folder), TUNING, "cpu", 1)
    else:
        embed(folder, "a fine text")


@pytest.mark.parametrize("learner", [False, True])
def test_an_attention_that_a_folder_names_is_not_fetched_and_the_vectors_are_the_plain_one_s(
    folder, bert_folder, fresh_process, learner
):
    change(
        folder / "config.json",
        attn_implementation="someone/kernel",
        _attn_implementation="someone/kernel",
        experts_implementation="someone/experts",
    )
    load(folder, learner)
    model, tokenizer = (kind.from_pretrained(bert_folder) for kind in (AutoModel, AutoTokenizer))
    with torch.inference_mode():
        states = model.eval()(**tokenizer("a fine text", return_tensors="pt")).last_hidden_state
    assert np.array_equal(embed(folder, "a fine text"), states.mean(1)[0].numpy())


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_a_pickle_that_is_no_tensors_is_refused_and_does_not_run(
    folder, tmp_path, monkeypatch, fresh_process
):
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match="hf:model cannot be loaded"):
        embed(folder, "a fine text")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InvalidInput, match="hf:model cannot be loaded"):
        embed(folder, "a fine text")
    assert not (tmp_path / "ran").exists()


# --- weights elsewhere -----------------------------------------------------------------------


def shard(folder: Path, place: str) -> Path:
    """Have an index name `place` as the file of all weights, and move them there."""
    whole = folder / "model.safetensors"
    names = json.loads(whole.read_bytes()[8 : 8 + int.from_bytes(whole.read_bytes()[:8], "little")])
    target = Path(os.path.normpath(folder / place))
    target.parent.mkdir(exist_ok=True)
    whole.rename(target)
    index = {"metadata": {}, "weight_map": {n: place for n in names if n != "__metadata__"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    return target


@pytest.mark.parametrize(
    "place", ["../other.safetensors", "{tmp}/other.safetensors", ".hidden/a.safetensors", "_a.bin"]
)
def test_weights_that_an_index_names_outside_of_the_fingerprint_are_refused(
    folder, tmp_path, place
):
    place = place.format(tmp=tmp_path)
    shard(folder, place)
    with pytest.raises(InvalidInput, match=r"index\.json names the weights .*copy them into"):
        check_folder(folder)


def test_weights_in_a_folder_that_is_a_link_are_refused(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "shards").symlink_to(tmp_path / "elsewhere")
    shard(folder, "shards/a.safetensors")
    with pytest.raises(InvalidInput, match=r"names the weights shards/a\.safetensors"):
        check_folder(folder)


def test_a_configuration_names_no_weights_outside_either(folder):
    change(folder / "config.json", transformers_weights="../other.safetensors")
    with pytest.raises(InvalidInput, match=r"config\.json names the weights"):
        check_folder(folder)


def test_an_adapter_whose_model_lies_elsewhere_is_refused(folder):
    change(folder / "adapter_config.json", base_model_name_or_path="someone/else")
    with pytest.raises(InvalidInput, match="adapter of another model"):
        check_folder(folder)


def test_sharded_weights_inside_and_an_index_of_files_that_were_not_fetched_are_fine(
    folder, bert_folder, fresh_process
):
    shard(folder, "weights-00001-of-00001.safetensors")
    index = {"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), "utf-8")
    check_folder(folder)
    assert np.array_equal(embed(folder, "one"), embed(bert_folder, "one"))


def test_links_to_files_are_followed_and_what_they_lead_to_is_in_the_fingerprint(folder, tmp_path):
    """As in the hub's cache, where every file of a snapshot is a link to a blob."""
    blob = (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(blob)
    check_folder(folder)
    before = hash_files(folder)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\1")
    assert hash_files(folder) != before


# --- folders that declare more than they hold ---


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "num_labels"])
def test_more_layers_or_labels_than_any_model_has_are_refused_before_loading(folder, key):
    change(folder / "config.json", inner={key: 10**9})
    with pytest.raises(InvalidInput, match=rf"config\.json declares {key} 1e\+09"):
        check_folder(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"vocab_size": 10**8},
        {"num_hidden_layers": 9_000, "intermediate_size": 10**5},
        {"max_position_embeddings": 10**9},
    ],
)
def test_a_model_much_larger_than_its_files_is_not_built(folder, fresh_process, settings):
    change(folder / "config.json", **settings)
    with pytest.raises(InvalidInput, match=r"config\.json declares a model with many more"):
        embed(folder, "a fine text")
    with torch.device("meta"):  # nothing is counted any more
        torch.nn.Linear(10**5, 10**5)


# --- broken folders --------------------------------------------------------------------------


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


BROKEN = {
    "cut weights": (
        lambda folder: _cut(folder / "model.safetensors"),
        r"model\.safetensors is cut off .* bytes of \d+",
    ),
    "a pointer": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
        ),
        r"model\.safetensors is a pointer of Git LFS",
    ),
    "cut configuration": (lambda folder: _cut(folder / "config.json"), "cannot be loaded: "),
    "cut tokenizer": (lambda folder: _cut(folder / "tokenizer.json"), "cannot be loaded: "),
    "a library that is not there": (
        lambda folder: change(folder / "config.json", quantization_config={"quant_method": "aqlm"}),
        "cannot be loaded: ",
    ),
    "settings of other types": (
        lambda folder: change(folder / "config.json", hidden_size="wide"),
        "cannot be loaded: ",
    ),
    "no list": (lambda folder: (folder / "config.json").write_text("[1]"), "cannot be loaded: "),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_sentence_with_the_model_s_name(folder, fresh_process, case):
    damage, message = BROKEN[case]
    damage(folder)
    check_folder(folder)  # what is broken, not forbidden, loading says
    with pytest.raises(InvalidInput, match=f"hf:model .*{message}|hf:model {message}"):
        embed(folder, "a fine text")


def _set(folder: Path, name: str, **changes: object) -> Path:
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")
    return folder


@pytest.mark.parametrize("length", [0, -5, 1.5, "x", True, []])
def test_a_stated_length_that_is_none_is_told_with_file_and_key(
    tmp_path: Path, length: object
) -> None:
    folder = _set(tiny_bert(tmp_path), "tokenizer_config.json", model_max_length=length)
    words = r"model_max_length in its tokenizer_config\.json is '"
    with pytest.raises(InvalidInput, match=words):
        task.load(tiny_spec(folder), address=None, threads=1, paths=None)


@pytest.mark.parametrize("length", [None, 10**30, 1e30])
def test_a_length_that_is_not_stated_leaves_the_model_s_own(
    fresh_process: pytest.MonkeyPatch, tmp_path: Path, length: object
) -> None:
    folder = _set(tiny_bert(tmp_path), "tokenizer_config.json", model_max_length=length)
    encoder = task.load(tiny_spec(folder), address=None, threads=1, paths=None)
    assert encoder.max_tokens == MAX_TOKENS + 8


@pytest.mark.parametrize("length", [1, 2])
def test_a_length_without_room_for_a_token_is_refused(tmp_path: Path, length: int) -> None:
    folder = _set(tiny_bert(tmp_path), "tokenizer_config.json", model_max_length=length)
    with pytest.raises(InvalidInput, match=rf"takes {length} tokens, of which 2 are special"):
        task.load(tiny_spec(folder), address=None, threads=1, paths=None)


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_attention_heads", "hidden_size"])
def test_a_negative_count_in_a_configuration_is_told_with_file_and_key(
    tmp_path: Path, key: str
) -> None:
    folder = _set(tiny_bert(tmp_path), "config.json", **{key: -1})
    with pytest.raises(InvalidInput, match=rf"config\.json declares {key} -1; make it"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("maker", "modality", "changes"),
    [
        (tiny_gpt2, "text", {"eos_token_id": 1.5}),
        (tiny_gpt2, "text", {"output_hidden_states": "x"}),
        (tiny_captioner, "image", {"output_hidden_states": "x"}),
    ],
)
def test_a_model_that_cannot_write_says_so_as_it_is_loaded(
    tmp_path: Path, maker: Callable[[Path], Path], modality: str, changes: dict[str, object]
) -> None:
    folder = _set(maker(tmp_path), "generation_config.json", **changes)
    spec = tiny_spec(
        folder, modality=modality, layer=None, task="generate", generation=Generation(4)
    )
    with pytest.raises(InvalidInput, match="cannot be loaded: "):
        task.load(spec, address=None, threads=1, paths=None)


def test_what_the_machine_lacks_is_no_fault_of_the_folder(tmp_path: Path) -> None:
    import torch

    for error in (torch.OutOfMemoryError("CUDA"), MemoryError(), ModuleNotFoundError("torch")):
        with pytest.raises(type(error)), loading("hf:x", str(tmp_path)):
            raise error
    words = "hf:x cannot be loaded: '>' not supported"
    with pytest.raises(InvalidInput, match=words), loading("hf:x", str(tmp_path)):
        raise TypeError("'>' not supported")
