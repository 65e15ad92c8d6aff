"""What a model has to do to be fine-tuned: the recipe, a batch, the processes, the learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ember.worker.finetune.augment import Augmentation

__all__ = ["Batch", "Learner", "ProcessGroup", "SingleProcess", "Stage", "Tuning"]

Stage = Literal["head", "full"]


@dataclass(frozen=True)
class Tuning:
    """What is to be trained, and how.

    labels: the classes, by index. epochs, rates: of each stage.
    unfreeze: how many of the backbone's last stages the stage `full` trains; None: all of it.
    batch_norm: "frozen" keeps the statistics that batch normalization was trained with.
    augmentation: of training images in the stage `full`.
    patience: a stage ends after so many epochs without a better one.
    """

    labels: tuple[str, ...]
    epochs: dict[Stage, int]
    rates: dict[Stage, float]
    batch_size: int
    unfreeze: int | None
    batch_norm: Literal["frozen", "trained"]
    augmentation: Augmentation | None
    patience: int
    seed: int


class ProcessGroup(Protocol):
    """The processes that train together."""

    rank: int
    size: int

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the processes."""
        ...


class SingleProcess:
    """A group of one."""

    rank = 0
    size = 1

    def total(self, values: Sequence[float]) -> list[float]:
        return list(values)


@dataclass(frozen=True)
class Batch:
    """Items as `prepare` made them or, when `encoded`, lines of `encode`; targets (n,) int64."""

    items: Sequence[Any]
    targets: npt.NDArray[np.int64]
    encoded: bool

    def __len__(self) -> int:
        return len(self.items)


class Learner(Protocol):
    """A model that learns; one of these for each framework."""

    def begin(self, stage: Stage) -> None:
        """Choose what is trained, with a fresh optimizer."""
        ...

    def seed(self, seed: int) -> None:
        """Seed what is random inside the model."""
        ...

    def prepare(self, content: bytes, rng: np.random.Generator | None) -> Any:
        """The model's input for a row; augmented by `rng`. Called on threads."""
        ...

    def encode(self, items: Sequence[Any]) -> npt.NDArray[np.float32] | None:
        """What the frozen backbone gives the head for each item; None: it takes the items."""
        ...

    def train(self, batch: Batch, rate: float, rows: int) -> tuple[float, int]:
        """One step on this process's share, perhaps empty, of a batch of `rows` rows.

        Returns the sum of the losses of the items, and how many were right.
        """
        ...

    def score(self, batch: Batch) -> tuple[float, int]:
        """As `train`, without learning."""
        ...

    def end_epoch(self) -> None:
        """Make what processes gathered each for itself the same."""
        ...

    def state(self) -> bytes:
        """The weights that this stage changes, and the optimizer."""
        ...

    def restore(self, state: bytes, *, optimizer: bool) -> None: ...

    def save(self, folder: str) -> None:
        """Write the model as `embed` and `classify` load it."""
        ...
