"""Models in OpenVINO at 8 bits: calibrated on rows of the corpus, and what that costs stated.

Weights and activations become integers by scales that NNCF finds on some rows (post-training static
quantization). How far vectors drift from those at float32, and how much faster it is on this
machine, is measured on other rows; both depend on model and corpus.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.errors import InvalidInput
from ember.worker.models.openvino_check import cosines, vectors
from ember.worker.models.openvino_encoders import openvino_encoder
from ember.worker.models.openvino_runtime import save_model, start_openvino
from ember.worker.results import unit_length
from ember.worker.row_paths import PathRules
from ember.worker.rows import RowError
from ember.worker.spec import ModelSpec

__all__ = ["quantize"]

Matrix = npt.NDArray[np.float64]
# Fewer rows that can be embedded say too little of scales, and nothing of drift.
_FEWEST = 20
_NEIGHBORS = 10
_RESAMPLES, _LEVEL = 1000, 0.95


def quantize(
    spec: ModelSpec, folder: str, rows: Sequence[Any], paths: PathRules | None
) -> dict[str, Any]:
    """Write the model of a spec for OpenVINO at float32 into `folder`, at 8 bits.

    rows: of the corpus; every second one is calibrated on, and drift is measured on the others.
    Returns what was measured, for the manifest.

    Raises InvalidInput where too few of them can be embedded.
    """
    openvino = start_openvino()
    import nncf

    exact: Any = openvino_encoder(spec, "cpu", 1, paths=paths)
    items = [each[0] for each in exact.prepare(rows) if not isinstance(each, RowError)]
    if len(items) < _FEWEST:
        raise InvalidInput(
            f"model.precision int8 is calibrated on rows of the corpus, and of {len(rows)} drawn "
            f"{len(items)} could be embedded; it takes {_FEWEST}"
        )
    calibrated, held_out = items[::2], items[1::2]
    model = openvino.Core().read_model(f"{spec.path}/model.xml")
    names = [each.get_any_name() for each in model.inputs]
    alone = [dict(zip(names, exact.arrays([item]), strict=True)) for item in calibrated]
    kind = nncf.ModelType.TRANSFORMER if spec.modality == "text" else None
    nncf.set_log_level(40)
    data = nncf.Dataset(alone, lambda each: each)
    made = nncf.quantize(model, data, subset_size=len(alone), model_type=kind)
    for file in Path(spec.path).glob("*.json"):
        shutil.copyfile(file, Path(folder, file.name))
    save_model(made, folder)
    ours = openvino_encoder(spec.at(folder), "cpu", 1, paths=paths)
    drift = _drift(vectors(exact, held_out, 1), vectors(ours, held_out, 1))
    drift["calibrated_on"] = len(calibrated)
    drift["times_as_fast"] = round(_seconds(exact, held_out) / _seconds(ours, held_out), 2)
    return drift


def _seconds(encoder: Any, items: Sequence[Any]) -> float:
    """Of one batch, the best of three."""
    batch = list(items[: encoder.batch_size])
    spent = []
    for _ in range(3):
        start = perf_counter()
        encoder.run(batch)
        spent.append(perf_counter() - start)
    return min(spent)


def _drift(exact: Matrix, ours: Matrix) -> dict[str, Any]:
    """How vectors at 8 bits lie to those at float32, of the same rows.

    Cosines of each row with itself, and how many of its ten nearest neighbors by cosine are the
    same ones, with the interval of a mean by the bootstrap over rows (percentiles).
    """
    found = cosines(exact, ours)
    shared = _shared_neighbors(exact, ours)
    return {
        "rows": len(found),
        "cosine": {
            **{
                name: round(float(np.quantile(found, share)), 6)
                for name, share in (("least", 0), ("quantile_05", 0.05), ("median", 0.5))
            },
            "mean": _mean(found),
        },
        f"neighbors_of_{_NEIGHBORS}_shared": None if shared is None else _mean(shared),
    }


def _shared_neighbors(one: Matrix, other: Matrix) -> Matrix | None:
    """Of each row, the share of neighbors that it keeps; None for too few rows to have some."""
    if len(one) <= 2 * _NEIGHBORS:
        return None
    near = [_nearest(unit_length(each)) for each in (one, other)]
    kept = [len(set(a) & set(b)) for a, b in zip(*near, strict=True)]
    return np.array(kept) / _NEIGHBORS


def _nearest(unit: Matrix) -> npt.NDArray[np.int64]:
    scores = unit @ unit.T
    np.fill_diagonal(scores, -np.inf)
    order: npt.NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")[:, :_NEIGHBORS]
    return order


def _mean(values: Matrix) -> dict[str, float]:
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    named = {"value": values.mean(), "low": low, "high": high}
    return {name: round(float(value), 6) for name, value in named.items()}
