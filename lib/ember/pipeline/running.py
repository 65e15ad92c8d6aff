"""Running the steps of a pipeline one after the other in one Spark application."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any, Literal

from ember.errors import EmberError
from ember.job import Run
from ember.pipeline.planning import Plan, Step
from ember.pipeline.step_run import Body, StepRun
from ember.settings.pipeline import PipelineConfig
from ember.spark.explain import explain

__all__ = ["Outcome", "Steps", "run_steps", "try_steps"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a step.

    Attributes:
        output: the folder that it wrote, of a table the one with its manifest.
        why: the reason why it ran or failed.
        seconds: how long it took.
        run_id: that of the run that wrote its output.
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
    """The outcomes of all steps, and the error of the one that failed."""

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
            found = StepRun(run, step, plan.output)
            if found.verdict.state == "fresh":
                run.say(f"{step.name} is up to date")
                continue
            to_run.add(step.name)
            run.say(f"{step.name} is to run: {found.verdict.why}")
            found.call(bodies[step.job])
        except Exception as failure:
            raise _named(step, failure) from failure


def _run_step(
    run: Run[PipelineConfig], step: Step, output: str, body: Body
) -> tuple[Outcome, EmberError | None]:
    begun = perf_counter()
    told = partial(Outcome, step.name, step.job, step.needs, step.output)
    try:
        with run.phase(step.name):
            found = StepRun(run, step, output)
            if found.verdict.state == "fresh":
                found.keep()
                run.say(f"{step.name} is up to date, written by run {found.run_id()}")
                done = told("up to date", run_id=found.run_id())
                return replace(done, output=found.folder), None
            found.call(body)
    except Exception as failure:
        error = _named(step, failure)
        _log.debug("step %s failed", step.name, exc_info=True)
        return told("failed", str(error), round(perf_counter() - begun, 3)), error
    seconds = round(perf_counter() - begun, 3)
    done = told("ran", found.verdict.why, seconds, found.run_id())
    return replace(done, output=found.folder), None


def _named(step: Step, failure: Exception) -> EmberError:
    """The failure as the job itself would explain it, with the name of the step."""
    explained = explain(failure)
    named = type(explained)(f"step {step.name} ({step.job}): {explained}")
    named.__cause__ = failure
    return named
