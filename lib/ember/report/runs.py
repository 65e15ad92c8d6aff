"""What a manifest says of a run, as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ember.report.cells import Head, View, cell, shown
from ember.report.layout import Headline, Section

__all__ = ["plain_section", "run_section"]

_MOST_FILES = 50
# Shown by `run_section`.
_USUAL = ("run_id", "job", "config", "versions", "input_files", "seconds", "spark", "identity")


def run_section(manifest: Mapping[str, Any]) -> Section:
    """The configuration, the versions and the inputs of the run, and the manifest as JSON."""
    config = list(_flat(manifest.get("config", {})))
    versions = list(manifest.get("versions", {}).items())
    paths = list(manifest.get("input_files", ()))
    seconds = list(manifest.get("seconds", {}).items())
    left = len(paths) - _MOST_FILES
    views = [
        _pairs("config", "Configuration", ("key", "value"), config),
        _pairs("versions", "Versions", ("package", "version"), versions),
        _pairs("seconds", "Seconds by phase", ("phase", "seconds"), seconds),
        View(
            "inputs",
            "Input files",
            [Head("file")],
            [[cell(path)] for path in paths[:_MOST_FILES]],
            f"And {left} more, in _manifest.json." if left > 0 else "",
        ),
    ]
    text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str)
    return Section("run", "Run", (), views, columns=True, manifest=text)


def plain_section(manifest: Mapping[str, Any]) -> Section:
    """The figures of a run whose output has no page: its counts, and what else it noted."""
    counts = manifest.get("counts", {})
    headlines = [
        Headline(name.replace("_", " "), shown(value))
        for name, value in _flat(counts)
        if isinstance(value, int | float)
    ][:6]
    facts = {key: value for key, value in manifest.items() if key not in _USUAL}
    views = [_pairs("facts", "What the run noted", ("key", "value"), list(_flat(facts)))]
    return Section("figures", "Figures", (), views, (), headlines)


def _pairs(key: str, caption: str, names: Sequence[str], rows: Sequence[tuple[Any, Any]]) -> View:
    heads = [Head(name) for name in names]
    # All digits: a setting must be seen as it was.
    cells = [[cell(repr(v) if isinstance(v, float) else v) for v in row] for row in rows]
    return View(key, caption, heads, cells)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key; those that are null are left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        elif value is not None:
            yield f"{before}{key}", value
