"""A head: what turns a row of features into a score for each label, and the folder it is kept in.

    z = (x - mean) / scale            missing tables: 0, and their indicator 1
    logits = layers(z)                affine, with ReLU between layers
    scores = softmax or sigmoid of (slope * logits + offset)

Scoring takes numpy and scipy alone; a head goes to the workers as it is (pickled). Its folder has
`head.safetensors` (the arrays) and `head.json` (what they mean, and how they came about).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ember.errors import InvalidInput
from ember.worker.json_files import read_json
from ember.worker.vectors.projection import Projection

__all__ = ["DESCRIPTION", "WEIGHTS", "Float32", "Head", "Kind"]

Float32 = NDArray[np.float32]
Kind = Literal["logistic", "svm", "mlp", "similarity"]

WEIGHTS = "head.safetensors"
DESCRIPTION = "head.json"
_FORMAT = "ember-head"
_VERSION = 1
_SCORED_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head of c labels on d features; a learned metric has no labels.

    Attributes:
        kind: logistic, svm, mlp, or similarity (a learned metric: `project`, no `scores`).
        labels: c names, in the order of the columns of `scores`.
        multilabel: a row may have any number of labels; scores are sigmoids, each by itself.
        parts: dimension of each feature table, in the order in which rows are concatenated.
        indicators: positions in `parts` of the tables that some training rows lacked; each adds
            one feature, 1 where the table is missing.
        mean, scale: (d,) float32, of the training rows.
        layers: (weights (in, out), bias (out,)) float32 of each layer; the first takes d features
            and the indicators.
        slope, offset: (c,) float32, calibration: a temperature T is slope 1/T and offset 0.
        thresholds: (c,) float32, the score from which a label of a multi-label head is given.
        about: what else head.json says: features, split, calibration, metrics, versions.
    """

    kind: Kind
    labels: tuple[str, ...]
    multilabel: bool
    parts: tuple[int, ...]
    indicators: tuple[int, ...]
    mean: Float32
    scale: Float32
    layers: tuple[tuple[Float32, Float32], ...]
    slope: Float32
    offset: Float32
    thresholds: Float32
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        width, c = self.dimension + len(self.indicators), len(self.labels)
        shapes = {"mean": (self.dimension,), "scale": (self.dimension,)}
        shapes |= dict.fromkeys(("slope", "offset", "thresholds"), (c,))
        for name, shape in shapes.items():
            _check(name, getattr(self, name), shape)
        if not self.layers:
            raise InvalidInput("a head has at least one layer")
        if min(self.parts, default=0) < 1:
            raise InvalidInput(f"parts {list(self.parts)} are no dimensions of tables")
        for number, (weights, bias) in enumerate(self.layers):
            _check(f"layer {number} bias", bias, (len(bias),))
            _check(f"layer {number} weights", weights, (width, len(bias)))
            width = len(bias)
        if self.kind != "similarity" and width != c:
            raise InvalidInput(f"the last layer has {width} outputs for {c} labels")
        if not set(self.indicators) <= set(range(len(self.parts))):
            raise InvalidInput(f"indicators {self.indicators} for {len(self.parts)} tables")

    @property
    def dimension(self) -> int:
        """How many features a row has: those of all tables, one behind the other."""
        return sum(self.parts)

    def scores(self, matrix: Float32) -> Float32:
        """Calibrated probabilities: softmax for one label a row, sigmoid for many.

        matrix: (n, d) raw features, as embedded. Where the head has several tables, a row that
        lacks one has NaN in all columns of it.
        Returns (n, c) float32; a row with other values that are not finite gets NaN.
        Raises InvalidInput for another width, and for a learned metric.
        """
        if self.kind == "similarity":
            raise InvalidInput("this head is a learned metric; it projects and gives no labels")
        from scipy.special import expit, softmax

        with np.errstate(over="ignore", invalid="ignore"):  # what is beyond float32 becomes NaN
            logits = self.logits(matrix) * self.slope + self.offset
            scores: Float32 = expit(logits) if self.multilabel else softmax(logits, axis=1)
            return scores

    def project(self, matrix: Float32) -> Float32:
        """The learned metric: (n, d) raw features to (n, m) float32, to be compared by cosine.

        Raises InvalidInput for another width, and for a head that gives labels.
        """
        if self.kind != "similarity":
            raise InvalidInput(f"this head is {self.kind}; it gives labels and no projection")
        return self.logits(matrix)

    def as_projection(self) -> Projection:
        """The learned metric as a linear map of embeddings, for `project`.

        Raises InvalidInput for a head that gives labels, or one of several tables.
        """
        if self.kind != "similarity" or len(self.parts) > 1 or len(self.layers) > 1:
            raise InvalidInput(
                f"this head is {self.kind} on {len(self.parts)} tables; a projection takes a "
                "similarity head of one table"
            )
        weights, bias = self.layers[0]
        components = weights.astype(np.float64) / self.scale.astype(np.float64)[:, None]
        mean, offset = self.mean.astype(np.float64), bias.astype(np.float64)
        return Projection("learned metric", mean, components, offset)

    def logits(self, matrix: Float32) -> Float32:
        """(n, d) raw features to the outputs of the last layer, before calibration."""
        if matrix.ndim != 2 or matrix.shape[1] != self.dimension:
            raise InvalidInput(
                f"the features have shape {matrix.shape}; this head takes rows of "
                f"{' + '.join(map(str, self.parts))} = {self.dimension} values"
            )
        out = np.empty((len(matrix), len(self.layers[-1][1])), np.float32)
        for start in range(0, len(matrix), _SCORED_ROWS):  # a standardized copy of a few rows only
            rows = slice(start, start + _SCORED_ROWS)
            out[rows] = self._forward(self.standardize(matrix[rows]))
        return out

    def standardize(self, matrix: Float32) -> Float32:
        """(n, d) raw features to (n, d + indicators) as the first layer takes them."""
        return standardize(matrix, self.parts, self.indicators, self.mean, self.scale)

    def _forward(self, rows: Float32) -> Float32:
        for number, (weights, bias) in enumerate(self.layers):
            rows = rows @ weights + bias
            if number < len(self.layers) - 1:
                np.maximum(rows, 0, out=rows)
        return rows

    def fingerprint(self) -> str:
        """SHA-256 of all that the scores depend on."""
        digest = hashlib.sha256(json.dumps(self._facts(), sort_keys=True).encode())
        for name, array in sorted(self._arrays().items()):
            digest.update(f"{name}{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def save(self, folder: str) -> None:
        """Write the head into a local folder, which is made if need be."""
        from safetensors.numpy import save_file

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        save_file(self._arrays(), path / WEIGHTS, metadata={"format": _FORMAT})
        facts = {"format": _FORMAT, "version": _VERSION, **self._facts()}
        text = json.dumps({**facts, **self.about}, indent=2, ensure_ascii=False)
        (path / DESCRIPTION).write_text(text + "\n", "utf-8")

    @classmethod
    def load(cls, folder: str) -> Head:
        """The head in a local folder that `save` wrote.

        Raises InvalidInput that says what is wrong: nothing there, another format or version,
        damaged weights, weights that do not fit the description.
        """
        facts = _read_description(Path(folder))
        arrays = _read_arrays(Path(folder) / WEIGHTS)
        try:
            count = sum(name.endswith(".weights") for name in arrays)
            layers = [(arrays[f"{n}.weights"], arrays[f"{n}.bias"]) for n in range(count)]
            kind = facts.pop("kind")
            if kind not in get_args(Kind):
                raise InvalidInput(f"unknown kind {kind!r}")
            multilabel, labels = facts.pop("multilabel"), facts.pop("labels")
            if not isinstance(multilabel, bool):
                raise InvalidInput(f"multilabel is {multilabel!r}, neither true nor false")
            if not _are_names(labels):
                raise InvalidInput("its labels are no list of names, each once")
            return cls(
                kind=kind,
                multilabel=multilabel,
                labels=tuple(labels),
                parts=tuple(map(int, facts.pop("parts"))),
                indicators=tuple(map(int, facts.pop("indicators"))),
                layers=tuple(layers),
                mean=arrays["mean"],
                scale=arrays["scale"],
                slope=arrays["slope"],
                offset=arrays["offset"],
                thresholds=arrays["thresholds"],
                about=facts,
            )
        except KeyError as error:
            raise InvalidInput(f"the head in {folder} has no {error.args[0]}") from None
        except (InvalidInput, TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"the head in {folder} does not hold together: {error}") from None

    def _facts(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "multilabel": self.multilabel,
            "labels": list(self.labels),
            "parts": list(self.parts),
            "indicators": list(self.indicators),
        }

    def _arrays(self) -> dict[str, Float32]:
        arrays = {name: getattr(self, name) for name in _VECTORS}
        for number, (weights, bias) in enumerate(self.layers):
            arrays |= {f"{number}.weights": weights, f"{number}.bias": bias}
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


_VECTORS = ("mean", "scale", "slope", "offset", "thresholds")


def standardize(
    matrix: Float32,
    parts: tuple[int, ...],
    indicators: tuple[int, ...],
    mean: Float32,
    scale: Float32,
) -> Float32:
    """(n, d) raw features to zero mean and unit variance, float32; see `Head`.

    A missing table becomes zeros, the mean of the training rows, and its indicator 1. In float64,
    since the differences of float32 numbers need not be any.
    """
    rows = np.empty(matrix.shape, np.float32)
    center, unit = mean.astype(np.float64), scale.astype(np.float64)
    for start in range(0, len(matrix), _SCORED_ROWS):
        some = slice(start, start + _SCORED_ROWS)
        with np.errstate(over="ignore"):  # beyond float32: infinite, as other such rows
            rows[some] = (matrix[some] - center) / unit
    if len(parts) == 1:
        return rows
    ends = np.cumsum(parts)
    missing = np.empty((len(parts), len(matrix)), bool)
    for number, (end, size) in enumerate(zip(ends, parts, strict=True)):
        part = slice(end - size, end)
        missing[number] = np.isnan(matrix[:, part]).all(axis=1)
        rows[missing[number], part] = 0
    return np.concatenate([rows, missing[list(indicators)].T.astype(np.float32)], axis=1)


def _check(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise InvalidInput(f"{name} is {array.dtype} {array.shape}, not float32 {shape}")
    if not np.isfinite(array).all():
        raise InvalidInput(f"{name} has values that are not finite")


def _are_names(labels: Any) -> bool:
    if not isinstance(labels, list) or not all(isinstance(each, str) for each in labels):
        return False
    return len(set(labels)) == len(labels)


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise InvalidInput(
            f"there is no {DESCRIPTION} in {folder}; give a folder that the train job wrote"
        )
    try:
        facts = read_json(path)
    except InvalidInput as error:
        raise InvalidInput(f"cannot read the head: {error}") from None
    if not isinstance(facts, dict) or facts.pop("format", None) != _FORMAT:
        raise InvalidInput(f"{path} does not describe a head; give a folder that train wrote")
    if (version := facts.pop("version", None)) != _VERSION:
        raise InvalidInput(
            f"{path} is of version {version!r} and this Ember reads {_VERSION}; train it again, or "
            "use the Ember that wrote it"
        )
    return facts


def _read_arrays(path: Path) -> dict[str, Float32]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise InvalidInput(f"there is no {path.name} in {path.parent}; the folder is incomplete")
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"{path} is damaged: {error}") from None
