"""The chapters of a search and of a join."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ember.report import charts
from ember.report.galleries import group_gallery, neighbor_gallery, pair_gallery
from ember.report.layout import Chapter, Headline, Section
from ember.report.manifest_section import measured
from ember.report.report import Report
from ember.report.table_view import Head, View, cell, shown, table_view

__all__ = ["join_chapter", "search_chapter"]


def search_chapter(report: Report, manifest: Mapping[str, Any]) -> Chapter:
    """The chapter of a search; ember.report.collect_pairs describes the tables that it shows."""
    config, sizes = manifest["config"], manifest["tables"]
    queries, corpus = sizes["left"]["rows"], sizes.get("right", sizes["left"])["rows"]
    headlines = [
        Headline("queries", f"{queries:,}"),
        Headline("corpus", f"{corpus:,}", "" if "right" in sizes else "the queries themselves"),
        Headline("neighbors", f"{manifest['counts']['rows']:,}"),
        _median(report),
        *measured(manifest),
    ]
    neighbors = table_view("neighbor_rows", "The same as a table", report.tables["neighbors"])
    series = {"neighbors": "all neighbors", "first": "the nearest of each query"}
    sections = [
        Section("figures", "Figures", headlines=headlines),
        Section("neighbors", "Neighbors", None, [neighbors], [neighbor_gallery(report)]),
        _scores(report, series, None),
        *_similarities(report, config["metric"]),
    ]
    lead = (
        f"The {config['k']} most similar rows of {corpus:,} for each of {queries:,} queries, by "
        f"{config['metric']}, {config['mode']}."
    )
    return Chapter("Search", lead, sections)


def join_chapter(report: Report, manifest: Mapping[str, Any]) -> Chapter:
    """The chapter of a join; ember.report.collect_pairs describes the tables that it shows."""
    config, sizes, counts = manifest["config"], manifest["tables"], manifest["counts"]
    headlines = [Headline("pairs", f"{counts['rows']:,}"), _median(report)]
    for name, value in counts.get("groups", {}).items():
        title = {"rows": "rows in groups", "largest": "largest group"}.get(name, name)
        headlines.append(Headline(title, f"{value:,}"))
    sections = [Section("figures", "Figures", headlines=headlines)]
    if "groups" in report.tables:
        views = [
            table_view("sizes", "Groups by size", report.tables["sizes"]),
            table_view("groups", "Members of the largest groups", report.tables["groups"]),
        ]
        sections.append(Section("groups", "Groups", None, views, [group_gallery(report)]))
    galleries = [
        pair_gallery(report, "nearest", "Pairs closest to the threshold"),
        pair_gallery(report, "closest", "The most similar pairs"),
    ]
    sections += [
        Section("pairs", "Pairs", galleries=galleries),
        _scores(report, {"pairs": "pairs"}, config["threshold"]),
        *_similarities(report, config["metric"]),
    ]
    rows = " and ".join(f"{each['rows']:,} {side}" for side, each in sizes.items())
    of = f"{sizes['left']['rows']:,} rows" if len(sizes) == 1 else f"{rows} rows"
    more = "less" if config["metric"] == "euclidean" else "more"
    lead = f"All pairs of {of} with a {config['metric']} of {config['threshold']:g} or {more}."
    return Chapter("Join", lead, sections)


def _median(report: Report) -> Headline:
    value = next(row["value"] for row in report.figures if row["metric"] == "median score")
    return Headline("median score", shown(value))


def _scores(report: Report, series: Mapping[str, str], threshold: float | None) -> Section:
    table = report.tables["scores"]
    drawn = charts.histogram(table.rows, series, threshold) if table.rows else None
    rows = [[cell(row["metric"]), cell(row["value"], True)] for row in report.figures]
    figures = View("figures", "Overall", [Head("figure"), Head("value", True)], rows)
    return Section("scores", "Scores", drawn, [figures, table_view("scores", "By bin", table)])


def _similarities(report: Report, metric: str) -> list[Section]:
    rows = report.tables["similarities"].rows
    if not rows:
        return []
    items = [report.item(row["side"], row["id"]) for row in rows]
    labels = [
        item.label if item and item.label else row["id"]
        for item, row in zip(items, rows, strict=True)
    ]
    values = np.array([row["values"] for row in rows])
    title = "Distances" if metric == "euclidean" else "Similarities"
    return [Section("similarities", title, charts.heat_map(labels, values, metric))]
