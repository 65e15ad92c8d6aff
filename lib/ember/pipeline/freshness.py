"""Is the output of a step up to date? Judged by the manifest that the step left beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ember.pipeline.planning import Step
from ember.redaction import redact_all

__all__ = ["Verdict", "is_own", "judge", "note"]

_NOTE = "step"  # the key of a manifest under which a step notes what it was
_SHOWN = 3
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What is to be done with a step, and why.

    fresh: nothing. absent: run, there is no output. outdated: run and replace the output, which
    this step of this pipeline wrote. foreign: run if output.mode allows it, since something else is
    there.
    """

    state: Literal["fresh", "absent", "outdated", "foreign"]
    why: str


def note(step: Step, pipeline: str, *, inputs: Facts, session: Facts) -> dict[str, Any]:
    """What the manifest of a step says in addition to the job's own facts.

    pipeline: which one the step is of, see `files.home`. inputs: see `files.inputs`. session: see
    `ember.spark.identity.session_facts`.
    """
    told = {"name": step.name, "pipeline": pipeline, "needs": list(step.needs)}
    return {_NOTE: {**told, "inputs": dict(inputs), "session": dict(session)}}


def is_own(step: Step, manifest: Facts | None, pipeline: str) -> bool:
    """Has an earlier run of this step, of this pipeline, left the manifest?"""
    if manifest is None:
        return False
    told = manifest.get(_NOTE, {})
    named = (manifest.get("job"), told.get("name"), told.get("pipeline"))
    return named == (step.job, step.name, pipeline)


def judge(
    step: Step,
    manifest: Facts | None,
    gone: Mapping[str, str | None],
    now: Facts,
    *,
    versions: Facts,
) -> Verdict:
    """Compare a step as it would run now with the one that wrote its output.

    manifest: of what is at output.path; None where there is none. gone: by key of an output, the
    file that is lacking of it, or None where nothing is there. now: what `note` would say.
    versions: see `ember.job.versions`.
    """
    told = now[_NOTE]
    if manifest is None and "output.path" in gone:
        return Verdict("absent", "its output is not there yet")
    if manifest is None or not is_own(step, manifest, told["pipeline"]):
        return Verdict("foreign", f"what is at {step.output} was not written by this step")
    changes = [
        # A manifest hides the secrets of URIs; a signature made anew is no other setting.
        *_settings(manifest.get("config", {}), redact_all(step.config.model_dump(mode="json"))),
        *_inputs(manifest[_NOTE]["inputs"], told["inputs"]),
        *_words(manifest[_NOTE]["session"], told["session"]),
        *_words(manifest.get("versions", {}), versions),
    ]
    for key, file in gone.items():
        changes.append(f"{file} of {key} is gone" if file else f"what {key} names is gone")
    if manifest.get("unmet"):
        changes.append("what it requires was not reached")
    if not changes:
        return Verdict("fresh", "")
    left_out = f"; and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    return Verdict("outdated", "; ".join(changes[:_SHOWN]) + left_out)


def _settings(was: Facts, now: Facts) -> Iterator[str]:
    old, new = (
        dict(_flat({k: v for k, v in each.items() if k != "output"})) for each in (was, now)
    )
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"{key} is {_short(new.get(key))} and was {_short(old.get(key))}"


def _inputs(was: Facts, now: Facts) -> Iterator[str]:
    for key in sorted(was.keys() & now.keys()):  # another key is another setting
        if was[key] != now[key]:
            more = now[key]["files"] - was[key]["files"]
            how = "written anew"
            if more:
                how = f"{abs(more)} file{'s' * (abs(more) > 1)} {'more' if more > 0 else 'fewer'}"
            yield f"{key} changed: {how}"


def _words(was: Facts, now: Facts) -> Iterator[str]:
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            yield f"{name} is {now.get(name, 'not there')} and was {was.get(name, 'not there')}"


def _flat(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values."""
    if not isinstance(values, Mapping | list):
        yield key, values
        return
    inner = values.items() if isinstance(values, Mapping) else enumerate(values)
    for name, value in inner:
        yield from _flat(value, f"{key}.{name}" if key else str(name))


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
