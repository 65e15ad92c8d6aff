"""One process of a fine-tuning run, from the staged rows to the model's folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ember.worker.device import Device, claim, hide_triton
from ember.worker.finetune.learner import Learner, ProcessGroup, SingleProcess, Tuning
from ember.worker.finetune.rows import TuningRows
from ember.worker.finetune.training import Trainer
from ember.worker.finetune.workspace import Workspace
from ember.worker.models.model_folder import loading
from ember.worker.spec import ModelSpec

__all__ = ["HISTORY", "MODEL", "ROWS", "TrainingJob", "tune", "tune_together"]

ROWS = "rows"
MODEL = "model"
HISTORY = "history.parquet"
_HISTORY = pa.schema(
    [
        ("epoch", pa.int32()),
        ("stage", pa.string()),
        ("loss", pa.float64()),
        ("accuracy", pa.float64()),
        ("validation_loss", pa.float64()),
        ("validation_accuracy", pa.float64()),
        ("rate", pa.float64()),
        ("seconds", pa.float64()),
    ]
)


@dataclass(frozen=True)
class TrainingJob:
    """What a process is to do; plain data.

    folder: the run's own, with the staged rows; checkpoints and the model go there.
    threads: for the model and for preparing its input, of each process.
    """

    spec: ModelSpec
    tuning: Tuning
    folder: str
    threads: int


def tune(job: TrainingJob, address: str | None) -> dict[str, Any]:
    """Train in this process alone; see `Trainer.run` for what is returned.

    address: the GPU that Spark assigned, None for the CPU.
    Raises InvalidInput when the files do not make the model that the spec describes, and
    DeviceMissing when the GPU is not usable.
    """
    _yield_cores()
    device = claim(address)
    hide_triton()
    return _run(job, _learner(job, device), SingleProcess())


def tune_together(job: TrainingJob) -> dict[str, Any]:
    """Train as one of the processes that torchrun started; models of transformers only."""
    _yield_cores()
    import torch.distributed

    cards = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    local = int(os.environ["LOCAL_RANK"])
    device = claim(cards[local % len(cards)] if cards else None)
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        group = TorchGroup(device)
        return _run(job, _learner(job, device, group), group)
    finally:
        torch.distributed.destroy_process_group()


def _yield_cores() -> None:
    """Have threads that wait for one another sleep; heeded when torch is not yet loaded.

    Threads that spin turn a step of milliseconds into seconds as soon as something else runs.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class TorchGroup:
    """The processes of torch.distributed. See `learner.ProcessGroup`."""

    def __init__(self, device: Device) -> None:
        import torch.distributed

        self._torch = torch
        self._device = device
        self.rank: int = torch.distributed.get_rank()
        self.size: int = torch.distributed.get_world_size()

    def total(self, values: Sequence[float]) -> list[float]:
        sums = self._torch.tensor(list(values), dtype=self._torch.float64, device=self._device)
        self._torch.distributed.all_reduce(sums)
        totals: list[float] = sums.tolist()
        return totals

    def sum_gradients(self, parameters: Iterable[Any]) -> None:
        """Each gradient becomes its sum over the processes; one that is not there counts as 0."""
        trained = list(parameters)
        torch = self._torch
        whole = torch.cat(
            [torch.zeros_like(p).view(-1) if p.grad is None else p.grad.view(-1) for p in trained]
        )
        torch.distributed.all_reduce(whole)  # in one message: most parameters are small
        parts = whole.split([each.numel() for each in trained])
        for each, part in zip(trained, parts, strict=True):
            each.grad = part.view_as(each)

    def average(self, tensors: Iterable[Any]) -> None:
        for each in tensors:
            self._torch.distributed.all_reduce(each)
            each.div_(self.size)


def _learner(job: TrainingJob, device: Device, group: TorchGroup | None = None) -> Learner:
    with loading(job.spec.name, job.spec.path):
        return _made(job, device, group)


def _made(job: TrainingJob, device: Device, group: TorchGroup | None) -> Learner:
    if job.spec.family == "keras":
        from ember.worker.finetune.keras_learner import KerasLearner

        return KerasLearner(job.spec, job.tuning, device, job.threads)
    from ember.worker.finetune.torch_learner import TorchLearner

    return TorchLearner(job.spec, job.tuning, device, job.threads, group=group)


def _run(job: TrainingJob, learner: Learner, group: ProcessGroup) -> dict[str, Any]:
    workspace = Workspace(job.folder)
    with tempfile.TemporaryDirectory(prefix="ember-tune-") as local:
        rows = TuningRows(workspace, ROWS, Path(local))
        trainer = Trainer(learner, rows, job.tuning, workspace, group=group, threads=job.threads)
        summary = trainer.run()
        if group.rank == 0:
            made = Path(local, MODEL)
            made.mkdir()
            learner.save(str(made))
            table = pa.Table.from_pylist(summary["history"], schema=_HISTORY)
            pq.write_table(table, made / HISTORY)
            workspace.put_folder(str(made), MODEL)
        rows.close()
    return summary
