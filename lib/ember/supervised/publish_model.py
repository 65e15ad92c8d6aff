"""Publishing a model folder: as `publish.Output`, with a training run's own files kept beside it.

.NAME.staging/identity.json    what the model depends on; a resumed run must agree
.NAME.staging/rows/            the rows to train on
.NAME.staging/checkpoint/      what is needed to go on after a kill
.NAME.staging/model/           what will be published
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ember.learn.tuning import PROGRESS
from ember.learn.tuning_run import MODEL, ROWS
from ember.publish import Output

__all__ = ["ModelOutput"]


class ModelOutput(Output):
    """One run's way to one published model folder."""

    @property
    def work(self) -> str:
        """The folder that the run works in."""
        return self._staging

    @property
    def finished(self) -> bool:
        """Is the model that a resumed run would make already there?"""
        there = self._storage.exists(self.path) and not self._storage.exists(self._staging)
        return self._mode == "resume" and there

    @property
    def rows_staged(self) -> Mapping[str, Any] | None:
        """What `stage_rows` was told of the rows that a killed run had staged; None without."""
        file = f"{self._staging}/{ROWS}.json"
        if not self._storage.exists(file):
            return None
        told: dict[str, Any] = json.loads(self._storage.read_text(file))
        return told

    def keep_rows(self, told: Mapping[str, Any]) -> None:
        """Note that the rows are staged, and what there is to know about them."""
        self._storage.write_text(f"{self._staging}/{ROWS}.json", json.dumps(told))

    def history(self) -> list[dict[str, Any]]:
        """The epochs done so far."""
        file = f"{self._staging}/{PROGRESS}"
        if not self._storage.exists(file):
            return []
        told: list[dict[str, Any]] = json.loads(self._storage.read_text(file))["history"]
        return told

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Make room for this attempt; one that fails before its first epoch leaves no trace."""
        self._storage.recover(self.path)
        self.check()
        if self._mode != "resume":
            self._storage.delete(self._staging)
        self._storage.delete(f"{self._staging}/{MODEL}")
        self._storage.write_text(f"{self._staging}/identity.json", json.dumps(self._identity))
        try:
            yield
        except Exception:
            if not self.history():
                self._storage.delete(self._staging)
            raise

    @property
    def _new(self) -> str:
        return f"{self._staging}/{MODEL}"
