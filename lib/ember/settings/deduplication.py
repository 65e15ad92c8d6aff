"""The configuration of `dedup`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.settings.config import Config
from ember.settings.limits import LimitsConfig
from ember.settings.names import Name, Source, Target
from ember.settings.outputs import SyncMode
from ember.settings.tables import (
    ContentIsKey,
    CorpusConfig,
    EmbeddingsConfig,
    OtherTableConfig,
    RootKey,
    TableConfig,
)

__all__ = ["AgainstConfig", "DedupConfig", "DedupInput", "DedupLimits", "KeepConfig"]
__all__ += ["LabeledPairsConfig", "TierConfig"]

TierConfig = (
    Literal["exact", "perceptual", "minhash"]
    | dict[Literal["perceptual", "minhash", "embedding"], float]
)
"""A way to find copies, by its name alone or with its threshold."""

KeepConfig = (
    Literal["largest", "longest", "oldest", "newest"] | dict[Literal["first_by"], Name] | None
)
"""Which row of a group stays."""


class DedupInput(CorpusConfig):
    """The corpus, and what else is known of its rows."""

    time: Name | None = Field(
        default=None,
        description="Column of the rows' times (timestamp, date, number), for keep: oldest or "
        "newest.",
    )
    embedding: EmbeddingsConfig | None = Field(
        default=None,
        description="The embeddings of these rows, by the same ids, for a tier embedding.",
    )


class AgainstConfig(OtherTableConfig):
    """Another corpus of the same modality, in which copies of the input's rows are looked for."""

    content: Name | None = Field(
        default=None, description="Column of the content; null: named as in the input."
    )
    content_is: ContentIsKey = None
    root: RootKey = None
    embedding: EmbeddingsConfig | None = Field(
        default=None, description="The embeddings of these rows, for a tier embedding."
    )


class LabeledPairsConfig(TableConfig):
    """Pairs of rows of the input that somebody has judged."""

    left_id: Name = Field(default="left_id", description="Column of the one row's id.")
    right_id: Name = Field(default="right_id", description="Column of the other row's id.")
    label: Name = Field(
        default="copy",
        description="Column that says whether they are copies: a boolean, or 1 and 0.",
    )


class DedupLimits(LimitsConfig):
    """The bounds of a row, as for other jobs on corpora, and of the pairs of embeddings."""

    max_pairs: Annotated[int, Field(ge=1)] = Field(
        default=100_000_000,
        description="Pairs that a tier embedding may find; more: exit code 3.",
    )


class DedupOutputConfig(Config):
    """Where the two tables go, and what happens when they are there."""

    path: Target = Field(description="Folder to write.")
    mode: SyncMode = "fail"


class DedupConfig(Config):
    """Configuration of the `dedup` job.

    A tier sees only the rows that the tiers before it left. `exact` compares the bytes of images
    and the normalized texts; `perceptual` the perceptual hashes of images, which may differ in so
    many of 64 bits (8); `minhash` the sets of three consecutive words of texts, of which so large
    a share must be common (0.7); `embedding` the cosine of vectors.

    Attributes:
        keep: largest (images: pixels, then bytes), longest (texts: characters), oldest or newest
            (by input.time), or {first_by: SQL}; of equal rows the one with the smallest id.
    """

    input: DedupInput = Field(description="The corpus to look for copies in.")
    tiers: Annotated[list[TierConfig], Field(min_length=1)] | None = Field(
        default=None,
        description="Ways to find copies, in order; null: exact, then perceptual (images) or "
        "minhash (texts).",
    )
    keep: KeepConfig = Field(
        default=None,
        description="Which row of a group stays, or SQL whose least value does; null: largest or "
        "longest.",
    )
    against: AgainstConfig | None = Field(
        default=None,
        description="A second table; the rows that have a copy there are removed, and no others.",
    )
    pairs: LabeledPairsConfig | None = Field(
        default=None,
        description="Pairs of rows that somebody has judged, for the recall of this run and of "
        "other thresholds.",
    )
    report: bool = Field(
        default=True, description="Whether to write report.html, a page with groups to look at."
    )
    map: Source | None = Field(
        default=None,
        description="Folder that the job map wrote, to link from the page; null: no link.",
    )
    output: DedupOutputConfig = Field(description="Where the tables kept and removed go.")
    limits: DedupLimits = Field(default=DedupLimits(), description="Bounds of the run.")
