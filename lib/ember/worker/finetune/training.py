"""Fine-tuning, whatever the framework: stages, epochs, early stopping, checkpoints.

    head   the backbone stays as it is; the new head is trained on what it gives
    full   the last stages of the backbone, or all of it, are trained on, at a lower rate

After each epoch the validation part is scored, and what is needed to go on is written. A run that
is taken up again continues with the epoch after the last one written and ends with the same
weights: all that is random in an epoch is drawn from the seed and the number of the epoch.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.worker.finetune.learner import Batch, Learner, ProcessGroup, Stage, Tuning
from ember.worker.finetune.rows import TuningRows
from ember.worker.finetune.workspace import Workspace

__all__ = ["PROGRESS", "Epoch", "Trainer", "rate_at"]

PROGRESS = "checkpoint/progress.json"
_WARM_UP = 0.1
_CACHED_BYTES = 1 << 28
_LOOKAHEAD = 2
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Epoch:
    """A line of the history; loss and accuracy are means over rows, None without such rows."""

    epoch: int
    stage: str
    loss: float | None
    accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    rate: float
    seconds: float

    @property
    def merit(self) -> tuple[float, float]:
        """The better of two epochs has the larger: by validation loss, then by accuracy.

        The loss still tells epochs apart where a small validation part has all its rows right.
        """
        if self.validation_accuracy is None or self.validation_loss is None:
            return (float(self.epoch), 0.0)  # nothing to judge by: the last is taken
        return (-self.validation_loss, self.validation_accuracy)


@dataclass
class _Progress:
    """What a checkpoint says; `current` names the file with the state after the last epoch."""

    history: list[Epoch] = field(default_factory=list)
    current: str | None = None

    def of(self, stage: Stage) -> list[Epoch]:
        return [each for each in self.history if each.stage == stage]


class Trainer:
    """One process's part in one training run."""

    def __init__(
        self,
        learner: Learner,
        rows: TuningRows,
        tuning: Tuning,
        workspace: Workspace,
        *,
        group: ProcessGroup,
        threads: int,
    ) -> None:
        self.learner = learner
        self.rows = rows
        self.tuning = tuning
        self.workspace = workspace
        self.group = group
        self.progress = _read_progress(workspace)
        self._pool = ThreadPoolExecutor(threads, "ember-prepare")
        self._kept: dict[int, Any] = {}
        self._kept_bytes = 0
        self._features: dict[int, npt.NDArray[np.float32]] | None = None

    def run(self) -> dict[str, Any]:
        """Train, or go on; the history, and the figures of validation and test part."""
        resumed = len(self.progress.history)
        with self._pool:
            for stage in ("head", "full"):
                if self.tuning.epochs[stage]:
                    self._stage(stage)
            test = self._score("test")
        return {
            "history": [asdict(each) for each in self.progress.history],
            "resumed_epochs": resumed,
            "test_loss": test[0],
            "test_accuracy": test[1],
            "best": self._best_merit(),
        }

    def _best_merit(self) -> dict[str, Any] | None:
        stages: tuple[Stage, ...] = ("full", "head")
        done = next((self.progress.of(stage) for stage in stages if self.progress.of(stage)), [])
        return asdict(max(done, key=lambda each: each.merit)) if done else None

    def _stage(self, stage: Stage) -> None:
        done = self.progress.of(stage)
        self.learner.begin(stage)
        if done and self.progress.current and not self._ended(stage):
            self.learner.restore(self.workspace.read(self.progress.current), optimizer=True)
        if not self._ended(stage):
            self._features = self._encode() if stage == "head" else None
        while not self._ended(stage):
            self._epoch(stage)
        name = f"checkpoint/{stage}.best"
        self.learner.restore(self.workspace.read(name), optimizer=False)
        self._features = None

    def _ended(self, stage: Stage) -> bool:
        done = self.progress.of(stage)
        if len(done) >= self.tuning.epochs[stage]:
            return True
        if not len(self.rows.parts["validation"]) or not done:
            return False
        best = max(range(len(done)), key=lambda n: (done[n].merit, -n))
        return len(done) - 1 - best >= self.tuning.patience

    def _epoch(self, stage: Stage) -> None:
        start = perf_counter()
        number = len(self.progress.history) + 1
        within = len(self.progress.of(stage))
        rng = np.random.default_rng([self.tuning.seed, number])
        self.learner.seed(int(rng.integers(2**31)))
        order = rng.permutation(self.rows.parts["train"])
        batches = self._cut(order)
        if len(batches) > 1 and len(batches[-1]) == 1:  # batch statistics need two rows
            batches[-2:] = [np.concatenate(batches[-2:])]
        shares = [batch[self.group.rank :: self.group.size] for batch in batches]
        steps = len(batches) * self.tuning.epochs[stage]
        augmented = number if stage == "full" and self.tuning.augmentation else None
        sums, rate = np.zeros(3), 0.0
        for step, batch in enumerate(self._prepared(shares, augmented)):
            rate = rate_at(within * len(batches) + step, steps, self.tuning.rates[stage])
            loss, right = self.learner.train(batch, rate, len(batches[step]))
            sums += (loss, right, len(batch))
        self.learner.end_epoch()
        means = self._means(sums)
        held_out = self._score("validation")
        seconds = round(perf_counter() - start, 3)
        self._record(Epoch(number, stage, *means, *held_out, rate, seconds), stage)

    def _record(self, epoch: Epoch, stage: Stage) -> None:
        """Write what is needed to go on after this epoch: the states, then what names them."""
        before = self.progress.of(stage)
        better = not before or epoch.merit > max(each.merit for each in before)
        last, self.progress.current = self.progress.current, f"checkpoint/{epoch.epoch}.state"
        self.progress.history.append(epoch)
        if self.group.rank == 0:
            state = self.learner.state()
            self.workspace.write(self.progress.current, state)
            if better:
                self.workspace.write(f"checkpoint/{stage}.best", state)
            self.workspace.write(PROGRESS, _to_json(self.progress))
            if last:
                self.workspace.delete(last)
        self.group.total([0.0])  # nobody reads on before all is written

    def _means(self, sums: npt.NDArray[np.float64]) -> tuple[float | None, float | None]:
        loss, right, rows = self.group.total(sums.tolist())
        return (loss / rows, right / rows) if rows else (None, None)

    def _score(self, part: str) -> tuple[float | None, float | None]:
        """Mean loss and accuracy of a part."""
        chosen = self.rows.parts[part][self.group.rank :: self.group.size]
        sums = np.zeros(3)
        for batch in self._prepared(self._cut(chosen)):
            loss, right = self.learner.score(batch)
            sums += (loss, right, len(batch))
        return self._means(sums)

    def _cut(self, rows: Numbers) -> list[Numbers]:
        size = self.tuning.batch_size
        return [rows[first : first + size] for first in range(0, len(rows), size)]

    def _encode(self) -> dict[int, npt.NDArray[np.float32]] | None:
        """What the frozen backbone gives for each row, once; None where it gives nothing."""
        features: dict[int, npt.NDArray[np.float32]] = {}
        # Every process needs every row, since each epoch deals the training rows anew.
        needed = self._cut(np.concatenate([self.rows.parts[p] for p in ("train", "validation")]))
        for rows, batch in zip(needed, self._prepared(needed), strict=False):
            lines = self.learner.encode(batch.items)
            if lines is None:
                return None
            features |= dict(zip(rows.tolist(), lines, strict=True))
        return features

    def _prepared(self, batches: Sequence[Numbers], epoch: int | None = None) -> Iterator[Batch]:
        """The batches with their items, prepared ahead on threads. epoch: augment for that one."""
        if self._features is not None:
            for rows in batches:
                items = [self._features[row] for row in rows.tolist()]
                yield Batch(items, self.rows.targets[rows], encoded=True)
            return
        ahead: deque[tuple[Numbers, list[Future[Any]]]] = deque()
        for rows in batches:
            ahead.append((rows, [self._submit(row, epoch) for row in rows.tolist()]))
            if len(ahead) > _LOOKAHEAD:
                yield self._ready(*ahead.popleft())
        for rows, futures in ahead:
            yield self._ready(rows, futures)

    def _ready(self, rows: Numbers, futures: list[Future[Any]]) -> Batch:
        items = [future.result() for future in futures]
        return Batch(items, self.rows.targets[rows], encoded=False)

    def _submit(self, row: int, epoch: int | None) -> Future[Any]:
        return self._pool.submit(self._item, row, epoch)

    def _item(self, row: int, epoch: int | None) -> Any:
        if epoch is not None:
            rng = np.random.default_rng([self.tuning.seed, epoch, row])
            return self.learner.prepare(self.rows.content(row), rng)
        if row in self._kept:
            return self._kept[row]
        item = self.learner.prepare(self.rows.content(row), None)
        if self._kept_bytes + item.nbytes <= _CACHED_BYTES:
            self._kept[row] = item
            self._kept_bytes += item.nbytes
        return item


def rate_at(step: int, steps: int, peak: float) -> float:
    """The learning rate: up to `peak` over the first tenth of the steps, then down by a cosine."""
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _read_progress(workspace: Workspace) -> _Progress:
    if not workspace.exists(PROGRESS):
        return _Progress()
    stored = json.loads(workspace.read(PROGRESS))
    return _Progress([Epoch(**each) for each in stored["history"]], stored["current"])


def _to_json(progress: _Progress) -> bytes:
    stored = {"history": [asdict(each) for each in progress.history], "current": progress.current}
    return json.dumps(stored).encode()
