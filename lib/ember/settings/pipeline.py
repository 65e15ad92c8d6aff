"""The configuration of `pipeline`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ember.settings.config import Config
from ember.settings.config_keys import Holds
from ember.settings.names import Name, Target

__all__ = ["PipelineConfig", "PipelineOutputConfig", "StepConfig"]


class StepConfig(Config):
    """What a step says of itself; beside these keys stand those of its job."""

    job: Name = Field(description="The job that the step runs; its own keys stand beside this one.")
    config: Name | None = Field(
        default=None,
        description="YAML file of the job to start from; the step's own keys override it.",
    )


class PipelineOutputConfig(Config):
    """Where the pipeline's own manifest and report go; those of its last run are replaced."""

    path: Target = Field(
        description="Folder for the manifest and the report, in place of those of the last run."
    )


# The keys that Ember knows in a step before it knows the job.
StepKeys = Annotated[dict[str, Any], Holds(StepConfig)]


class PipelineConfig(Config):
    """Configuration of the `pipeline` job: steps by name, in the order in which they run.

    In a text of a step, `$name` is a variable or the output of a step above, path or table;
    `${name.key}` another key of such a step, and `$$` a dollar.
    """

    vars: dict[str, Any] = Field(
        default_factory=dict,
        description="Values by name; $name in a text of a step stands for one, or for a step's "
        "output.path.",
    )
    steps: Annotated[dict[str, StepKeys], Field(min_length=1)] = Field(
        description="Steps by name, in the order in which they run."
    )
    report: bool = Field(
        default=True, description="Whether to write report.html, a page of all steps."
    )
    output: PipelineOutputConfig = Field(description="Where the pipeline's own files go.")
