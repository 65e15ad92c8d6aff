from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ember.errors import DeviceMissing
from ember.worker import machine, task
from ember.worker.device import claim, cuda_device_count, require_cuda
from tiny_models import needs_keras, spec_of


@pytest.mark.parametrize(
    ("visible", "address", "expected"),
    [
        # Not set: what Spark assigned, or the CPU.
        (None, None, ""),
        (None, "0", "0"),
        (None, "3", "3"),
        (None, "GPU-1234", "GPU-1234"),
        # Set to one device: that one, by whatever name Spark knows it.
        ("2", None, "2"),
        ("2", "2", "2"),
        ("2", "0", "2"),
        (" 2 ", "0", "2"),
        ("GPU-1234", "0", "GPU-1234"),
        ("MIG-1/2/3", "0", "MIG-1/2/3"),
        # Set to several: the one assigned, by name or else by position.
        ("0,1", None, "0"),
        ("0,1", "1", "1"),
        ("1,0", "0", "0"),
        ("4, 7", "7", "7"),
        ("4,7", "1", "7"),
        ("GPU-a,GPU-b", "GPU-b", "GPU-b"),
        ("GPU-a,GPU-b", "1", "GPU-b"),
        ("4,7,", "7", "7"),
        # Set to none: the CPU.
        ("", None, ""),
        (" , ", None, ""),
        ("-1", None, ""),
        ("none", None, ""),
        ("NoDevFiles", None, ""),
        ("void", None, ""),
    ],
)
def test_one_device_is_made_visible(
    fresh_process: pytest.MonkeyPatch, visible: str | None, address: str | None, expected: str
) -> None:
    if visible is not None:
        fresh_process.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert claim(address) == ("cuda" if expected else "cpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


@pytest.mark.parametrize(
    ("visible", "address"),
    [("0,1", "2"), ("4,7", "GPU-a"), ("GPU-a,GPU-b", "GPU-c"), ("", "0"), ("-1", "1")],
)
def test_assigned_device_that_is_not_visible_is_missing(
    fresh_process: pytest.MonkeyPatch, visible: str, address: str
) -> None:
    fresh_process.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(DeviceMissing, match=f"GPU {address}.*CUDA_VISIBLE_DEVICES={visible}"):
        claim(address)


def test_first_claim_holds_for_the_life_of_the_process(fresh_process: pytest.MonkeyPatch) -> None:
    assert claim("1") == "cuda"
    assert claim("0") == "cuda"
    assert claim(None) == "cuda"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


def test_claimed_device_is_set_before_any_framework_is_imported() -> None:
    code = (
        "import sys, os\n"
        "from ember.worker import task, device\n"
        "device.claim('5')\n"
        "heavy = {'torch', 'tensorflow', 'keras', 'transformers', 'pyspark'} & set(sys.modules)\n"
        "print(os.environ['CUDA_VISIBLE_DEVICES'], sorted(heavy))\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "5 []"


def test_error_says_what_to_change() -> None:
    require_cuda(True, "torch")
    with pytest.raises(DeviceMissing, match=r"torch sees none on .*unset the GPU settings"):
        require_cuda(False, "torch")


without_gpu = pytest.mark.skipif(cuda_device_count() > 0, reason="this machine has a GPU")


@without_gpu
def test_torch_does_not_fall_back_to_the_cpu(
    fresh_process: pytest.MonkeyPatch, bert_folder: Path, resnet_folder: Path
) -> None:
    for folder in (bert_folder, resnet_folder):
        with pytest.raises(DeviceMissing, match="torch sees none"):
            task.load(spec_of(folder), address="0", threads=1, paths=False)
        assert task.record(spec_of(folder), paths=False).loads == 0


@needs_keras
@without_gpu
def test_tensorflow_does_not_fall_back_to_the_cpu(
    fresh_process: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "w.weights.h5").write_bytes(b"not read")
    spec = spec_of(tmp_path / "w.weights.h5", name="keras:MobileNetV2")
    with pytest.raises(DeviceMissing, match="tensorflow sees none"):
        task.load(spec, address="0", threads=1, paths=False)


def test_count_without_a_driver_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(machine.ctypes, "CDLL", no_library)
    assert cuda_device_count() == 0


@needs_keras
def test_a_process_that_served_a_keras_model_can_load_torch_s_compiler_next():
    """transformers imports torch._dynamo, which imports Triton where it is installed."""
    script = (
        "import tensorflow; from ember.worker.device import hide_triton; hide_triton(); "
        "import torch._dynamo, transformers; from transformers import BertModel, ResNetModel"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
