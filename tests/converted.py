"""Models as each runtime runs them: for OpenVINO converted as a job does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ember.worker.spec import ModelSpec
from tiny_models import needs_openvino

RUNTIMES = ["torch", pytest.param("openvino", marks=needs_openvino)]


def converted(spec: ModelSpec, folder: Path, rows: Sequence[Any] = ()) -> ModelSpec:
    """The model of a torch spec in OpenVINO's format, in a new folder."""
    from ember.worker.models.openvino_transformers import convert

    folder.mkdir()
    convert(spec, str(folder), rows)
    return replace(spec, path=str(folder), runtime="openvino")


def as_run_by(runtime: str, spec: ModelSpec, folder: Path) -> ModelSpec:
    """The torch spec as it is, or converted into the new folder."""
    return converted(spec, folder) if runtime == "openvino" else spec
