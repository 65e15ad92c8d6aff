"""Which device a worker process uses, decided before any framework is imported.

Order: CUDA_VISIBLE_DEVICES as the cluster set it, narrowed to the address that Spark gave this
task; then that address alone; else the CPU. A GPU that was asked for and is not there raises
DeviceMissing: a silent run on the CPU is never what was meant.
"""

from __future__ import annotations

import os
import sys
from typing import Literal

from ember.errors import DeviceMissing
from ember.worker.machine import cuda_device_count

__all__ = ["Device", "claim", "cuda_device_count", "hide_triton", "require_cuda"]

Device = Literal["cpu", "cuda"]
_claimed: Device | None = None


def claim(address: str | None) -> Device:
    """Bind this process to one GPU, or to the CPU, for the rest of its life.

    `address` is what Spark assigned to the task (an index or a UUID), None without GPU
    scheduling. Sets CUDA_VISIBLE_DEVICES to exactly one device, or to "" for the CPU. Later calls
    return what the first decided: CUDA reads the variable once, so a reused worker keeps its GPU.
    """
    global _claimed
    if _claimed is None:
        wanted = _narrow(os.environ.get("CUDA_VISIBLE_DEVICES"), address)
        # Explicitly nothing, so that a framework does not take GPU 0 from another process.
        os.environ["CUDA_VISIBLE_DEVICES"] = wanted or ""
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        _claimed = "cuda" if wanted else "cpu"
    return _claimed


def _narrow(visible: str | None, address: str | None) -> str | None:
    if visible is None:
        return address
    entries = [entry.strip() for entry in visible.split(",") if entry.strip()]
    if entries and entries[0].lower() in {"-1", "void", "none", "nodevfiles"}:
        entries = []
    if address is None:
        return entries[0] if entries else None
    if len(entries) == 1:
        return entries[0]
    if address in entries:
        return address
    # Some cluster managers renumber the visible devices from 0: the address is then a position.
    if address.isdigit() and int(address) < len(entries):
        return entries[int(address)]
    raise DeviceMissing(
        f"Spark assigned GPU {address}, but CUDA_VISIBLE_DEVICES={visible} does not have it; make "
        "the discovery script and the cluster's GPU isolation agree"
    )


def require_cuda(usable: bool, framework: str) -> None:
    """Raise DeviceMissing unless `usable`, the framework's own word that it sees a GPU."""
    if not usable:
        raise DeviceMissing(
            f"a GPU was asked for (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}), "
            f"but {framework} sees none on {os.uname().nodename}; check the driver and that "
            f"{framework} is built for CUDA, or unset the GPU settings to run on the CPU"
        )


def hide_triton() -> None:
    """Keep torch from loading Triton into a process that has loaded TensorFlow.

    Each brings an LLVM of its own, and the second one to start ends the process with a segmentation
    fault (tensorflow 2.21, triton 3 of torch 2.13's CUDA build). A worker that served a Keras model
    may serve one of transformers next. Only torch.compile needs Triton, and Ember does not use it.
    """
    if "tensorflow" in sys.modules:
        # None makes an import of it fail as if it were not installed.
        sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
