"""Say what is there on a cluster, what will go wrong, and which setting to change."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ember import job
from ember.diagnosis.diagnosing import Wanted, diagnose, examined
from ember.diagnosis.page import as_text, as_values
from ember.errors import InvalidInput
from ember.job import Run
from ember.redaction import redact
from ember.settings.config import Config
from ember.settings.diagnosis import DoctorConfig
from ember.settings.files import sources, targets
from ember.spark import console, places
from ember.spark.storage import Storage


def doctor(run: Run[DoctorConfig]) -> None:
    config = run.config
    with run.phase("check"):
        wanted = _wanted(config)
        output = None
        if config.output:
            own = {"output.path": config.output.path}
            places.check_apart(Storage(run.spark), own, {"what is read": wanted.reads})
            output = run.output({"job": "doctor"})
            output.check()
    with run.phase("diagnose"):
        facts = diagnose(
            run.spark, wanted, seconds=config.wait, run_id=run.run_id, writes=not run.dry_run
        )
        findings = examined(facts)
    console.say(redact(as_text(facts, findings)))
    if output and not run.dry_run:
        with output.attempt():
            output.publish(run.manifest(**as_values(facts, findings)))
    if errors := [each for each in findings if each.severity == "error"]:
        first = errors[0]
        raise InvalidInput(
            f"{len(errors)} {'thing' if len(errors) == 1 else 'things'} will go wrong here; the "
            f"first: {first.where}: {first.what}" + (f" -> {first.change}" if first.change else "")
        )
    run.say(f"nothing will go wrong that is known, {len(findings)} remarks")


def _wanted(config: DoctorConfig) -> Wanted:
    """What the configuration names, by itself and by its step."""
    reads, writes = list(config.inputs or ()), list(config.outputs or ())
    model, generates = config.model, False
    for name, step in _steps(config.step or {}):
        reads += [path for paths in sources(step).values() for path in paths]
        writes += targets(step).values()
        model = model or getattr(step, "model", None)
        generates = generates or name == "describe"
    return Wanted(reads, writes, model, generates)


def _steps(given: Mapping[str, Any]) -> list[tuple[str, Config]]:
    """The job of the configuration's step with its own configuration, checked."""
    if not given:
        return []
    from ember.jobs.pipeline import JOBS
    from ember.pipeline.planning import plan
    from ember.settings.config import parse
    from ember.settings.pipeline import PipelineConfig

    around = {"steps": {"step": {**given}}, "output": {"path": "unused"}}
    work = plan(parse(PipelineConfig, around, ""), {name: kind for name, (kind, _) in JOBS.items()})
    return [(step.job, step.config) for step in work.steps]


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("doctor", DoctorConfig, doctor, arguments)


if __name__ == "__main__":
    sys.exit(main())
