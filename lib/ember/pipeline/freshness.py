"""Is the output of a step up to date? Judged by the manifest that the step left beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    this step wrote. foreign: run if output.mode allows it, since something else is there.
    """

    state: Literal["fresh", "absent", "outdated", "foreign"]
    why: str


def note(step: Step, inputs: Facts) -> dict[str, Any]:
    """What the manifest of a step says beside the job's own facts."""
    return {_NOTE: {"name": step.name, "needs": list(step.needs), "inputs": dict(inputs)}}


def is_own(step: Step, manifest: Facts | None) -> bool:
    """Has an earlier run of this step left the manifest?"""
    if manifest is None:
        return False
    name = manifest.get(_NOTE, {}).get("name")
    return bool(manifest.get("job") == step.job and name == step.name)


def judge(
    step: Step,
    manifest: Facts | None,
    gone: Sequence[str],
    *,
    inputs: Facts,
    versions: Facts,
) -> Verdict:
    """Compare a step as it would run now with the one that wrote its output.

    manifest: of what is at output.path; None where there is none. gone: keys of outputs at which
    nothing is. inputs: see `files.inputs`. versions: see `ember.job.versions`.
    """
    if "output.path" in gone:
        return Verdict("absent", "its output is not there yet")
    if manifest is None or not is_own(step, manifest):
        return Verdict("foreign", f"what is at {step.output} was not written by this step")
    changes = [
        # A manifest hides the secrets of URIs; a signature made anew is no other setting.
        *_settings(manifest.get("config", {}), redact_all(step.config.model_dump(mode="json"))),
        *_inputs(manifest[_NOTE]["inputs"], inputs),
        *_versions(manifest.get("versions", {}), versions),
    ]
    changes += [f"what {key} names is gone" for key in gone]
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


def _versions(was: Facts, now: Facts) -> Iterator[str]:
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
