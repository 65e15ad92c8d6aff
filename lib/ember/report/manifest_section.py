"""What a manifest says of a run: its figures, its row counts, and its settings as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ember.report.layout import Headline, Section
from ember.report.table_view import Head, View, cell, shown
from ember.spark.staged_files import dotted

__all__ = ["count_section", "measured", "row_counts", "run_section", "seconds"]

_MOST_FILES = 50
_MOST_COUNTS = 6
# Shown elsewhere, or of no use to a reader.
_SHOWN = ("run_id", "job", "config", "versions", "input_files", "seconds", "spark", "identity")


def run_section(manifest: Mapping[str, Any], *, whole: bool = False) -> Section:
    """The configuration, the versions and the inputs of a run, and its manifest as JSON.

    `whole` adds all else that the manifest says, for a run of which nothing more is shown.
    """
    paths = list(manifest.get("input_files", ()))
    left = len(paths) - _MOST_FILES
    files = [[cell(path)] for path in paths[:_MOST_FILES]]
    more = f"And {left} more, in _manifest.json." if left > 0 else ""
    views = [
        _pairs("config", "Configuration", ("key", "value"), manifest.get("config", {})),
        _pairs("versions", "Versions", ("package", "version"), manifest.get("versions", {})),
        _pairs("seconds", "Seconds by phase", ("phase", "seconds"), manifest.get("seconds", {})),
        View("inputs", "Input files", [Head("file")], files, more),
    ]
    if whole:
        facts = {key: value for key, value in manifest.items() if key not in _SHOWN}
        views.insert(0, _pairs("facts", "What the run noted", ("key", "value"), facts))
    text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str)
    return Section("run", "Run", None, views, columns=True, manifest=text)


def count_section(manifest: Mapping[str, Any]) -> Section:
    """What a run without a page of its own measured and counted, as headlines."""
    counts = [
        Headline(name.replace("_", " ").replace(".", " "), shown(value))
        for name, value in dotted(manifest.get("counts", {}))
        if isinstance(value, int | float)
    ]
    headlines = [*measured(manifest), *counts][:_MOST_COUNTS]
    return Section("figures", "Figures", headlines=headlines)


def measured(manifest: Mapping[str, Any]) -> list[Headline]:
    """The accuracy of a training on its test rows, and the recall of an approximate search."""
    found = []
    head = manifest.get("head")  # of a training its metrics, of a classification a fingerprint
    judged = head.get("metrics", {}).get("test", {}) if isinstance(head, Mapping) else {}
    accuracy = manifest.get("test_accuracy", judged.get("accuracy"))
    if accuracy is not None:
        found.append(Headline("test accuracy", shown(accuracy)))
    if recall := manifest.get("search", {}).get("recall"):
        ends = " to ".join(shown(end) for end in recall["interval_95"])
        found.append(Headline("recall", shown(recall["measured"]), ends))
    return found


def row_counts(manifest: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """How many rows a run read and wrote; None where its manifest does not say, or none."""
    counts = manifest.get("counts", {})
    rows = counts.get("rows")
    if isinstance(rows, Mapping):  # a training: by part of the split
        failed = counts.get("failed", {})
        unusable = sum(failed.values()) if isinstance(failed, Mapping) else 0
        return sum(rows.values()) + unusable, None
    if sides := manifest.get("tables"):  # a search or join
        names = ("rows", "rejected", "without_group")
        return sum(side.get(name, 0) for side in sides.values() for name in names), rows
    if rows is None or manifest.get("job") == "evaluate":  # writes figures
        return rows, None
    return counts.get("input_rows", rows + counts.get("rejected", 0)), rows


def seconds(manifest: Mapping[str, Any]) -> float | None:
    """How long a run took, all its phases together; None where its manifest does not say."""
    phases = manifest.get("seconds")
    return sum(phases.values()) if phases else None


def _pairs(key: str, caption: str, names: Sequence[str], values: Mapping[str, Any]) -> View:
    heads = [Head(name) for name in names]
    # All digits: a setting must be seen as it was.
    cells = [
        [cell(name), cell(repr(value) if isinstance(value, float) else value)]
        for name, value in dotted(values)
    ]
    return View(key, caption, heads, cells)
