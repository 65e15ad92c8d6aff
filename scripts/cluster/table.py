"""What the cluster suite ran, as tables: job by environment, faults, then each part's files.

    .venv/bin/python scripts/cluster/table.py FOLDER

FOLDER holds pytest's XML, a file for each part. A test that calls `record_property` with
"environment" and "job", or several jobs with commas, has a cell in the first table; of several in
one, the worst is shown. One that records "fault" has a line in the second.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ORDER = ("failed", "skipped", "passed")
OF_FAULTS = ("rows in", "rows out", "duplicates", "seconds lost", "a reader saw")


@dataclass(frozen=True)
class Case:
    part: str
    file: str
    outcome: str
    seconds: float
    properties: dict[str, str]


def main(folder: str) -> int:
    cases = [case for file in sorted(Path(folder).glob("*.xml")) for case in read(file)]
    if not cases:
        print("no test ran")
        return 1
    told = [case for case in cases if {"environment", "job"} <= case.properties.keys()]
    if told:
        print(by_job(told))
    struck = [case for case in cases if "fault" in case.properties]
    if struck:
        print(by_fault(struck))
    print(by_file(cases))
    return 0


def read(file: Path) -> Iterator[Case]:
    for case in ElementTree.parse(file).iter("testcase"):
        kinds = {child.tag for child in case}
        failed, skipped = kinds & {"failure", "error"}, "skipped" in kinds
        outcome = "failed" if failed else "skipped" if skipped else "passed"
        found = {each.get("name", ""): each.get("value", "") for each in case.iter("property")}
        name = case.get("classname", "").rpartition(".")[2]
        yield Case(file.stem, name, outcome, float(case.get("time", 0)), found)


def by_job(cases: list[Case]) -> str:
    environments = sorted({case.properties["environment"] for case in cases})
    jobs = sorted({job for case in cases for job in of(case)})
    rows = [["job", *environments]]
    notes: list[str] = []
    for job in jobs:
        row = [job]
        for environment in environments:
            here = [
                case
                for case in cases
                if job in of(case) and case.properties["environment"] == environment
            ]
            row.append(cell(here, notes))
        rows.append(row)
    return "\n".join([table(rows), *(f"[{n}] {note}" for n, note in enumerate(notes, 1)), ""])


def of(case: Case) -> list[str]:
    """The jobs that a test ran."""
    return case.properties["job"].split(", ")


def cell(cases: list[Case], notes: list[str]) -> str:
    """The worst outcome, with the number of what a test notes of it."""
    if not cases:
        return "-"
    word = min((case.outcome for case in cases), key=ORDER.index)
    for note in sorted({case.properties["note"] for case in cases if "note" in case.properties}):
        if note not in notes:
            notes.append(note)
        word = f"{word} [{notes.index(note) + 1}]"
    return word


def by_fault(cases: list[Case]) -> str:
    rows = [["fault", "job", *OF_FAULTS, "test"]]
    for case in cases:
        facts = [case.properties.get(name, "-") for name in ("fault", "job", *OF_FAULTS)]
        rows.append([*facts, case.outcome])
    return table(rows) + "\n"


def by_file(cases: list[Case]) -> str:
    rows = [["part", "tests", *reversed(ORDER), "seconds"]]
    for part, file in sorted({(case.part, case.file) for case in cases}):
        here = [case for case in cases if (case.part, case.file) == (part, file)]
        counts = Counter(case.outcome for case in here)
        seconds = f"{sum(case.seconds for case in here):.0f}"
        rows.append([part, file, *(str(counts[each]) for each in reversed(ORDER)), seconds])
    return table(rows)


def table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
