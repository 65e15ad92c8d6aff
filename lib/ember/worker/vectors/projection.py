"""A fitted linear map of vectors, whatever fitted it, and the folder that holds it.

projection.json          kind, input and output dimension, facts of the fit, fingerprint
projection.safetensors   mean (d,), components (d, m), offset (m,), all float64
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ember.worker.vectors.arrays import Float32, Float64, Stored
from ember.worker.vectors.vectors import read_vectors

CHUNK_ROWS = 2048
DESCRIPTION = "projection.json"
TENSORS = "projection.safetensors"


@dataclass(frozen=True)
class Projection:
    """y = (x - mean) components + offset, from d to m dimensions.

    Attributes:
        kind: what fitted it, such as pca.
        mean: (d,) float64.
        components: (d, m) float64.
        offset: (m,) float64.
        facts: of the fit; JSON values.
    """

    kind: str
    mean: Float64
    components: Float64
    offset: Float64
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        d, m = self.components.shape
        if self.mean.shape != (d,) or self.offset.shape != (m,):
            raise ValueError(
                f"components of shape {(d, m)} do not go with a mean of {self.mean.shape} and an "
                f"offset of {self.offset.shape}"
            )

    @property
    def input_dimension(self) -> int:
        return int(self.components.shape[0])

    @property
    def output_dimension(self) -> int:
        return int(self.components.shape[1])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the map itself: equal for equal arrays, whoever fitted them."""
        digest = hashlib.sha256(f"{self.components.shape}".encode())
        for array in (self.mean, self.components, self.offset):
            digest.update(np.ascontiguousarray(array, "<f8").tobytes())
        return digest.hexdigest()

    def apply(self, rows: Stored) -> Float32:
        """(n, d) float32 or float64 to (n, m) float32, computed in float64.

        So a row's result differs by a last bit of float32 at most, whatever rows are beside it.

        Raises:
            ValueError: rows of another length.
        """
        if rows.ndim != 2 or rows.shape[1] != self.input_dimension:
            raise ValueError(
                f"the projection takes {self.input_dimension} dimensions, the rows have "
                f"{rows.shape[-1]}"
            )
        result = np.empty((len(rows), self.output_dimension), np.float32)
        for start in range(0, len(rows), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            with np.errstate(
                over="ignore", invalid="ignore"
            ):  # beyond float32: infinite, for the reader to reject
                result[part] = (rows[part] - self.mean) @ self.components + self.offset
        return result

    def describe(self) -> dict[str, Any]:
        """What the folder's JSON says."""
        return {
            "kind": self.kind,
            "input_dimension": self.input_dimension,
            "output_dimension": self.output_dimension,
            "fingerprint": self.fingerprint,
            "facts": self.facts,
        }

    def summary(self) -> dict[str, Any]:
        """The description in a few lines: of long lists in the facts, the sum of the shares."""
        short = {name: fact for name, fact in self.facts.items() if not isinstance(fact, list)}
        if "explained_ratio" in self.facts:
            short["explained"] = float(np.sum(self.facts["explained_ratio"]))
        return {**self.describe(), "facts": short}

    def save(self, folder: str | Path) -> None:
        """Write the two files into `folder`, which is made."""
        from safetensors.numpy import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"mean": self.mean, "components": self.components, "offset": self.offset}
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / TENSORS
        )
        text = json.dumps(self.describe(), indent=2, ensure_ascii=False)
        (folder / DESCRIPTION).write_text(text + "\n", "utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Projection:
        """What `save` wrote.

        Raises:
            ValueError: the folder lacks a file, or its files do not belong together.
        """
        from safetensors.numpy import load_file

        try:
            description = json.loads(Path(folder, DESCRIPTION).read_text("utf-8"))
            arrays = load_file(Path(folder, TENSORS))
            mean, components, offset = (arrays[name] for name in ("mean", "components", "offset"))
            result = cls(description["kind"], mean, components, offset, description["facts"])
            expected = description["fingerprint"]
        except Exception as error:  # safetensors has an exception of its own for damaged files
            raise ValueError(f"no usable projection: {type(error).__name__}: {error}") from error
        if result.fingerprint != expected:
            raise ValueError(f"{TENSORS} is not the file that {DESCRIPTION} describes")
        return result


def project_column(column: pa.Array, projection: Projection) -> tuple[pa.Array, pa.Array]:
    """Apply a projection to an Arrow column of embeddings.

    Returns (n,) list<float>, null where a row cannot be projected, and (n,) string, null where it
    can: the reasons of `read_vectors`, or "not finite after projection".
    """
    vectors = read_vectors(column, None, projection.input_dimension, exact=True)
    values = projection.apply(vectors.matrix)
    reasons = np.full(len(column), None, object)
    reasons[list(vectors.reasons)] = list(vectors.reasons.values())
    rows = np.flatnonzero(vectors.kept)
    finite = np.isfinite(values).all(axis=1)
    reasons[rows[~finite]] = "not finite after projection"
    width = projection.output_dimension
    good = np.zeros(len(column), np.bool_)
    good[rows[finite]] = True
    offsets = np.concatenate([[0], np.cumsum(good)]).astype(np.int32) * width
    flat = pa.array(values[finite].ravel())
    mask = pa.array(~good)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=mask), pa.array(
        reasons, pa.string()
    )
