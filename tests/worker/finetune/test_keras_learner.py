"""Fine-tuning a model of keras.applications: what is frozen, going on, what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ember.embedding.labels import beside, read_labels
from ember.worker.finetune import training
from ember.worker.finetune.learner import Tuning
from ember.worker.finetune.process import TrainingJob, tune
from ember.worker.models.keras_models import application_module, build_features
from staged_rows import LABELS, PICTURES, stage
from tiny_models import keras_weights, needs_keras, spec_of

pytestmark = needs_keras

NAME = "MobileNetV3Small"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return keras_weights(tmp_path_factory.mktemp("keras") / "w.weights.h5", NAME, top=False)


def job(folder: Path, weights: Path) -> TrainingJob:
    given = Tuning(
        labels=LABELS,
        epochs={"head": 1, "full": 2},
        rates={"head": 1e-2, "full": 1e-3},
        batch_size=6,
        unfreeze=1,
        batch_norm="frozen",
        augmentation=None,
        patience=9,
        seed=0,
    )
    return TrainingJob(spec_of(weights, name=f"keras:{NAME}"), given, str(folder), threads=2)


def test_last_stage_and_head_learn_and_a_killed_run_ends_the_same(tmp_path, weights, monkeypatch):
    import keras

    contents = PICTURES[:8]
    whole = stage(tmp_path / "whole", contents, rows=8)
    expected = tune(job(whole, weights), None)
    assert expected["history"][2]["loss"] < expected["history"][1]["loss"]

    class Killed(Exception):
        pass

    record = training.Trainer._record

    def killed(self, epoch, stage):
        record(self, epoch, stage)
        if epoch.epoch == 2:
            raise Killed

    halved = stage(tmp_path / "halved", contents, rows=8)
    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "_record", killed)
        with pytest.raises(Killed):
            tune(job(halved, weights), None)
    told = tune(job(halved, weights), None)
    assert told["resumed_epochs"] == 2
    made = keras.saving.load_model(whole / "model" / "model.keras", compile=False)
    again = keras.saving.load_model(halved / "model" / "model.keras", compile=False)
    for one, other in zip(made.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

    before = build_features(NAME, str(weights), "avg_pool")
    changed = {
        layer.name
        for layer, old in zip(made.layers, before.layers, strict=False)
        for one, other in zip(layer.get_weights(), old.get_weights(), strict=True)
        if not np.array_equal(one, other)
    }
    maps = {layer.name: layer.output.shape for layer in before.layers}
    assert changed
    assert {maps[name][1] for name in changed if len(maps[name]) == 4} <= {7, 1}
    assert not any(isinstance(made.get_layer(name), keras.layers.BatchNormalization)
                   for name in changed)  # fmt: skip

    assert read_labels(str(beside(f"{whole}/model/model.keras"))) == LABELS
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype(np.float32)
    inputs = application_module(NAME).preprocess_input(pixels)
    classes = build_features(NAME, f"{whole}/model/model.keras", "classes")
    np.testing.assert_allclose(np.asarray(classes(inputs)), np.asarray(made(inputs)), rtol=1e-4)
    features = build_features(NAME, f"{whole}/model/model.keras", "avg_pool")
    assert features.output_shape == before.output_shape
