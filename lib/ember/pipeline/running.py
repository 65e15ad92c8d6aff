"""Running the steps of a pipeline one after the other in one Spark application."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter
from typing import Any, Literal

from ember import job
from ember.errors import EmberError, OtherSettings
from ember.job import Run
from ember.pipeline.files import home, inputs
from ember.pipeline.freshness import Verdict, is_own, judge, note
from ember.pipeline.planning import Plan, Step
from ember.settings.files import targets
from ember.settings.pipeline import PipelineConfig
from ember.spark import contents, read_batches
from ember.spark.explain import explain
from ember.spark.identity import session_facts
from ember.spark.publish import read_manifest
from ember.spark.storage import Storage

__all__ = ["Outcome", "Steps", "run_steps", "try_steps"]

_log = logging.getLogger(__name__)
Body = Callable[[Run[Any]], None]


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    why: it ran, or failed. seconds: that it took. run_id: of the run that wrote its output.
    """

    name: str
    job: str
    needs: tuple[str, ...]
    output: str
    outcome: Literal["ran", "up to date", "failed", "not run"]
    why: str = ""
    seconds: float | None = None
    run_id: str | None = None


@dataclass(frozen=True)
class Steps:
    """What became of all steps, and the error of the one that failed."""

    outcomes: Sequence[Outcome]
    error: EmberError | None

    def describe(self) -> list[dict[str, Any]]:
        """For the manifest."""
        return [asdict(each) for each in self.outcomes]

    def summary(self) -> str:
        """How many steps there are of each outcome, in words."""
        found = [each.outcome for each in self.outcomes]
        return ", ".join(f"{found.count(name)} {name}" for name in dict.fromkeys(found))

    def refuse_failure(self) -> None:
        """Raise the error of the step that failed, which names it."""
        if self.error:
            raise self.error


def run_steps(run: Run[PipelineConfig], plan: Plan, bodies: Mapping[str, Body]) -> Steps:
    """Run what is not up to date, in order, up to the first step that fails.

    bodies: what each job does with its run. A step's run has the id <run>-<step>.
    """
    outcomes: list[Outcome] = []
    error: EmberError | None = None
    for step in plan.steps:
        if error:
            outcomes.append(Outcome(step.name, step.job, step.needs, step.output, "not run"))
            continue
        done, error = _run_step(run, step, plan.output, bodies[step.job])
        outcomes.append(done)
    return Steps(outcomes, error)


def try_steps(run: Run[PipelineConfig], plan: Plan, bodies: Mapping[str, Body]) -> None:
    """Check each step as its own --dry-run does, as far as its input is there already.

    Raises the error of the first step that would not run, naming it.
    """
    to_run: set[str] = set()
    for step in plan.steps:
        awaited = [name for name in step.needs if name in to_run]
        if awaited:
            to_run.add(step.name)
            run.say(f"{step.name} waits for {', '.join(awaited)} and can be checked after that")
            continue
        try:
            look = _Look(run, step, plan.output)
            if look.verdict.state == "fresh":
                run.say(f"{step.name} is up to date")
                continue
            to_run.add(step.name)
            run.say(f"{step.name} is to run: {look.verdict.why}")
            look.call(bodies[step.job])
        except Exception as failure:
            raise _named(step, failure) from failure


def _run_step(
    run: Run[PipelineConfig], step: Step, output: str, body: Body
) -> tuple[Outcome, EmberError | None]:
    begun = perf_counter()
    told = partial(Outcome, step.name, step.job, step.needs, step.output)
    try:
        with run.phase(step.name):
            look = _Look(run, step, output)
            if look.verdict.state == "fresh":
                run.say(f"{step.name} is up to date, written by run {look.run_id()}")
                return told("up to date", run_id=look.run_id()), None
            look.call(body)
    except Exception as failure:
        error = _named(step, failure)
        _log.debug("step %s failed", step.name, exc_info=True)
        return told("failed", str(error), round(perf_counter() - begun, 3)), error
    seconds = round(perf_counter() - begun, 3)
    return told("ran", look.verdict.why, seconds, look.run_id()), None


class _Look:
    """A step as it is found right before it may run, and how it is to be run."""

    def __init__(self, run: Run[PipelineConfig], step: Step, output: str) -> None:
        self._storage = storage = Storage(run.spark)
        self._run, self._step = run, step
        self._pipeline = home(storage, output)
        self._note = note(
            step,
            self._pipeline,
            inputs=inputs(storage, step.config),
            session=session_facts(run.spark, step.config),
        )
        self._manifests = {
            key: (path, read_manifest(storage, path)) for key, path in targets(step.config).items()
        }
        self.verdict: Verdict = judge(
            step,
            self._manifests["output.path"][1],
            dict(self._gone()),
            self._note,
            versions=job.versions(),
        )

    def _gone(self) -> Iterator[tuple[str, str | None]]:
        """Keys of outputs that are not whole, and the file that is lacking; None where all is."""
        for key, (path, manifest) in self._manifests.items():
            if not self._storage.exists(path):
                yield key, None
            elif manifest and (part := contents.lacking(self._storage, path, manifest)):
                yield key, part

    def run_id(self) -> str | None:
        """Of the run that wrote what is at the step's output now."""
        return (read_manifest(self._storage, self._step.output) or {}).get("run_id")

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
                body(self._step_run(run_id, mode))
            except OtherSettings as error:
                if state == "foreign":
                    raise
                _log.info("nothing can be resumed: %s", error)
            else:
                # A job that takes an outdated output for finished has done nothing.
                if state != "outdated" or self._run.dry_run or self.run_id() == run_id:
                    return
            body(self._step_run(run_id, "overwrite"))

    def _left_something(self) -> bool:
        """Has an earlier run of this step written an output, be it one of several?"""
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
        )

    @contextmanager
    def _logged(self) -> Iterator[str]:
        """Log under the run id of the step meanwhile."""
        run_id = f"{self._run.run_id}-{self._step.name}"
        job.log_as(run_id)
        try:
            yield run_id
        finally:
            job.log_as(self._run.run_id)


def _named(step: Step, failure: Exception) -> EmberError:
    """The failure as the job itself would explain it, with the name of the step."""
    explained = explain(failure)
    named = type(explained)(f"step {step.name} ({step.job}): {explained}")
    named.__cause__ = failure
    return named
