"""What was found, on a page of text and as plain values."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ember.diagnosis.facts import Facts, Finding, Severity, shown
from ember.diagnosis.programs import DECIDING
from ember.worker.machine import Machine

__all__ = ["as_text", "as_values"]

_WIDTH = 100
_MOST_KINDS = 4
_HEADS: dict[Severity, str] = {
    "error": "will go wrong",
    "warning": "may go wrong, or be slow",
    "note": "good to know",
}
# Settings that decide what a task may use, in the order in which they are shown.
_SETTINGS = (
    *("spark.submit.deployMode", "spark.executor.instances", "spark.executor.cores"),
    *("spark.task.cpus", "spark.executor.memory", "spark.executor.memoryOverhead"),
    *("spark.executor.pyspark.memory", "spark.driver.memory", "spark.dynamicAllocation.enabled"),
    *("spark.executor.resource.gpu.amount", "spark.task.resource.gpu.amount", "spark.local.dir"),
    *("spark.pyspark.python", "spark.python.worker.reuse", "spark.task.maxFailures"),
    *("spark.speculation", "spark.sql.sources.commitProtocolClass"),
    *("spark.sql.parquet.output.committer.class", "spark.sql.execution.arrow.maxRecordsPerBatch"),
)


def _cores(each: Machine) -> str:
    quota = f", {each['quota']:g} of them for this container" if each["quota"] else ""
    return f"{each['cores']}{quota}"


def _memory(each: Machine) -> str:
    limit = f", {shown(each['cgroup'])} of it for this container" if each["cgroup"] else ""
    return f"{shown(each['memory'])}{limit}"


def _gpus(each: Machine) -> str:
    given = f", assigned {' '.join(each['assigned'])}" if each["assigned"] else ""
    return f"{each['gpus']}{given}"


def _disks(each: Machine) -> str:
    return ", ".join(
        f"{disk['path']} {disk['problem'] or shown(disk['free']) + ' free'}"
        for disk in each["disks"]
    )


def _packages(each: Machine) -> str:
    found = [f"{name} {each['packages'][name]}" for name in DECIDING if name in each["packages"]]
    return ", ".join(found) or "none"


_FACTS: dict[str, Callable[[Machine], str]] = {
    "host": lambda each: each["host"],
    "user, umask": lambda each: f"{each['user']}, {each['umask']}",
    "python": lambda each: f"{each['python']} {each['executable']}",
    "packages": _packages,
    "Ember's files": lambda each: each["source"] or "none",
    "processor": lambda each: each["processor"],
    "instructions": lambda each: " ".join(each["instructions"]) or "unknown",
    "cores": _cores,
    "memory": _memory,
    "GPUs": _gpus,
    "disk": _disks,
    "file names": lambda each: each["encoding"],
    "compiled code": lambda each: each["numba_cache"] or "not kept",
    "libc": lambda each: each["libc"] or "unknown",
}


def as_text(facts: Facts, findings: Sequence[Finding]) -> str:
    """The page: what is there, then what is to be done about it."""
    return "\n".join([*_head(facts), "", *_machines(facts), "", *_rest(facts), *_told(findings)])


def _head(facts: Facts) -> Iterator[str]:
    mode = facts.settings.get("spark.submit.deployMode", "client")
    versions = f"Spark {facts.spark}, Java {facts.java}, Hadoop {facts.hadoop}"
    yield f"{versions} on {facts.master}, {mode} mode"
    hosts = len(facts.by_host)
    if facts.local:
        yield f"no executors: {facts.slots} tasks at once beside the driver"
    elif facts.executors:
        yield f"{facts.known} executors, {facts.slots} tasks at once; {hosts} hosts answered"
    else:
        yield f"{facts.known} executors, none of which answered"


def _machines(facts: Facts) -> Iterator[str]:
    who = "workers" if facts.local else "executors"
    for name, told in _FACTS.items():
        own = told(facts.driver)
        theirs = Counter(map(told, facts.executors))
        if set(theirs) <= {own}:
            yield from _entry(name, own)
            continue
        yield from _entry(name, f"driver: {own}")
        for value, count in theirs.most_common(_MOST_KINDS):
            some = who if count == len(facts.executors) else f"{count} {who}"
            yield from _entry("", f"{some}: {value}")
        if len(theirs) > _MOST_KINDS:
            yield from _entry("", f"and {len(theirs) - _MOST_KINDS} more")


def _entry(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{name:15}",
        subsequent_indent=" " * 17,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _rest(facts: Facts) -> Iterator[str]:
    given = [f"{key}={facts.settings[key]}" for key in _SETTINGS if key in facts.settings]
    yield from _entry("settings", ", ".join(given) or "none that matters here")
    for place in facts.places:
        fine = not place.problem and not place.unseen
        yield from _entry(place.use, f"{place.path}: {'fine' if fine else 'NO, see below'}")
    if facts.need:
        size = "unknown" if facts.need.weights is None else shown(facts.need.weights)
        need = facts.need
        yield from _entry("model", f"{need.name} in {need.runtime}, {need.precision}, {size}")


def _told(findings: Sequence[Finding]) -> Iterator[str]:
    for severity, head in _HEADS.items():
        these = [each for each in findings if each.severity == severity]
        if not these:
            continue
        yield f"\n{head}:"
        for each in these:
            lines = textwrap.wrap(
                f"{each.where}: {each.what}",
                _WIDTH,
                initial_indent=f"  {each.check:14} ",
                subsequent_indent=" " * 17,
                break_long_words=False,
            )
            yield from lines
            if each.change:
                yield from textwrap.wrap(
                    each.change,
                    _WIDTH,
                    initial_indent=f"{'':17}-> ",
                    subsequent_indent=" " * 20,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
    if not findings:
        yield "\nnothing that will go wrong was found"


def as_values(facts: Facts, findings: Sequence[Finding]) -> dict[str, Any]:
    """The same for a manifest; of Spark's settings those that are shown."""
    told = asdict(facts)
    told["settings"] = {key: facts.settings[key] for key in _SETTINGS if key in facts.settings}
    return {"findings": [asdict(each) for each in findings], "cluster": told}
