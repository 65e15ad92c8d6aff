"""The chapter of a deduplication: its groups and its least similar copies, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from ember.report import charts
from ember.report.layout import Chapter, Gallery, Headline, Section, Strip, Tile
from ember.report.report import Report, Table
from ember.report.table_view import shown, table_view

__all__ = ["copies_chapter"]

_JUDGED = (
    "Recall is the share of the labeled copies whose score reaches the threshold, wrong that of "
    "the other labeled pairs, each with its 95% interval as of pairs drawn independently; removed "
    "is the share of all rows that this tier removed by a witness that reaches it."
)


def copies_chapter(report: Report, manifest: Mapping[str, Any]) -> Chapter:
    """The chapter of a deduplication; `collect_copies` describes the tables that it shows."""
    counts, against = manifest["counts"], manifest["config"]["against"] is not None
    headlines = [Headline("removed", f"{counts['removed']:,}", f"of {counts['input_rows']:,}")]
    headlines += [Headline("kept", f"{counts['rows']:,}")]
    for name, value in counts.get("groups", {}).items():
        title = {"rows": "rows in groups", "largest": "largest group"}.get(name, name)
        headlines.append(Headline(title, f"{value:,}"))
    if counts["unread"]:
        headlines.append(Headline("cannot be read", f"{counts['unread']:,}", "kept"))
    views = [
        table_view("tiers", "Removed rows by tier", report.tables["tiers"]),
        table_view("sizes", "Groups by size", report.tables["sizes"]),
    ]
    members = table_view("groups", "Rows of the largest groups", report.tables["groups"])
    sections = [
        Section("figures", "Figures", None, views, headlines=headlines, columns=True),
        Section("groups", "Groups", None, [members], [_groups(report, against)]),
    ]
    if "pairs" in manifest:
        sections += _judged(manifest["pairs"], manifest["tiers"])
    if report.tables["doubtful"].rows:
        pairs = table_view("doubtful", "The same as a table", report.tables["doubtful"])
        sections.append(Section("doubtful", "Least similar", None, [pairs], [_doubtful(report)]))
    tiers = ", ".join(
        f"{tier['tier']} {tier['threshold']:g}" if "threshold" in tier else tier["tier"]
        for tier in manifest["tiers"]
    )
    what = "with a copy in another table" if against else "that are copies of others"
    lead = f"The rows of {counts['input_rows']:,} {what}, by {tiers}."
    return Chapter("Deduplication", lead, sections)


def _judged(pairs: Mapping[str, Any], tiers: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    """What the run makes of labeled pairs, and what other thresholds of each tier would."""
    counts = {"recall": pairs["copies"], "wrong": pairs["others"]}
    names = {"recall": "copies found", "wrong": "others merged"}
    heads = []
    for key, name in names.items():
        if counts[key]:
            low, high = (shown(pairs[f"{key}_{end}"]) for end in ("low", "high"))
            heads.append(Headline(name, shown(pairs[key]), f"{low} to {high}, of {counts[key]:,}"))
    unused = Table(
        ["reason", "pairs"], [{"reason": why, "pairs": n} for why, n in pairs["unused"].items()]
    )
    left_out = [table_view("unused_pairs", "Pairs left out", unused)] if unused.rows else []
    yield Section("pairs", "Labeled pairs", None, left_out, headlines=heads)
    for tier in tiers:
        rows = [row for row in pairs["thresholds"] if row["tier"] == tier["tier"]]
        if rows:
            columns = [name for name in rows[0] if name != "tier"]
            key, title = f"pairs_{tier['tier']}", f"Thresholds of {tier['tier']}"
            view = table_view(key, title, Table(columns, rows), columns, _JUDGED)
            own = min(row["threshold"] for row in rows if row["removed"] is not None)
            drawn = charts.thresholds(rows, names, own)
            yield Section(key, title, drawn, [view])


def _groups(report: Report, against: bool) -> Gallery:
    """A line for each of the largest groups, the row that stays first."""
    strips = []
    for kept, each in groupby(report.tables["groups"].rows, key=lambda row: row["kept_id"]):
        rows = list(each)
        word = "in the other table" if against else "stays"
        tiles = [Tile(kept, report.item("right", kept), [word], "lead")]
        for row in rows:
            words = [row["tier"], shown(row["score"])]
            tiles.append(Tile(row["id"], report.item("left", row["id"]), words))
        size = rows[0]["size"]
        told = len(rows) + (not against)
        more = f", {told} shown, the least similar" if size > told else ""
        strips.append(Strip(tiles, f"{kept}: {size} rows{more}"))
    note = "Scores are those with the row that each is directly a copy of (neighbor_id)."
    return Gallery("copies", "The largest groups", "groups", strips, note)


def _doubtful(report: Report) -> Gallery:
    """Rows beside the one that each is a copy of, the least similar first."""
    strips = []
    for row in report.tables["doubtful"].rows:
        sides = (("left", row["id"]), ("right", row["neighbor_id"]))
        tiles = [Tile(key, report.item(side, key)) for side, key in sides]
        strips.append(Strip(tiles, f"{row['tier']} {shown(row['score'])}"))
    caption = "The least similar copies of each tier"
    return Gallery("doubtful_copies", caption, "pairs", strips, flow=True)
