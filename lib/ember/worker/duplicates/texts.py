"""Texts as copies of one another: their normal form, the shingles in it, MinHash signatures."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.worker.splitmix import GAMMA, mix

__all__ = [
    "PERMUTATIONS",
    "Banding",
    "banding",
    "normalized",
    "shingles",
    "signature",
    "text_bands",
]

PERMUTATIONS = 128
WORDS = 3
MISS = 0.01
# Scripts that put no spaces between words; each letter counts as one.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+")
# Of shingles in one update, whose hashes are a matrix with a row for each.
_AT_ONCE = 4096

Words = npt.NDArray[np.int64]


def normalized(text: str) -> str:
    """A text without its differences of case, spacing and Unicode form.

    NFKC, then case folding, then NFKC again; runs of white space become one space.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def shingles(text: str) -> Words:
    """The hashes (int64, sorted, distinct) of each three consecutive words of a normalized text.

    Of fewer words it is one hash of all of them, of a text without words that of the text. Marks
    between words do not count; a letter of a script without spaces is a word.
    """
    words = np.array([_word(each) for each in _WORD.findall(text)], np.int64)
    if not len(words):
        return np.array([_hash(text)], np.int64)
    size = min(WORDS, len(words))
    found = np.zeros(len(words) - size + 1, np.int64)
    for place in range(size):
        found = mix(found + GAMMA + words[place : place + len(found)])
    return np.unique(found)


def signature(found: Words) -> npt.NDArray[np.uint32]:
    """The MinHash signature (PERMUTATIONS,) of the set of shingles."""
    minhash = _empty().copy()
    hashes = (found.view(np.uint64) >> np.uint64(32)).tolist()
    for start in range(0, len(hashes), _AT_ONCE):
        minhash.update_batch(hashes[start : start + _AT_ONCE])
    values: npt.NDArray[np.uint32] = minhash.hashvalues
    return values


@dataclass(frozen=True)
class Banding:
    """How a signature is cut: so many bands of so many values each."""

    bands: int
    rows: int

    def miss(self, jaccard: float) -> float:
        """The probability that two texts of this Jaccard similarity share no band."""
        return float((1 - jaccard**self.rows) ** self.bands)


def banding(threshold: float) -> Banding:
    """The widest bands with which a pair at the threshold is missed in 1 of 100 cases at most.

    Wider bands bring fewer texts together that are not similar.
    """
    for rows in range(PERMUTATIONS, 1, -1):
        cut = Banding(PERMUTATIONS // rows, rows)
        if cut.miss(threshold) <= MISS:
            return cut
    return Banding(PERMUTATIONS, 1)


def text_bands(signatures: Sequence[npt.NDArray[np.uint32]], cut: Banding) -> npt.NDArray[np.int64]:
    """The keys (n, bands) of the buckets that n signatures are in."""
    used = np.stack(signatures)[:, : cut.bands * cut.rows].astype(np.int64)
    parts = used.reshape(len(signatures), cut.bands, cut.rows)
    keys: Words = mix(np.arange(cut.bands) * GAMMA)[None].repeat(len(parts), axis=0)
    for place in range(cut.rows):
        keys = mix(keys + GAMMA + parts[:, :, place])
    return keys


@lru_cache(maxsize=1 << 17)
def _word(word: str) -> int:
    return _hash(word)


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


@cache
def _empty() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int)
