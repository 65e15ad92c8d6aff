"""What a manifest says of a run, as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ember.report.cells import Head, View, cell, shown
from ember.report.layout import Headline, Section

__all__ = ["count_section", "run_section"]

_MOST_FILES = 50
_MOST_COUNTS = 6
# What has a place of its own.
_SHOWN = ("run_id", "job", "config", "versions", "input_files", "seconds", "spark", "identity")


def run_section(manifest: Mapping[str, Any], *, whole: bool = False) -> Section:
    """The configuration, the versions and the inputs of the run, and the manifest as JSON.

    whole: also all else that the manifest says, for a run of which nothing more is shown.
    """
    paths = list(manifest.get("input_files", ()))
    left = len(paths) - _MOST_FILES
    views = [
        _pairs("config", "Configuration", ("key", "value"), manifest.get("config", {})),
        _pairs("versions", "Versions", ("package", "version"), manifest.get("versions", {})),
        _pairs("seconds", "Seconds by phase", ("phase", "seconds"), manifest.get("seconds", {})),
        View(
            "inputs",
            "Input files",
            [Head("file")],
            [[cell(path)] for path in paths[:_MOST_FILES]],
            f"And {left} more, in _manifest.json." if left > 0 else "",
        ),
    ]
    if whole:
        facts = {key: value for key, value in manifest.items() if key not in _SHOWN}
        views.insert(0, _pairs("facts", "What the run noted", ("key", "value"), facts))
    text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str)
    return Section("run", "Run", (), views, columns=True, manifest=text)


def count_section(manifest: Mapping[str, Any]) -> Section:
    """The counts of a run whose output has no page, and how right on its test rows a model is."""
    head = manifest.get("head")  # of a training its metrics, of a classification a fingerprint
    judged = head.get("metrics", {}).get("test", {}) if isinstance(head, Mapping) else {}
    accuracy = manifest.get("test_accuracy", judged.get("accuracy"))
    headlines = [] if accuracy is None else [Headline("test accuracy", shown(accuracy))]
    headlines += [
        Headline(name.replace("_", " ").replace(".", " "), shown(value))
        for name, value in _flat(manifest.get("counts", {}))
        if isinstance(value, int | float)
    ]
    return Section("figures", "Figures", headlines=headlines[:_MOST_COUNTS])


def _pairs(key: str, caption: str, names: Sequence[str], values: Mapping[str, Any]) -> View:
    heads = [Head(name) for name in names]
    # All digits: a setting must be seen as it was.
    cells = [
        [cell(name), cell(repr(value) if isinstance(value, float) else value)]
        for name, value in _flat(values)
    ]
    return View(key, caption, heads, cells)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key; those that are null are left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        elif value is not None:
            yield f"{before}{key}", value
