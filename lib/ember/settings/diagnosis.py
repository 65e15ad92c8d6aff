"""The configuration of `doctor`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ember.settings.config import Config
from ember.settings.config_keys import Holds
from ember.settings.embedding import ModelConfig
from ember.settings.names import Name
from ember.settings.outputs import NewOutputConfig
from ember.settings.pipeline import StepConfig

__all__ = ["DoctorConfig"]


class DoctorConfig(Config):
    """Configuration of the `doctor` job; without any key, it looks at the cluster alone."""

    step: Annotated[dict[str, Any], Holds(StepConfig)] | None = Field(
        default=None,
        description="A run to be: a job and its configuration, as a step of a pipeline has them; "
        "what it reads and writes is tried, and its model's needs are held against the cluster.",
    )
    # Not marked as what is read: a path that no file system knows is to be told of on the page.
    inputs: Annotated[list[Name], Field(min_length=1)] | None = Field(
        default=None, description="Parquet that jobs are to read, by any URI that Spark reads."
    )
    outputs: Annotated[list[Name], Field(min_length=1)] | None = Field(
        default=None,
        description="Folders that jobs are to write; a few rows are written beside each, and "
        "deleted.",
    )
    model: ModelConfig | None = Field(
        default=None, description="A model that jobs are to run; null: that of the step."
    )
    wait: Annotated[float, Field(gt=0)] = Field(
        default=60, description="Seconds within which executors have to run a first task."
    )
    output: NewOutputConfig | None = Field(
        default=None,
        description="Where a manifest with all that was found goes; null: it is printed only.",
    )
