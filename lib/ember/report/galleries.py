"""Collages: queries with their neighbors, groups, pairs, and the worst rows of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from ember.report.cells import shown
from ember.report.content import Report, Row
from ember.report.layout import Gallery, Strip, Tile, item_of

__all__ = [
    "group_gallery",
    "neighbor_gallery",
    "pair_gallery",
    "ranked_gallery",
    "worst_gallery",
]

_MOST_WORST = 24


def neighbor_gallery(report: Report) -> Gallery:
    """A line for each query of a search, in the order in which they were drawn."""
    rows = report.tables["neighbors"].rows
    strips = []
    for query, found in groupby(rows, key=lambda row: row["query_id"]):
        lead = Tile(query, item_of(report, "queries", query), ["query"], "lead")
        tiles = (
            Tile(
                row["neighbor_id"],
                item_of(report, "corpus", row["neighbor_id"]),
                [f"{row['rank']}", shown(row["score"])],
            )
            for row in found
        )
        strips.append(Strip([lead, *tiles]))
    return Gallery(
        "neighbors", "Sampled queries, with ranks and scores of what they found", "queries", strips
    )


def ranked_gallery(report: Report, which: str) -> Gallery:
    """A line for each query of an evaluation that is `which` (worst, sampled)."""
    rows = [row for row in report.tables["ranked"].rows if row["which"] == which]
    strips = []
    for row in rows:
        lead = Tile(row["id"], item_of(report, "queries", row["id"]), ["query"], "lead")
        tiles = [
            Tile(
                document,
                item_of(report, "rows", document),
                [f"{rank}", "relevant" if gain else "not relevant"],
                "good" if gain else "bad",
            )
            for rank, (document, gain) in enumerate(
                zip(row["documents"], row["gains"], strict=True), 1
            )
        ]
        strips.append(Strip([lead, *tiles], f"average precision {shown(row['map'])}"))
    caption = {"worst": "The lowest average precision", "sampled": "Sampled queries"}[which]
    return Gallery(f"{which}_queries", caption, "queries", strips)


def group_gallery(report: Report) -> Gallery:
    """A line for each of the largest groups of a join."""
    strips = []
    rows = report.tables["groups"].rows
    for group, members in groupby(rows, key=lambda row: row["group_id"]):
        known = list(members)
        tiles = [
            Tile(
                row["id"],
                item_of(report, "left", row["id"]),
                ["representative"] if row["representative"] else [shown(row["score"])],
                "lead" if row["representative"] else "",
            )
            for row in known
        ]
        size = known[0]["size"]
        more = f", {len(known)} shown" if size > len(known) else ""
        strips.append(Strip(tiles, f"group {group}: {size} rows{more}"))
    note = "Scores are those with the representative; a chain of pairs makes a group."
    return Gallery("largest_groups", "The largest groups", "groups", strips, note)


def pair_gallery(report: Report, name: str, caption: str) -> Gallery:
    """Pairs of the table `name` side by side."""
    strips = []
    for row in report.tables[name].rows:
        tiles = [
            Tile(row[f"{s}_id"], item_of(report, s, row[f"{s}_id"])) for s in ("left", "right")
        ]
        strips.append(Strip(tiles, shown(row["score"])))
    return Gallery(f"{name}_pairs", caption, "pairs", strips, flow=True)


def worst_gallery(report: Report, caption: str) -> Gallery:
    """The first of the worst rows, with their truth and the answer."""
    rows = report.tables["worst"].rows[:_MOST_WORST]
    strips = [Strip(list(_sides(report, row)), _verdict(row)) for row in rows]
    return Gallery("worst_rows", caption, "rows", strips, flow=True)


def _sides(report: Report, row: Row) -> Iterator[Tile]:
    """A row as one tile; a pair, whose id is a list, as two."""
    ids: Sequence[str] = row["id"] if isinstance(row["id"], list) else [row["id"]]
    for place, key in enumerate(ids):
        side = "queries" if len(ids) > 1 and place == 0 else "rows"
        yield Tile(key, item_of(report, side, key))


def _verdict(row: Row) -> str:
    """What was wrong, in a line; which columns there are depends on the kind."""
    if "baseline_outcome" in row and row["answer"] is None:
        return f"{shown(row['baseline_outcome'])} → {shown(row['outcome'])}"
    truth = shown(row.get("truth"))
    answer = next((row[name] for name in ("answer", "predicted", "score") if name in row), None)
    score = f" ({shown(row['score'])})" if "predicted" in row and "score" in row else ""
    return f"{truth} → {shown(answer)}{score}"
