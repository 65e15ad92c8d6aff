"""The chapter of a judgment of drift: which tests found some, and how far apart the tables are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ember.report import charts
from ember.report.evaluation import figures_section, issues_section
from ember.report.layout import Chapter, Section
from ember.report.report import Report
from ember.report.table_view import table_view

__all__ = ["drift_chapter"]

_TABLES = {"reference": "reference", "current": "current"}
_NO_ANSWER = "Of no test there is an answer"


def drift_chapter(report: Report, manifest: Mapping[str, Any]) -> Chapter:
    """The chapter of a judgment of drift; `collect` describes the tables that it shows."""
    counts, unmet = manifest["counts"], manifest.get("unmet")
    share = f"{manifest['config']['false_alarms']:.0%}"
    tests = report.tables["tests"]
    found = [row["test"] for row in tests.rows if row["drift"]]
    told = f"Drift in {', '.join(found)}" if found else "No drift found"
    if not any(row["drift"] is not None for row in tests.rows):
        told = _NO_ANSWER
    lead = (
        f"{told}. {counts['rows']} rows of both tables, {counts['failed']} of them without some "
        "value."
    )
    note = (
        "A test finds drift where its adjusted p-value (Holm over all tests) is at most "
        f"{share}: with that probability at most the run finds any where there is none. Where "
        "none is found, there may be as much as an interval below holds."
    )
    view = table_view("tests", "Tests", tests, tests.columns, note)
    sections = [Section("tests", "Tests", None, [view]), figures_section(report)]
    if scores := report.tables.get("scores"):
        drawn = charts.cumulated(scores.rows, _TABLES, "score") if scores.rows else None
        views = [table_view("scores", "Rows by score", scores)]
        sections.append(Section("scores", "Scores", drawn, views))
    if labels := report.tables.get("labels"):
        view = table_view("labels", "Labels, those that moved most first", labels)
        sections.append(Section("labels", "Labels", None, [view]))
    sections.append(issues_section(report))
    warnings = {"Requirements not met": unmet} if unmet else {}
    return Chapter("Drift", lead, sections, warnings)
