"""Which library runs a model: what `auto` takes and why, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ember.errors import InvalidConfig
from ember.settings.embedding import ModelConfig
from ember.spark import runtimes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a model large enough to be converted, where all packages and instructions are there."""
    with (tmp_path / "model.safetensors").open("wb") as stream:
        stream.truncate(9 << 20)
    monkeypatch.setattr(runtimes, "find_spec", lambda _: True)
    monkeypatch.setattr(runtimes, "instruction_flags", lambda: {"avx2", "avx512_bf16"})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def choose(folder: Path, family="hf", task="embed", gpu=False, converts=True, **settings):
    config = ModelConfig.model_validate({"name": f"{family}:X", **settings})
    return runtimes.choose(config, family, folder, task=task, gpu=gpu, converts=converts)


@pytest.mark.parametrize("family", ["hf", "keras"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_openvino_on_a_cpu(folder, family, precision):
    assert choose(folder, family, precision=precision) == ("openvino", "the fastest on a CPU")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"gpu": True}, "tasks are given GPUs"),
        ({"precision": "float16"}, "float32 or bfloat16 on a CPU"),
        ({"task": "generate"}, "OpenVINO does not run this task"),
        ({"converts": False}, "OpenVINO does not run this task"),
    ],
)
def test_torch_elsewhere(folder, given, reason):
    runtime, why = choose(folder, **given)
    assert runtime == "torch"
    assert reason in why


def test_torch_where_the_environment_names_gpus(folder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert choose(folder)[0] == "torch"


def test_torch_without_instructions_for_bfloat16(folder, monkeypatch):
    monkeypatch.setattr(runtimes, "instruction_flags", lambda: {"avx2"})
    assert choose(folder, precision="bfloat16")[1].endswith("no instructions for bfloat16")
    assert choose(folder)[0] == "openvino"


@pytest.mark.parametrize("missing", ["openvino", "torch", "transformers"])
def test_torch_where_a_package_is_not_installed(folder, monkeypatch, missing):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: name != missing)
    assert choose(folder) == ("torch", f"{missing} is not installed where the driver runs")


def test_a_small_model_is_not_converted_unless_asked(folder):
    (folder / "model.safetensors").write_bytes(b"few")
    assert choose(folder)[0] == "torch"
    assert choose(folder, runtime="openvino")[0] == "openvino"


@pytest.mark.parametrize(
    ("family", "runtime", "given", "message"),
    [
        ("hf", "tensorflow", {}, "does not run hf:X; use torch or openvino, or auto"),
        ("keras", "torch", {}, "does not run keras:X; use tensorflow or openvino, or auto"),
        ("hf", "openvino", {"task": "generate"}, "does not run hf:X here; use torch, or auto"),
    ],
)
def test_a_runtime_that_does_not_run_the_model_is_refused(folder, family, runtime, given, message):
    with pytest.raises(InvalidConfig, match=message):
        choose(folder, family, runtime=runtime, **given)


@pytest.mark.parametrize("runtime", ["auto", "openvino"])
def test_eight_bits_are_openvino_s(folder, runtime):
    (folder / "model.safetensors").write_bytes(b"few")
    found = choose(folder, precision="int8", runtime=runtime)
    assert found == ("openvino", "the only one at 8 bits")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"runtime": "torch"}, "model.runtime is torch"),
        ({"gpu": True}, "tasks are given GPUs"),
        ({"task": "generate"}, "OpenVINO does not run this task"),
        ({"converts": False}, "OpenVINO does not run this task"),
    ],
)
def test_eight_bits_elsewhere_are_refused(folder, given, why):
    with pytest.raises(InvalidConfig, match=f"int8 is OpenVINO's on a CPU, and here {why}"):
        choose(folder, precision="int8", **given)


def test_eight_bits_without_nncf_are_refused(folder, monkeypatch):
    monkeypatch.setattr(runtimes, "find_spec", lambda name: name != "nncf")
    with pytest.raises(InvalidConfig, match="and here nncf is not installed where the driver"):
        choose(folder, precision="int8")
