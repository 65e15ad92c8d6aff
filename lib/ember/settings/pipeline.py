"""The configuration of `pipeline`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ember.config import Config
from ember.settings.embedding import Name, Target

__all__ = ["PipelineConfig", "PipelineOutputConfig", "StepConfig"]


class StepConfig(Config):
    """What a step says of itself; beside these keys stand those of its job.

    `config`: a YAML file of the job that the step starts from; its own keys go before it.
    """

    job: Name
    config: Name | None = None


class PipelineOutputConfig(Config):
    """Where the pipeline's own manifest and report go; those of its last run are replaced."""

    path: Target


class PipelineConfig(Config):
    """Configuration of the `pipeline` job: steps by name, in the order in which they run.

    In a text of a step, `$name` is a variable or the output.path of a step above, `${name.key}`
    another key of such a step, and `$$` a dollar.
    """

    vars: dict[str, Any] = Field(default_factory=dict)
    steps: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    report: bool = True
    output: PipelineOutputConfig
