"""Does a converted model do what it was converted from? On rows, by its input and its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.errors import InvalidInput
from ember.worker.results import unit_length
from ember.worker.rows import RowError
from ember.worker.spec import RELATIVE_TOLERANCE

__all__ = ["Unsuited", "agree", "agree_roughly", "cosines", "vectors"]

Matrix = npt.NDArray[np.float64]
# The least cosine of a row's vector with that of torch at float32.
_AT_FLOAT32, _AT_BFLOAT16 = 0.9999, 0.999
# A probability may be off by as much at bfloat16, which exponentials make of scores near 10.
_PROBABILITY = 0.1


class Unsuited(InvalidInput):
    """A model, or a processor, that is left to torch, and why."""


def agree(torch: Any, ours: Any, raws: Sequence[Any]) -> None:
    """Raise Unsuited unless rows become the same input and, at float32, the same vectors.

    torch, ours: encoders of the model and of what it was converted into.
    """
    items = []
    for expected, found in zip(torch.prepare(raws), ours.prepare(raws), strict=True):
        if isinstance(expected, RowError) or isinstance(found, RowError):
            if str(expected) != str(found):
                raise Unsuited(f"a row is {found} in place of {expected}")
            continue
        if torch.spec.modality == "text" and not np.array_equal(expected[0], found[0]):
            raise Unsuited("the tokenizers library makes other tokens of a text than transformers")
        items.append((expected, found))
    items.sort(key=lambda pair: pair[0][1])
    exact = vectors(torch, [theirs[0] for theirs, _ in items], 4)
    # In other batches, so that what tracing took for a constant shows.
    made = vectors(ours, [own[0] for _, own in items], 3)
    cosine = cosines(exact, made).min()
    apart = np.abs(made - exact).max(axis=1) / np.abs(exact).max(axis=1, initial=1e-30)
    if not cosine >= _AT_FLOAT32 or not apart.max() <= RELATIVE_TOLERANCE["float32"]:
        raise Unsuited(
            f"a row's vector is not that of torch: cosine {cosine:.6f}, {apart.max():.1e} apart"
        )


def agree_roughly(torch: Any, ours: Any, raws: Sequence[Any]) -> None:
    """Raise Unsuited unless vectors at bfloat16 are near those of torch at float32."""
    pairs = zip(torch.prepare(raws), ours.prepare(raws), strict=True)
    items = [(a, b) for a, b in pairs if not isinstance(a, RowError)]
    if not items:
        return
    exact, low = (
        vectors(encoder, [pair[side][0] for pair in items], 4)
        for side, encoder in enumerate((torch, ours))
    )
    if torch.spec.task == "classify":
        off = float(np.abs(exact - low).max())
        if not off <= _PROBABILITY:
            raise Unsuited(f"a row's probability at bfloat16 is {off:.2f} off")
        return
    cosine = cosines(exact, low).min()
    if not cosine >= _AT_BFLOAT16:
        raise Unsuited(f"a row's vector at bfloat16 is not that of float32: cosine {cosine:.6f}")


def vectors(encoder: Any, items: Sequence[Any], rows: int) -> Matrix:
    """Vectors (n, d) float64 of prepared items, in batches of so many rows."""
    batches = [items[start : start + rows] for start in range(0, len(items), rows)]
    made = [np.stack(list(encoder.run(batch))) for batch in batches]
    return np.concatenate(made).astype(np.float64)


def cosines(one: Matrix, other: Matrix) -> Matrix:
    """Of each row (n, d) with that of the other: (n,); 0 for a row of zeros."""
    return np.asarray((unit_length(one) * unit_length(other)).sum(axis=1))
