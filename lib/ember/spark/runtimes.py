"""Which library runs a model, and why."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from ember.errors import InvalidConfig
from ember.settings.embedding import ModelConfig
from ember.worker.machine import instruction_flags
from ember.worker.spec import Family, Precision, Runtime, Task, weight_files

__all__ = ["choose"]

_RUNTIMES: dict[Family, tuple[Runtime, ...]] = {
    "keras": ("tensorflow", "openvino"),
    "hf": ("torch", "openvino"),
}
# Below this, workers are done with a model's rows before a conversion would be.
_SMALLEST = 8 << 20
# What a processor calls its instructions for bfloat16.
_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


def choose(
    config: ModelConfig, family: Family, path: Path | None, *, task: Task, gpu: bool, converts: bool
) -> tuple[Runtime, str]:
    """The runtime of a model whose files are at `path`, and the reason for it.

    path: None where they are not at hand, and the model is taken to be worth a conversion.
    gpu: tasks will be given GPUs. converts: whoever asks has a use for a converted model.
    A model that OpenVINO is to run has to be converted first, which may fail.

    Raises InvalidConfig for a runtime that does not run it.
    """
    known = _RUNTIMES[family]
    if task == "generate" or (family == "hf" and not converts):
        known = known[:1]
    if config.precision == "int8":
        return "openvino", _for_int8(config, family, known, gpu=gpu)
    if config.runtime == "auto":
        against = _against_openvino(config.precision, family, path, gpu=gpu, known=known)
        if against:
            return known[0], against
        return "openvino", "the fastest on a CPU"
    for runtime in known:
        if config.runtime == runtime:
            return runtime, "as the configuration says"
    raise InvalidConfig(
        f"model.runtime {config.runtime} does not run {config.name}"
        f"{' here' if config.runtime in _RUNTIMES[family] else ''}; use {' or '.join(known)}, or "
        "auto"
    )


def _for_int8(config: ModelConfig, family: Family, known: tuple[Runtime, ...], *, gpu: bool) -> str:
    """The reason for OpenVINO at 8 bits. Raises InvalidConfig where it cannot be."""
    against = _against_openvino("float32", family, None, gpu=gpu, known=known)
    if config.runtime not in ("auto", "openvino"):
        against = f"model.runtime is {config.runtime}"
    elif not against and not find_spec("nncf"):
        against = "nncf is not installed where the driver runs"
    if against:
        raise InvalidConfig(
            f"model.precision int8 is OpenVINO's on a CPU, and here {against}; use another "
            "precision"
        )
    return "the only one at 8 bits"


def _against_openvino(
    precision: Precision,
    family: Family,
    path: Path | None,
    *,
    gpu: bool,
    known: tuple[Runtime, ...],
) -> str | None:
    """Why OpenVINO is not taken; None where it is. path: None where any size will do."""
    if "openvino" not in known:
        return "OpenVINO does not run this task"
    if gpu or os.environ.get("CUDA_VISIBLE_DEVICES"):
        return "tasks are given GPUs"
    needed = ("openvino", "torch", "transformers") if family == "hf" else ("openvino",)
    if missing := [package for package in needed if not find_spec(package)]:
        return f"{missing[0]} is not installed where the driver runs"
    if path and family == "hf" and _size(path) < _SMALLEST:
        return "a model this small is done before it would be converted"
    return _against_precision(precision)


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in weight_files(path))


def _against_precision(precision: Precision) -> str | None:
    if precision == "float16":
        return "OpenVINO computes in float32 or bfloat16 on a CPU"
    if precision == "bfloat16" and not _BFLOAT16 & instruction_flags():
        return "this processor has no instructions for bfloat16"
    return None
