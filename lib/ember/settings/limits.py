"""What jobs bear: rows that fail, and rows that are large."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ember.settings.config import Config
from ember.settings.names import Share
from ember.worker.rows import MAX_BYTES, MAX_PIXELS

__all__ = ["MAX_FAILED_FRACTION", "LimitsConfig", "RejectsConfig", "VectorLimitsConfig"]

# What of a table may fail, by default, before a run ends with exit code 3.
MAX_FAILED_FRACTION = 0.01


class LimitsConfig(Config):
    """The failures to bear, and the bounds of a row and of a task."""

    max_failed_fraction: Share = Field(
        default=MAX_FAILED_FRACTION,
        description="Share of rows that may fail; above it the run ends with exit code 3 and "
        "publishes nothing.",
    )
    max_pixels: Annotated[int, Field(ge=1)] = Field(
        default=MAX_PIXELS,
        description="Pixels of an image, known from its header; a larger one is a failed row, and "
        "is not decoded.",
    )
    max_bytes: Annotated[int, Field(ge=1)] = Field(
        default=MAX_BYTES,
        description="Bytes of a row's text, image or file; a larger one is a failed row.",
    )
    rows_per_task: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="Rows that one task does, the most that a killed task loses; auto: chosen by "
        "job and modality.",
    )


class VectorLimitsConfig(LimitsConfig):
    """The same, and how far the vectors of a quantized model may be off."""

    min_cosine: Annotated[float, Field(ge=-1, le=1)] | None = Field(
        default=None,
        description="With precision int8, least cosine of vectors with those at float32; below it "
        "exit code 5; null: any.",
    )


class RejectsConfig(Config):
    """How many rows may have vectors that cannot be used."""

    max_failed_fraction: Share = Field(
        default=MAX_FAILED_FRACTION,
        description="Share of rows that may be unusable; above it the run ends with exit code 3.",
    )
