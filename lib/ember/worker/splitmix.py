"""SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): random 64-bit words from a key and a counter.

The word at place i of the sequence that a key starts is ``mix(key + i * GAMMA)``, so any word can
be had without those before it. Words are int64 with a sign, since torch has no unsigned ones; the
same code serves numpy and torch, whose sums and products of int64 arrays wrap around.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["GAMMA", "mix", "signed"]


def signed(word: int) -> int:
    """The int64 with the lowest 64 bits of ``word``."""
    return int(np.uint64(word & ((1 << 64) - 1)).astype(np.int64))


GAMMA = signed(0x9E3779B97F4A7C15)
_STEPS = (
    (30, signed(0xBF58476D1CE4E5B9)),
    (27, signed(0x94D049BB133111EB)),
    (31, 1),
)


def mix(words: Any) -> Any:
    """The generator's output function, in place, of an int64 array or tensor."""
    for bits, factor in _STEPS:
        # A shift of signed words copies the sign; the mask takes its copies away.
        words ^= (words >> bits) & ((1 << (64 - bits)) - 1)
        if factor != 1:
            words *= factor
    return words
