"""Fixtures of the executor side: no Spark, no network, models that the tests build themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from ember.worker import device, task
from tiny_models import tiny_bert, tiny_resnet, tiny_roberta


@pytest.fixture(scope="session")
def resnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_resnet(tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def headless_bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("headless-bert"), pooler=False)


@pytest.fixture(scope="session")
def roberta_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_roberta(tmp_path_factory.mktemp("roberta"))


@pytest.fixture
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As if this process had neither claimed a device nor loaded a model."""
    monkeypatch.setattr(device, "_claimed", None)
    monkeypatch.setattr(task, "_loaded", {})
    monkeypatch.setattr(task, "_records", {})
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        # Set first, so that what the code sets is taken back afterwards.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch
