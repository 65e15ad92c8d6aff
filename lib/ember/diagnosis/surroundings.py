"""Rules on what lies around: places of inputs and outputs, committers, clocks, names, batches."""

from __future__ import annotations

from collections.abc import Iterator

from ember.diagnosis.facts import Facts, Finding, Severity, named

__all__ = ["rules"]

# Requests to S3 are refused at 15 minutes, tickets of Kerberos at 5.
_CLOCK_ERROR, _CLOCK_WARNING = 300.0, 2.0
_PROTOCOL = "spark.sql.sources.commitProtocolClass"
_COMMITTER = "spark.sql.parquet.output.committer.class"
_PLAIN_PROTOCOL = "SQLHadoopMapReduceCommitProtocol"
_SENT = "spark.sql.execution.arrow.maxRecordsPerBatch"


def rules(facts: Facts) -> Iterator[Finding]:
    yield from _places(facts)
    yield from _committer(facts)
    yield from _clocks(facts)
    yield from _names(facts)
    yield from _users(facts)
    yield from _batches(facts)
    yield from _reached(facts)


def _places(facts: Facts) -> Iterator[Finding]:
    for place in facts.places:
        verb = "read" if place.use == "read" else "written"
        if place.problem:
            what = f"cannot be {verb}: {place.problem}"
            yield Finding("error", "places", place.path, what, place.change)
        elif place.unseen:
            host, why = next(iter(place.unseen.items()))
            what = f"{len(place.unseen)} hosts do not see it ({host}: {why})"
            change = (
                "a path of file: must be the same folder on every machine; mount it there, or use "
                "hdfs:, s3a:, gs: or abfss:"
            )
            yield Finding("error", "places", place.path, what, change)


def _committer(facts: Facts) -> Iterator[Finding]:
    protocol = facts.settings.get(_PROTOCOL, _PLAIN_PROTOCOL).rpartition(".")[2]
    if protocol == _PLAIN_PROTOCOL and _COMMITTER not in facts.settings:
        return
    used = facts.settings.get(_PROTOCOL) or facts.settings[_COMMITTER]
    what = (
        f"{used} writes the tables: if it puts a task's files in place only when the whole job "
        "commits, a killed run has nothing to resume from"
    )
    yield Finding(
        "note", "committer", "settings", what, f"leave {_PROTOCOL} unset to resume by tasks"
    )


def _clocks(facts: Facts) -> Iterator[Finding]:
    for executor, skew in zip(facts.executors, facts.skews, strict=False):
        if abs(skew) < _CLOCK_WARNING:
            continue
        way = "ahead of" if skew > 0 else "behind"
        what = f"the clock is at least {abs(skew):.0f} s {way} the driver's"
        change = "run a time service there (chrony, ntpd); object stores and Kerberos refuse it"
        severity: Severity = "error" if abs(skew) >= _CLOCK_ERROR else "warning"
        yield Finding(severity, "clock", named([executor], facts), what, change)


def _names(facts: Facts) -> Iterator[Finding]:
    java = facts.java_encoding.lower()
    if java in ("ansi_x3.4-1968", "us-ascii", "ascii", "iso646-us", "646"):
        what = f"Java names files in {facts.java_encoding}: names with other letters are not found"
        yield Finding("warning", "locale", "driver", what, "start Spark with LC_ALL=C.UTF-8")
    plain = [each for each in facts.executors if not _is_unicode(each["encoding"])]
    if plain:
        what = f"Python names files in {plain[0]['encoding']}"
        change = "set spark.executorEnv.LC_ALL=C.UTF-8"
        yield Finding("warning", "locale", named(plain, facts), what, change)


def _is_unicode(encoding: str) -> bool:
    return encoding.lower().replace("-", "").startswith("utf")


def _users(facts: Facts) -> Iterator[Finding]:
    on_disk = any(
        place.path.startswith(("file:", "/")) for place in facts.places if place.use == "write"
    )
    if facts.local or not on_disk:
        return
    driver = facts.driver
    others = [each for each in facts.executors if each["user"] != driver["user"]]
    if others:
        what = f"tasks run as {others[0]['user']} and the driver as {driver['user']}"
        change = "have both run as one user, so that the driver can move what tasks wrote"
        yield Finding("warning", "users", named(others, facts), what, change)


def _batches(facts: Facts) -> Iterator[Finding]:
    if facts.rows is None or (sent := facts.settings.get(_SENT)) is None:
        return
    if sent.lstrip("-").isdigit() and (int(sent) <= 0 or int(sent) > facts.rows.at_once):
        what = f"{_SENT}={sent}, and {facts.rows.told}"
        change = f"set it to {facts.rows.at_once} or less, or leave it unset: Ember then sets it"
        yield Finding("error", "batches", "settings", what, change)


def _reached(facts: Facts) -> Iterator[Finding]:
    if not facts.silent and not facts.local and len(facts.executors) < facts.known:
        what = f"{facts.known - len(facts.executors)} of {facts.known} executors ran no task"
        yield Finding("note", "tasks", "executors", f"{what}: nothing is known of them")
