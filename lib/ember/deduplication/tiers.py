"""The tiers of a run and the row that it keeps: what was asked for, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from ember.errors import InvalidConfig, InvalidInput
from ember.settings.deduplication import KeepConfig, TierConfig
from ember.worker.duplicates.pictures import BITS
from ember.worker.duplicates.texts import PERMUTATIONS, WORDS, banding
from ember.worker.spec import Modality

__all__ = ["Keep", "Tier", "chosen_keep", "chosen_tiers"]

DISTANCE = 8
JACCARD = 0.7
# Hashes that differ in more bits are those of other pictures, and their bands have hardly any bits.
_MOST_BITS = 16
_OF = {"perceptual": "image", "minhash": "text"}
_PACKAGES = {"perceptual": "imagehash", "minhash": "datasketch"}
_KEEP_OF = {"largest": "image", "longest": "text"}


@dataclass(frozen=True)
class Tier:
    """A way to find copies.

    threshold: for perceptual the bits of 64 that may differ, for minhash the least Jaccard
    similarity, for embedding the least cosine; None for exact.
    """

    name: str
    threshold: float | None = None

    @property
    def least_score(self) -> float:
        """The score that a pair must reach."""
        if self.name == "perceptual" and self.threshold is not None:
            return 1 - self.threshold / BITS
        return 1.0 if self.threshold is None else self.threshold

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        told: dict[str, Any] = {"tier": self.name}
        if self.threshold is not None:
            told["threshold"] = self.threshold
        if self.name == "minhash" and self.threshold is not None:
            cut = banding(self.threshold)
            told |= {"words": WORDS, "permutations": PERMUTATIONS}
            told |= {"bands": cut.bands, "rows": cut.rows}
            told["missed_at_threshold"] = round(cut.miss(self.threshold), 6)
        return told


@dataclass(frozen=True)
class Keep:
    """Which row of a group stays: largest, longest, oldest, newest, or first_by an expression."""

    name: str
    expression: str | None = None


def chosen_tiers(
    given: Sequence[TierConfig] | None, modality: Modality, *, vectors: bool
) -> list[Tier]:
    """The tiers in order, with their thresholds. vectors: is there a table of embeddings?

    Raises InvalidConfig for a tier twice, one of another modality, a threshold that is none, and
    embeddings without a tier or a tier without embeddings; InvalidInput without a tier's package.
    """
    if given is None:
        given = ["exact", "perceptual" if modality == "image" else "minhash"]
    tiers = [_tier(each, modality) for each in given]
    names = [tier.name for tier in tiers]
    for name in names:
        if names.count(name) > 1:
            raise InvalidConfig(f"tiers names {name} {names.count(name)} times; give it once")
    if "embedding" in names and not vectors:
        raise InvalidConfig(
            "tiers has an embedding and no input.embedding: give the table of the rows' embeddings"
        )
    if vectors and "embedding" not in names:
        raise InvalidConfig(
            "input.embedding is given and no tier reads it; add {embedding: 0.95} to tiers, or "
            "leave it out"
        )
    for name in names:
        package = _PACKAGES.get(name)
        if package is not None and find_spec(package) is None:
            raise InvalidInput(
                f"the tier {name} needs {package}, here and on the workers; install the extra with "
                "pip install 'ember-spark[dedup]', or leave the tier out"
            )
    return tiers


def _tier(given: TierConfig, modality: Modality) -> Tier:
    if isinstance(given, dict) and len(given) != 1:
        raise InvalidConfig(
            f"a tier is a name, or one name with its threshold, and tiers has {dict(given)}; write "
            "each as an entry of its own"
        )
    default = {"perceptual": DISTANCE, "minhash": JACCARD}
    name, threshold = (
        next(iter(given.items())) if isinstance(given, dict) else (given, default.get(given))
    )
    if _OF.get(name, modality) != modality:
        raise InvalidConfig(
            f"the tier {name} is for {_OF[name]}s, and input.modality is {modality}; leave it out"
        )
    if name == "perceptual" and not (
        threshold is not None and 0 <= threshold <= _MOST_BITS and threshold == int(threshold)
    ):
        raise InvalidConfig(
            f"tiers: perceptual is {threshold}; give a number of bits, 0 to {_MOST_BITS}, in which "
            f"two hashes of {BITS} may differ"
        )
    if name == "minhash" and not (threshold is not None and 0.1 <= threshold <= 1):
        raise InvalidConfig(
            f"tiers: minhash is {threshold}; give the share of shingles that two texts must have "
            "in common, 0.1 to 1"
        )
    if name == "embedding" and not (threshold is not None and -1 <= threshold <= 1):
        raise InvalidConfig(f"tiers: embedding is {threshold}; give a cosine, such as 0.95")
    return Tier(name, threshold)


def chosen_keep(given: KeepConfig, modality: Modality, *, time: str | None, against: bool) -> Keep:
    """The row that stays. Raises InvalidConfig for what does not go with the rest."""
    if against and given is not None:
        raise InvalidConfig(
            "keep does not go with against, where every row with a copy in the other table is "
            "removed; leave it out"
        )
    if isinstance(given, dict):
        if set(given) != {"first_by"}:
            raise InvalidConfig("keep: first_by is missing; write keep: {first_by: an expression}")
        keep = Keep("first_by", given["first_by"])
    else:
        keep = Keep(given or ("largest" if modality == "image" else "longest"))
    if _KEEP_OF.get(keep.name, modality) != modality:
        raise InvalidConfig(
            f"keep: {keep.name} is for {_KEEP_OF[keep.name]}s, and input.modality is {modality}"
        )
    timed = keep.name in ("oldest", "newest")
    if timed and time is None:
        raise InvalidConfig(f"keep: {keep.name} needs input.time, the column with the rows' times")
    if time is not None and not timed:
        raise InvalidConfig("input.time is for keep: oldest or newest; leave it out")
    return keep
