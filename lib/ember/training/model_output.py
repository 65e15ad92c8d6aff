"""Publishing a model folder: a training run's own files are what a resumed run goes on with.

Beside what every attempt has (see ember.spark.staging), `shared` holds

    rows/            the rows to train on
    rows.json        what there is to know about them, once they are all there
    checkpoint/      what is needed to go on after a kill
    model/           what will be published
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ember.spark.publish import Output
from ember.worker.finetune.process import MODEL, ROWS
from ember.worker.finetune.training import PROGRESS

__all__ = ["GROWS_IN", "ModelOutput"]

# Where in a run's own folder its model is written.
GROWS_IN = f"shared/{MODEL}"


class ModelOutput:
    """One run's way to one published model folder: the output, and what training keeps beside it.

    output: one that grows in `GROWS_IN`.
    """

    def __init__(self, output: Output) -> None:
        self.output = output
        self._storage = output.storage

    @property
    def work(self) -> str:
        """The folder that the run works in."""
        return self.output.shared

    @property
    def rows_staged(self) -> Mapping[str, Any] | None:
        """What `stage_rows` was told of the rows that a killed run had staged; None without."""
        file = f"{self.work}/{ROWS}.json"
        if not self._storage.exists(file):
            return None
        told: dict[str, Any] = json.loads(self._storage.read_text(file))
        return told

    def keep_rows(self, told: Mapping[str, Any]) -> None:
        """Note that the rows are staged, and what there is to know about them."""
        self._storage.write_text(f"{self.work}/{ROWS}.json", json.dumps(told))

    def history(self) -> list[dict[str, Any]]:
        """The epochs done so far."""
        file = f"{self.work}/{PROGRESS}"
        if not self._storage.exists(file):
            return []
        told: list[dict[str, Any]] = json.loads(self._storage.read_text(file))["history"]
        return told

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Make room for this attempt; one that fails before its first epoch leaves no trace."""
        with self.output.attempt(worth=lambda: bool(self.history())):
            self._storage.delete(self.output.staging.new)  # a killed run may have begun to write it
            yield
