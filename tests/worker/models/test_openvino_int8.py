"""Models at 8 bits: calibrated on some rows, and held against float32 on others."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converted import converted
from corpora import picture
from ember.worker.models import openvino_int8
from ember.worker.models.openvino_encoders import openvino_encoder
from ember.worker.models.prepare import DRIFT
from ember.worker.spec import ModelSpec
from tiny_models import needs_openvino, spec_of, tiny_bert, tiny_resnet

pytestmark = [
    needs_openvino,
    pytest.mark.skipif(not find_spec("nncf"), reason="nncf is not installed"),
]


def prepared(spec: ModelSpec, rows: list[Any], folder: Path) -> subprocess.CompletedProcess[bytes]:
    """As a job does it, in a process of its own."""
    command = [sys.executable, "-m", "ember.worker.models.prepare", "int8", str(folder)]
    request = pickle.dumps((spec, rows, None))
    return subprocess.run(command, input=request, capture_output=True, check=False)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_vectors_are_near_those_at_float32_and_the_drift_is_stated(
    tmp_path: Path, modality: str
) -> None:
    (tmp_path / "model").mkdir()
    if modality == "image":
        spec = spec_of(tiny_resnet(tmp_path / "model"))
        rows: list[Any] = [picture(seed, (40, 32)) for seed in range(50)]
    else:
        spec = spec_of(tiny_bert(tmp_path / "model"))
        rng = np.random.default_rng(0)
        words = ["cat", "dog", "house", "tree", "the", "runs", "blue"]
        rows = [" ".join(rng.choice(words, 6)).encode() for _ in range(50)]
    exact = converted(spec, tmp_path / "exact")
    done = prepared(exact, [*rows, None, b"", b"\xff"], tmp_path / "int8")
    assert done.returncode == 0, done.stderr.decode()
    drift = json.loads((tmp_path / "int8" / DRIFT).read_text())
    assert (drift["calibrated_on"], drift["rows"]) == (25, 25)
    assert drift["times_as_fast"] > 0
    encoders = [
        openvino_encoder(each, "cpu", 1, paths=None)
        for each in (exact, exact.at(str(tmp_path / "int8")))
    ]
    # By hand, on the rows that were not calibrated on.
    one, other = (
        np.concatenate([each.run([item]) for item, *_ in each.prepare(rows[1::2])])
        for each in encoders
    )
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1) / norms
    assert not np.array_equal(one, other)
    assert drift["cosine"]["least"] == pytest.approx(cosines.min(), abs=1e-4)
    assert drift["cosine"]["mean"]["value"] == pytest.approx(cosines.mean(), abs=1e-4)
    assert cosines.min() > 0.9
    interval = drift["neighbors_of_10_shared"]
    assert 0.3 < interval["low"] <= interval["value"] <= interval["high"] <= 1


def test_too_few_rows_are_named_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    exact = converted(spec_of(tiny_resnet(tmp_path / "model")), tmp_path / "exact")
    rows = [picture(seed, (40, 32)) for seed in range(19)]
    done = prepared(exact, [*rows, b"no picture"], tmp_path / "int8")
    assert done.returncode == 2
    assert b"and of 20 drawn 19 could be embedded; it takes 20" in done.stderr
    assert {each.name for each in tmp_path.iterdir()} == {"model", "exact"}


def test_neighbors_that_stay_are_counted() -> None:
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(1)
    exact = rng.normal(size=(60, 8))
    ours = exact + rng.normal(size=(60, 8)) / 3
    found = openvino_int8._drift(exact, ours)
    near = [
        NearestNeighbors(n_neighbors=10, metric="cosine")
        .fit(each)
        .kneighbors(return_distance=False)
        for each in (exact, ours)
    ]
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)]
    assert found["neighbors_of_10_shared"]["value"] == pytest.approx(np.mean(shared), abs=1e-6)
    assert openvino_int8._drift(exact, exact)["cosine"]["least"] == 1
    assert openvino_int8._drift(exact[:20], ours[:20])["neighbors_of_10_shared"] is None


def test_nobody_is_told_that_a_model_is_converted() -> None:
    """OpenVINO's converter and NNCF report to their makers where a module of theirs is there."""
    program = """
import sys
from ember.worker.models.openvino_runtime import start_openvino
openvino = start_openvino()
from openvino.tools.ovc import telemetry_utils
import nncf
assert sys.modules["openvino_telemetry"] is None
print(telemetry_utils.tm.__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "openvino.tools.ovc.telemetry_stub\n", done.stderr
