"""The chapter of an evaluation: figures, slices, and what its kind has beyond them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ember.report import pictures
from ember.report.cells import Cell, Head, View, cell, shown, table_view, whisker
from ember.report.content import Report, Row, Table
from ember.report.drawing import Picture
from ember.report.galleries import ranked_gallery, worst_gallery
from ember.report.layout import Chapter, Headline, Section

__all__ = ["evaluation_chapter"]

_ALL = "all"
# The figures that are shown large, by kind; those that are there, up to four.
_HEADLINES = {
    "classification": ("accuracy", "macro_f1", "top_", "ece"),
    "multilabel": ("micro_f1", "macro_f1", "mean_average_precision", "subset_accuracy"),
    "retrieval": ("map", "mrr", "recall@", "ndcg@"),
    "similarity": ("spearman", "pearson", "roc_auc", "average_precision"),
}
# Not a figure of merit: it has no place on the axis of the others.
_UNSCALED = "best_threshold"
_INTERVAL = (
    "Low and high are the ends of the 95% bootstrap interval; n is the number of rows, queries or "
    "pairs."
)
_WORST = {
    "classification": "Wrong rows, the most confident first",
    "multilabel": "Rows with the most labels wrong",
    "retrieval": "Queries of the lowest average precision",
    "similarity": "Rows whose score and truth are furthest apart, in standard deviations",
    "compare": "Rows that lost most against the baseline",
}


def evaluation_chapter(report: Report, manifest: Mapping[str, Any]) -> Chapter:
    """The chapter of `report`; see ember.report.collecting for the tables that it shows."""
    counts = manifest["counts"]
    figures = Section(
        "figures", "Figures", (), [_figures(report)], (), _headlines(report), _INTERVAL
    )
    sections = [figures]
    if slices := _slices(report):
        sections.append(Section("slices", "Slices", (), [slices]))
    sections += _sections(report)
    sections.append(Section("issues", "Issues", (), [_issues(report)]))
    unmet = manifest.get("unmet")
    return Chapter(
        f"Evaluation: {report.kind}",
        f"{counts['rows']} rows judged, {counts['failed']} of them without a usable answer.",
        sections,
        {"Requirements not met": unmet} if unmet else {},
    )


def _whole(report: Report) -> dict[str, Row]:
    return {row["metric"]: row for row in report.figures if row["slice"] == _ALL}


def _compared(figures: Mapping[str, Row]) -> list[str]:
    """The figures of a comparison that have a baseline and a difference."""
    return [name for name in figures if f"difference_{name}" in figures]


def _headlines(report: Report) -> list[Headline]:
    figures = _whole(report)
    if report.kind == "compare":
        names = _compared(figures)
        kind = next((k for k, wanted in _HEADLINES.items() if wanted[0] in names), "")
        chosen = [f"difference_{name}" for name in _pick(names, kind)]
    else:
        chosen = _pick(list(figures), report.kind)
    rows = [figures[name] for name in chosen if figures[name]["value"] is not None]
    return [Headline(row["metric"], shown(row["value"]), _interval(row)) for row in rows]


def _interval(row: Row) -> str:
    return "" if row["low"] is None else f"{shown(row['low'])} to {shown(row['high'])}"


def _pick(names: Sequence[str], kind: str) -> list[str]:
    """The headlines among `names`; of a family at several ranks, the last."""
    found = []
    for wanted in _HEADLINES.get(kind, ()):
        family = wanted.endswith(("_", "@"))
        matching = [name for name in names if name.startswith(wanted) or name == wanted]
        matching = matching if family else [name for name in matching if name == wanted]
        found += matching[-1:]
    return found


def _axis(rows: Sequence[Row]) -> tuple[float, float]:
    """The ends of an axis for these figures: 0 to 1, or as far below 0 as above where some are."""
    ends = [row[key] for row in rows for key in ("value", "low", "high")]
    known = [value for value in ends if value is not None and abs(value) <= 1]
    if all(value >= 0 for value in known):
        return 0.0, 1.0
    # In steps of a tenth, so that small differences can be seen.
    far = np.ceil(max(abs(value) for value in known) * 10) / 10
    return -float(far), float(far)


def _axis_head(ends: tuple[float, float], wide: bool = False) -> Head:
    low, high = (f"{end:g}".replace("-", "−") for end in ends)
    return Head("95% interval", axis=(low, high), wide=wide)


def _figures(report: Report) -> View:
    figures = _whole(report)
    if report.kind == "compare":
        return _differences(figures)
    scaled = [row for name, row in figures.items() if name != _UNSCALED]
    ends = _axis(scaled)
    heads = [Head("figure"), *(Head(name, True) for name in ("value", "low", "high", "n"))]
    rows = [
        [
            cell(name),
            *(cell(row[key], True) for key in ("value", "low", "high", "n")),
            Cell("") if name == _UNSCALED else whisker(row, ends, wide=True),
        ]
        for name, row in figures.items()
    ]
    return View("figures", "Over all", [*heads, _axis_head(ends, wide=True)], rows)


def _differences(figures: Mapping[str, Row]) -> View:
    names = _compared(figures)
    ends = _axis([figures[f"difference_{name}"] for name in names if name != _UNSCALED])
    heads = ["run", "baseline", "difference", "low", "high", "n"]
    rows = []
    for name in names:
        row = figures[f"difference_{name}"]
        values = [figures[name]["value"], figures[f"baseline_{name}"]["value"]]
        values += [row[key] for key in ("value", "low", "high", "n")]
        last = Cell("") if name == _UNSCALED else whisker(row, ends, wide=True)
        rows.append([cell(name), *(cell(value, True) for value in values), last])
    columns = [Head("figure"), *(Head(name, True) for name in heads)]
    columns.append(_axis_head(ends, wide=True))
    return View("figures", "Run, baseline, and their difference, over all", columns, rows)


def _slices(report: Report) -> View | None:
    """A row for each slice, a column for each figure; of a comparison, for each difference."""
    names = list(_whole(report))
    if report.kind == "compare":
        names = [f"difference_{name}" for name in _compared(_whole(report))]
    by_slice: dict[str, dict[str, Row]] = {}
    for row in report.figures:
        by_slice.setdefault(row["slice"], {})[row["metric"]] = row
    if len(by_slice) < 2 or not names:
        return None
    first = [figures[names[0]] for figures in by_slice.values()]
    ends = _axis(first)
    heads = [Head("slice"), Head("n", True), *(Head(name, True) for name in names[:1])]
    heads += [_axis_head(ends), *(Head(name, True) for name in names[1:])]
    rows = []
    for name, figures in by_slice.items():
        values = [cell(figures[each]["value"], True) for each in names]
        count = cell(figures[names[0]]["n"], True)
        last = whisker(figures[names[0]], ends)
        rows.append([cell(name), count, values[0], last, *values[1:]])
    note = "Intervals of every figure are in the table figures."
    return View("slices", f"Slices; intervals of {names[0]}", heads, rows, note)


def _sections(report: Report) -> Iterator[Section]:
    tables = report.tables
    for key, name in (("per_class", "class"), ("per_label", "label")):
        if key in tables:
            yield _classes(key, name, tables[key])
    if "most_confused" in tables:
        caption = "Most frequent confusions"
        views = [table_view("most_confused", caption, tables["most_confused"])]
        picture = _confusion(tables["confusion"]) if "confusion" in tables else None
        yield Section("confusion", "Confusion", [picture] if picture else [], views)
    if "reliability" in tables:
        rows = tables["reliability"].rows
        error = _whole(report).get("ece", {"value": None})["value"]
        drawn = [pictures.reliability(rows, error)] if any(row["count"] for row in rows) else []
        views = [table_view("reliability", "Bins of the score", tables["reliability"])]
        yield Section("reliability", "Reliability", drawn, views)
    if "precision_recall" in tables:
        yield _precision_recall(tables["precision_recall"])
    if report.kind == "retrieval" and (families := _families(report)):
        yield Section("ranks", "By rank", [pictures.ranks(families)])
    if "ranked" in tables:
        galleries = [ranked_gallery(report, name) for name in ("worst", "sampled")]
        yield Section("ranked", "Queries and what they found", galleries=galleries)
    if "worst" in tables:
        view = table_view("worst", _WORST[report.kind], tables["worst"])
        seen = report.items and "ranked" not in tables
        galleries = [worst_gallery(report, _WORST[report.kind])] if seen else []
        yield Section("worst", "Worst rows", (), [view], galleries)


def _precision_recall(table: Table) -> Section:
    lines: dict[str, list[Row]] = {}
    for row in table.rows:
        lines.setdefault(row.get("label", ""), []).append(row)
    drawn = [pictures.precision_recall(lines)] if lines else []
    caption = "Precision and recall by threshold"
    view = table_view("precision_recall", caption, table)
    note = "The labels with the most rows." if table.more else ""
    return Section("precision_recall", "Precision and recall", drawn, [view], note=note)


def _classes(key: str, name: str, table: Table) -> Section:
    drawn = sorted(table.rows, key=lambda row: -1.0 if row["f1"] is None else row["f1"])
    drawn = drawn[: pictures.MOST_BARS]
    title = "Classes" if name == "class" else "Labels"
    bars = [pictures.class_bars([row[name] for row in drawn], drawn)] if drawn else []
    caption = f"Every {name}" if not table.more else title
    first = (name, "f1", "precision", "recall", "average_precision")
    columns = [each for each in first if each in table.columns]
    columns += ["tp", "support", "predicted"]
    view = table_view(key, caption, table, columns)
    ends = (0.0, 1.0)
    f1 = [{"value": r["f1"], "low": r["f1_low"], "high": r["f1_high"]} for r in table.rows]
    place = columns.index("f1") + 1
    heads = [*view.heads[:place], _axis_head(ends), *view.heads[place:]]
    rows = [
        [*cells[:place], whisker(row, ends), *cells[place:]]
        for cells, row in zip(view.rows, f1, strict=True)
    ]
    note = view.note
    if len(table.rows) > len(drawn):
        note += f" The picture has the {len(drawn)} of lowest F1."
    view = View(key, f"{caption}; intervals of F1", heads, rows, note.strip())
    return Section(key, title, bars, [view])


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
    return pictures.confusion(labels, answers, counts)


def _families(report: Report) -> dict[str, list[tuple[int, Row]]]:
    """The figures of a retrieval at several ranks, by family; none where there is one rank."""
    found: dict[str, list[tuple[int, Row]]] = {}
    for name, row in _whole(report).items():
        family, at, rank = name.partition("@")
        if at:
            found.setdefault(family, []).append((int(rank), row))
    found = {name: sorted(points, key=lambda each: each[0]) for name, points in found.items()}
    some = any(row["value"] is not None for points in found.values() for _, row in points)
    return found if some and max(map(len, found.values())) > 1 else {}


def _issues(report: Report) -> View:
    columns = ("reason", "rows", "ids")
    view = table_view(
        "issues", "Rows that could not be judged, or were left out", Table(columns, report.issues)
    )
    heads = [*view.heads[:2], Head("such as")]
    return View(view.key, view.caption, heads, view.rows)
