"""The chapter of an evaluation: figures, slices, and the sections of its kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ember.report import charts
from ember.report.drawing import Picture
from ember.report.galleries import ranked_gallery, worst_gallery
from ember.report.layout import Chapter, Headline, Section
from ember.report.report import Report, Row, Table
from ember.report.table_view import (
    Cell,
    Head,
    View,
    axis_ends,
    axis_head,
    cell,
    shared_axes,
    shown,
    table_view,
    whisker,
)

__all__ = ["evaluation_chapter", "figures_section", "headlines", "issues_section"]

_ALL = "all"
# The figures shown large, by kind; those that are there, up to four.
_HEADLINES = {
    "classification": ("accuracy", "macro_f1", "top_", "ece"),
    "multilabel": ("micro_f1", "macro_f1", "mean_average_precision", "subset_accuracy"),
    "retrieval": ("map", "mrr", "recall@", "ndcg@"),
    "similarity": ("spearman", "pearson", "roc_auc", "average_precision"),
    "drift": ("embedding_mmd2", "neighbor_overlap", "score_ks", "label_total_variation"),
}
_NUMBERS = ("value", "low", "high", "n")
_INTERVAL = (
    "Low and high are the ends of the 95% bootstrap interval; n is the number of rows, queries or "
    "pairs. So many rows cannot show less than the smallest difference: one that a test at the 5% "
    "level finds in four of five samples. "
    "The axis of the intervals goes from the number on its left to the one on its right."
)
_DIFFERENT = (
    "Those with a q-value of at most 0.05 (Benjamini–Hochberg over all slices of a figure): on "
    "average at most one in twenty of them is like the whole. All others are in the table slices."
)
_WORST = {
    "classification": "Wrong rows, the most confident first",
    "multilabel": "Rows with the most labels wrong",
    "retrieval": "Queries of the lowest average precision",
    "similarity": "Rows whose score and truth are furthest apart, in standard deviations",
    "compare": "Rows that lost most against the baseline",
}


def evaluation_chapter(report: Report, manifest: Mapping[str, Any]) -> Chapter:
    """The chapter of an evaluation; ember.report.collect describes the tables that it shows."""
    counts, unmet = manifest["counts"], manifest.get("unmet")
    sections = [figures_section(report)]
    if slices := _slices(report):
        sections.append(Section("slices", "Slices", None, [slices, *_different(report)]))
    sections += _sections(report)
    sections.append(issues_section(report))
    lead = f"{counts['rows']} rows judged, {counts['failed']} of them without a usable answer."
    warnings = {"Requirements not met": unmet} if unmet else {}
    return Chapter(f"Evaluation: {report.kind}", lead, sections, warnings)


def figures_section(report: Report) -> Section:
    """The main figures large, then all of them."""
    return Section("figures", "Figures", None, [_figures(report)], (), headlines(report), _INTERVAL)


def issues_section(report: Report) -> Section:
    """What could not be judged, or was left out."""
    return Section("issues", "Issues", None, [_issues(report)])


def headlines(report: Report) -> list[Headline]:
    """The main figures of an evaluation, with intervals; of a comparison, their differences."""
    figures, kind, prefix = _overall(report), report.kind, ""
    names = list(figures)
    if kind == "compare":
        names, prefix = _compared(figures), "difference_"
        kind = next((k for k, wanted in _HEADLINES.items() if wanted[0] in names), "")
    rows = [figures[prefix + name] for name in _pick(names, kind)]
    return [
        Headline(row["metric"], shown(row["value"]), _interval(row))
        for row in rows
        if row["value"] is not None
    ]


def _overall(report: Report) -> dict[str, Row]:
    return {row["metric"]: row for row in report.figures if row["slice"] == _ALL}


def _compared(figures: Mapping[str, Row]) -> list[str]:
    """The figures of a comparison that have a baseline and a difference."""
    return [name for name in figures if f"difference_{name}" in figures]


def _pick(names: Sequence[str], kind: str) -> list[str]:
    """The headlines among `names`; of a family at several ranks, the last."""
    found = []
    for wanted in _HEADLINES.get(kind, ()):
        family = wanted.endswith(("_", "@"))
        found += [n for n in names if n == wanted or (family and n.startswith(wanted))][-1:]
    return found


def _interval(row: Row) -> str:
    return "" if row["low"] is None else f"{shown(row['low'])} to {shown(row['high'])}"


def _figures(report: Report) -> View:
    """All figures; of a comparison, both runs and their difference."""
    figures = _overall(report)
    if report.kind == "compare":
        caption = "Run, baseline, and their difference, overall"
        columns = ["run", "baseline", "difference", *_NUMBERS[1:]]
        lines = {name: figures[f"difference_{name}"] for name in _compared(figures)}
    else:
        caption, columns, lines = "Overall", [*_NUMBERS], figures
    keys = list(_NUMBERS)
    if any(row.get("smallest_difference") for row in lines.values()):
        keys.append("smallest_difference")
        columns.append("smallest difference")
    axes = shared_axes(list(lines.values()))
    different = set(axes) - {None}
    shared = different.pop() if len(different) == 1 else None
    rows = []
    for (name, row), ends in zip(lines.items(), axes, strict=True):
        runs = []
        if report.kind == "compare":
            runs = [figures[name]["value"], figures[f"baseline_{name}"]["value"]]
        values = [*runs, *(row[key] for key in keys)]
        last = whisker(row, ends, wide=True, own=not shared) if ends else Cell("")
        rows.append([cell(name), *(cell(value, True) for value in values), last])
    heads = [Head("figure"), *(Head(name, True) for name in columns)]
    return View("figures", caption, [*heads, axis_head(shared, wide=True)], rows)


def _slices(report: Report) -> View | None:
    """A row for each slice, a column for each figure; of a comparison, for each difference."""
    names = list(_overall(report))
    if report.kind == "compare":
        names = [f"difference_{name}" for name in _compared(_overall(report))]
    by_slice: dict[str, dict[str, Row]] = {}
    for row in report.figures:
        by_slice.setdefault(row["slice"], {})[row["metric"]] = row
    if len(by_slice) < 2 or not names:
        return None
    ends = axis_ends([figures[names[0]] for figures in by_slice.values()])
    heads = [Head("slice"), *(Head(name, True) for name in ("n", *names))]
    rows = []
    for name, figures in by_slice.items():
        first = figures[names[0]]
        values = [first["n"], *(figures[each]["value"] for each in names)]
        rows.append([cell(name), *(cell(value, True) for value in values)])
        rows[-1].insert(3, whisker(first, ends))
    heads.insert(3, axis_head(ends))
    note = "Intervals of every figure are in the table figures."
    return View("slices", f"Slices; intervals of {names[0]}", heads, rows, note)


def _different(report: Report) -> Iterator[View]:
    """The slices that differ from the whole, where the report says which."""
    if table := report.tables.get("slices"):
        caption = "Slices that differ from the whole"
        yield table_view("slice_differences", caption, table, table.columns, _DIFFERENT)


def _sections(report: Report) -> Iterator[Section]:
    tables = report.tables
    for key, name in (("per_class", "class"), ("per_label", "label")):
        if key in tables:
            yield _classes(key, name, tables[key])
    if "most_confused" in tables:
        views = [table_view("most_confused", "Most frequent confusions", tables["most_confused"])]
        drawn = _confusion(tables["confusion"]) if "confusion" in tables else None
        yield Section("confusion", "Confusion", drawn, views)
    if "reliability" in tables:
        rows = tables["reliability"].rows
        error = _overall(report).get("ece", {"value": None})["value"]
        curve = charts.reliability(rows, error) if any(row["count"] for row in rows) else None
        views = [table_view("reliability", "Bins of the score", tables["reliability"])]
        yield Section("reliability", "Reliability", curve, views)
    if "precision_recall" in tables:
        yield _precision_recall(tables["precision_recall"])
    if report.kind == "retrieval" and (families := _families(report)):
        yield Section("ranks", "By rank", charts.ranks(families))
    if "ranked" in tables:
        galleries = [ranked_gallery(report, name) for name in ("worst", "sampled")]
        yield Section("ranked", "Queries and what they found", galleries=galleries)
    if "worst" in tables:
        caption = _WORST[report.kind]
        view = table_view("worst", caption, tables["worst"])
        seen = report.items and "ranked" not in tables
        galleries = [worst_gallery(report, caption)] if seen else []
        yield Section("worst", "Worst rows", None, [view], galleries)


def _classes(key: str, name: str, table: Table) -> Section:
    lowest = sorted(table.rows, key=lambda row: -1.0 if row["f1"] is None else row["f1"])
    lowest = lowest[: charts.MOST_DRAWN]
    drawn = charts.class_intervals([r[name] for r in lowest], lowest) if lowest else None
    title = "Classes" if name == "class" else "Labels"
    caption = title if table.more else f"Every {name}"
    first = (name, "f1", "precision", "recall", "average_precision")
    columns = [each for each in first if each in table.columns]
    view = table_view(key, caption, table, [*columns, "tp", "support", "predicted"])
    f1 = [{"value": r["f1"], "low": r["f1_low"], "high": r["f1_high"]} for r in table.rows]
    ends, place = axis_ends(f1), columns.index("f1") + 1
    heads = [*view.heads[:place], axis_head(ends), *view.heads[place:]]
    rows = [
        [*cells[:place], whisker(row, ends), *cells[place:]]
        for cells, row in zip(view.rows, f1, strict=True)
    ]
    note = view.note
    if len(table.rows) > len(lowest):
        note += f" The picture has the {len(lowest)} of lowest F1."
    view = View(key, f"{caption}; intervals of F1", heads, rows, note.strip())
    return Section(key, title, drawn, [view])


def _confusion(table: Table) -> Picture | None:
    labels = sorted({row[key] for row in table.rows for key in ("truth", "predicted")} - {None})
    if not labels:
        return None
    none = any(row["predicted"] is None for row in table.rows)
    answers = [*labels, *(["(no prediction)"] if none else [])]
    place = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(answers)), np.int64)
    for row in table.rows:
        counts[place[row["truth"]], place.get(row["predicted"], len(labels))] = row["count"]
    return charts.confusion(labels, answers, counts)


def _precision_recall(table: Table) -> Section:
    lines: dict[str, list[Row]] = {}
    for row in table.rows:
        lines.setdefault(row.get("label", ""), []).append(row)
    drawn = charts.precision_recall(lines) if lines else None
    view = table_view("precision_recall", "Precision and recall by threshold", table)
    note = "The labels with the most rows." if table.more else ""
    return Section("precision_recall", "Precision and recall", drawn, [view], note=note)


def _families(report: Report) -> dict[str, list[tuple[int, Row]]]:
    """The figures of a retrieval by family and rank; none if there is only one rank."""
    found: dict[str, list[tuple[int, Row]]] = {}
    for name, row in _overall(report).items():
        family, at, rank = name.partition("@")
        if at:
            found.setdefault(family, []).append((int(rank), row))
    found = {name: sorted(points, key=lambda each: each[0]) for name, points in found.items()}
    some = any(row["value"] is not None for points in found.values() for _, row in points)
    return found if some and max(map(len, found.values())) > 1 else {}


def _issues(report: Report) -> View:
    table = Table(("reason", "rows", "ids"), report.issues)
    view = table_view("issues", "Rows that could not be judged, or were left out", table)
    return View(view.key, view.caption, [*view.heads[:2], Head("such as")], view.rows)
