"""One step of a pipeline: whether it must run, and its run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ember import job
from ember.errors import OtherSettings
from ember.job import Run
from ember.pipeline.files import home, inputs
from ember.pipeline.freshness import Verdict, is_own, judge, note
from ember.pipeline.planning import Step
from ember.settings.files import targets
from ember.settings.pipeline import PipelineConfig
from ember.spark import contents, read_batches
from ember.spark.destinations import destination
from ember.spark.file_table import FileTable
from ember.spark.identity import session_facts
from ember.spark.lake_table import LakeTable
from ember.spark.publish import complete
from ember.spark.staged_files import read_manifest
from ember.spark.storage import Storage

__all__ = ["Body", "StepRun"]

_log = logging.getLogger(__name__)
Body = Callable[[Run[Any]], None]


class StepRun:
    """A step right before its turn: what an earlier run left of it, and how to run it."""

    def __init__(self, run: Run[PipelineConfig], step: Step, output: str) -> None:
        self._storage = storage = Storage(run.spark)
        self._run, self._step = run, step
        self._pipeline = home(storage, output)
        self._note = note(
            step,
            self._pipeline,
            inputs=inputs(run.spark, step.config),
            session=session_facts(run.spark, step.config),
        )
        place = destination(run.spark, step.config, step.job)
        self._table = place.table
        if isinstance(place.table, LakeTable) and not run.dry_run:
            complete(run.spark, place, run.run_id)
        # Of a table, the folder that has its manifest.
        self.folder = place.path
        written = {**targets(step.config), "output.path": place.path}
        self._manifests = {
            key: (path, read_manifest(storage, path)) for key, path in written.items()
        }
        self.verdict: Verdict = judge(
            step,
            self._manifests["output.path"][1],
            dict(self._gone()),
            self._note,
            versions=job.versions(),
        )

    def _gone(self) -> Iterator[tuple[str, str | None]]:
        """Keys of outputs that are missing, and the missing file; None where all of it is."""
        manifest = self._manifests["output.path"][1]
        table = self._table
        if manifest and isinstance(table, LakeTable) and not table.is_current(manifest):
            yield "output.table", None  # somebody dropped it, or has changed it since
        for key, (path, manifest) in self._manifests.items():
            if not self._storage.exists(path):
                yield key, None
            elif manifest and (part := contents.lacking(self._storage, path, manifest)):
                yield key, part

    def run_id(self) -> str | None:
        """The id of the run that wrote what is at the step's output now."""
        return (read_manifest(self._storage, self.folder) or {}).get("run_id")

    def keep(self) -> None:
        """Leave an output that is up to date as it is; a session may have to be told its name."""
        if isinstance(self._table, FileTable) and not self._run.dry_run:
            self._table.register(self.folder)

    def call(self, body: Body) -> None:
        """Do what the job does; replace what an earlier run of this step has left.

        Where the step says resume, what can be kept is kept.
        """
        step, state = self._step, self.verdict.state
        mode = step.config.output.mode
        if mode == "fail" and state != "foreign" and self._left_something():
            mode = "overwrite"
        with self._logged() as run_id, read_batches.put_back(self._run.spark):
            if not self._run.dry_run:
                _log.info("%s (%s) runs because %s", step.name, step.job, self.verdict.why)
            try:
                self._step_run(run_id, mode).do(body)
            except OtherSettings as error:
                if state == "foreign":
                    raise
                _log.info("nothing can be resumed: %s", error)
            else:
                # A job that takes an outdated output for finished has done nothing.
                if state != "outdated" or self._run.dry_run or self.run_id() == run_id:
                    return
            self._step_run(run_id, "overwrite").do(body)

    def _left_something(self) -> bool:
        """Did an earlier run of this step write any of its outputs?"""
        found = self._manifests.values()
        return any(is_own(self._step, manifest, self._pipeline) for _, manifest in found)

    def _step_run(self, run_id: str, mode: str) -> Run[Any]:
        config = self._step.config
        output = config.output.model_copy(update={"mode": mode})
        return Run(
            self._step.job,
            config.model_copy(update={"output": output}),
            run_id,
            self._run.dry_run,
            self._run.spark,
            notes=self._note,
            step=self._step.name,
            step_of=self._run,
        )

    @contextmanager
    def _logged(self) -> Iterator[str]:
        """Log under the run id of the step while the block runs."""
        run_id = f"{self._run.run_id}-{self._step.name}"
        job.log_as(run_id)
        try:
            yield run_id
        finally:
            job.log_as(self._run.run_id)
