"""The charts of a page: of evaluations, and of the scores that a search or a join found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure

from ember.report.drawing import FAINT, FIRST, INK, LINE, PAPER, SECOND, Picture, drawing, short
from ember.report.report import Row
from ember.report.table_view import axis_ends

__all__ = ["MOST_DRAWN", "class_intervals", "confusion", "heat_map", "histogram"]
__all__ += ["cumulated", "precision_recall", "ranks", "reliability", "thresholds"]

MOST_DRAWN = 40  # classes
_MOST_COUNTS = 25  # classes of a confusion matrix whose cells have room for their counts
_CELL = 20  # CSS pixels of a cell of a matrix
_WIDTH = 500
_DASHED = (0, (4, 3))


def confusion(labels: Sequence[str], answers: Sequence[str], counts: np.ndarray) -> Picture:
    """A matrix of counts (truth, answer); a cell is as dark as its share of the truth's rows."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    rows, columns = counts.shape
    room = _room([*labels, *answers])
    with drawing(_CELL * max(columns, 6) + room, _CELL * max(rows, 6) + room) as figure:
        axes = figure.subplots()
        _matrix(axes, shares, labels, answers)
        axes.set(xlabel="answer", ylabel="truth")
        # A digit is about 0.64 as wide as it is high; 15 points are a cell.
        size = min(7.0, 13.5 / (0.64 * len(str(counts.max(initial=0)))))
        for i, j in np.argwhere(counts > 0) if rows <= _MOST_COUNTS else ():
            color = PAPER if shares[i, j] > 0.5 else INK
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=color, fontsize=size)
    off = np.where(np.equal.outer(labels, answers), 0, counts)
    alt = f"Confusion matrix of {rows} classes, rows the truth, columns the answer."
    if off.max(initial=0) > 0:
        i, j = divmod(int(off.argmax()), columns)
        alt += (
            f" The most frequent confusion: {labels[i]} taken for {answers[j]}, {off[i, j]} rows."
        )
    return Picture(figure, alt)


def heat_map(names: Sequence[str], values: np.ndarray, metric: str) -> Picture:
    """Similarities or distances (n, n) of rows: the darker, the more alike.

    The diagonal does not set the scale.
    """
    count, far = len(names), metric == "euclidean"
    others = values[~np.eye(count, dtype=bool)]
    others = others[np.isfinite(others)]
    low, high = (float(others.min()), float(others.max())) if len(others) else (0.0, 1.0)
    shares = np.nan_to_num((values - low) / max(high - low, 1e-6)).clip(0, 1)
    side, room = _CELL * max(count, 8), _room(names)
    with drawing(side + room + 80, side + room) as figure:
        axes = figure.subplots()
        _matrix(axes, 1 - shares if far else shares, names, names)
        scale = axes.inset_axes((1.04, 0.2, 0.04, 0.6))
        steps = np.linspace(1, 0, 16)[:, None]
        _cells(scale, 1 - steps if far else steps)
        scale.set_aspect("auto")
        scale.set_xticks([])
        scale.set_yticks([-0.5, len(steps) - 0.5], [f"{high:.3g}", f"{low:.3g}"])
        scale.tick_params(length=0, labelleft=False, labelright=True)
        scale.yaxis.set_label_position("right")
        scale.set_ylabel(metric)
    what = "distances" if far else "similarities"
    alt = (
        f"Heat map of the {what} ({metric}) of {count} of the rows shown "
        f"among each other, from {low:.4g} to {high:.4g}."
    )
    return Picture(figure, alt)


def histogram(rows: Sequence[Row], series: Mapping[str, str], threshold: float | None) -> Picture:
    """Counts of scores in bins from `lower` to `upper`, with a line at the threshold, if any.

    `series` names the columns of counts; the second stands before the first.
    """
    middles = [(row["lower"] + row["upper"]) / 2 for row in rows]
    width = 0.92 * (rows[0]["upper"] - rows[0]["lower"])
    with drawing(_WIDTH, 280) as figure:
        axes = figure.subplots()
        for (column, name), color in zip(series.items(), (FIRST, SECOND), strict=False):
            axes.bar(middles, [row[column] for row in rows], width, color=color, label=name)
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1, linestyle=_DASHED)
        axes.set(xlabel="score", ylabel="pairs")
        axes.locator_params(axis="y", nbins=5, integer=True)
        axes.grid(axis="y")
        if len(series) > 1:
            _legend(figure, axes, 2)
    first = next(iter(series))
    peak = max(rows, key=lambda row: row[first])
    alt = (
        f"Histogram of {sum(row[first] for row in rows)} scores from {rows[0]['lower']:.4g} to "
        f"{rows[-1]['upper']:.4g}; most lie between {peak['lower']:.4g} and {peak['upper']:.4g}."
    )
    return Picture(figure, alt)


def reliability(rows: Sequence[Row], error: float | None) -> Picture:
    """Accuracy against mean score by bin, and below it how many rows each bin has."""
    filled = [row for row in rows if row["count"]]
    with drawing(420, 400) as figure:
        ratios = {"height_ratios": [4, 1], "hspace": 0.06}
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw=ratios)
        upper.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=_DASHED)
        _intervals(upper, filled, "confidence", "accuracy", FIRST)
        upper.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="accuracy")
        middles = [(row["lower"] + row["upper"]) / 2 for row in rows]
        widths = [0.86 * (row["upper"] - row["lower"]) for row in rows]
        lower.bar(middles, [row["count"] for row in rows], widths, color=FIRST)
        lower.set(xlabel="mean score of the bin", ylabel="rows")
        lower.locator_params(axis="y", nbins=2, integer=True)
        for axes in (upper, lower):
            axes.grid()
    alt = f"Reliability curve: accuracy by mean score, in {len(filled)} bins with rows."
    if error is not None:
        alt += f" Expected calibration error {error:.4f}."
    return Picture(figure, alt)


def class_intervals(names: Sequence[str], rows: Sequence[Row]) -> Picture:
    """Precision and recall of each class with their intervals, where they have some."""
    places = np.arange(len(rows))
    drawn = [
        {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
        for name in ("precision", "recall")
        for row in rows
    ]
    with drawing(_WIDTH, 86 + 23 * len(rows)) as figure:
        axes = figure.subplots()
        for number, (name, color) in enumerate((("precision", FIRST), ("recall", SECOND))):
            each = drawn[number * len(rows) : (number + 1) * len(rows)]
            low, value, high = (_column(each, key) for key in ("low", "value", "high"))
            at = places + 0.32 * (number - 0.5)
            axes.hlines(at, low, high, color=color, linewidth=1.4)
            axes.plot(value, at, "o", color=color, markersize=4.4, label=name, clip_on=False)
        axes.set_yticks(places, [short(each) for each in names])
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=axis_ends(drawn), ylim=(len(rows) - 0.4, -0.6))
        axes.grid()
        _legend(figure, axes, 2)
    worst = min(range(len(rows)), key=lambda n: -1 if rows[n]["f1"] is None else rows[n]["f1"])
    alt = f"Precision and recall of {len(rows)} classes. The lowest F1: {names[worst]}."
    return Picture(figure, alt)


def cumulated(rows: Sequence[Row], series: Mapping[str, str], unit: str) -> Picture:
    """The share of rows up to each value, a line for each column of counts that `series` names."""
    values = _column(rows, unit)
    shares = [
        np.cumsum(_column(rows, name)) / max(sum(r[name] for r in rows), 1) for name in series
    ]
    place = int(np.abs(shares[0] - shares[-1]).argmax())
    with drawing(_WIDTH, 300) as figure:
        axes = figure.subplots()
        for share, name, color in zip(shares, series.values(), (FIRST, SECOND), strict=False):
            axes.step(values, share, where="post", color=color, linewidth=1.3, label=name)
        ends = [share[place] for share in shares]
        axes.vlines(values[place], min(ends), max(ends), color=INK, linewidth=1, linestyle=_DASHED)
        axes.set(ylim=(-0.02, 1.02), xlabel=unit, ylabel="share of rows up to it")
        axes.grid()
        _legend(figure, axes, 2)
    apart = f"{abs(ends[0] - ends[-1]):.4f} at {values[place]:.4g}"
    names = " and ".join(series.values())
    return Picture(figure, f"Shares of the rows up to each {unit}: {names}, at most {apart} apart.")


def ranks(families: Mapping[str, Sequence[tuple[int, Row]]]) -> Picture:
    """Figures at several ranks k with their intervals, a line for each family."""
    with drawing(_WIDTH, 310) as figure:
        axes = figure.subplots()
        styles = [(FIRST, "-"), (SECOND, "-"), (FIRST, ":"), (SECOND, ":")]
        for (name, points), (color, style) in zip(families.items(), styles, strict=False):
            rows = [{"k": k, **row} for k, row in points if row["value"] is not None]
            _intervals(axes, rows, "k", "value", color)
            places = [[row[key] for row in rows] for key in ("k", "value")]
            axes.plot(*places, color=color, linestyle=style, linewidth=1.2, label=name)
        ends = axis_ends([row for points in families.values() for _, row in points])
        axes.set(ylim=ends, xlabel="k")
        axes.set_xticks(sorted({k for points in families.values() for k, _ in points}))
        axes.grid()
        _legend(figure, axes, 4)
    return Picture(figure, f"{', '.join(families)} at the first k documents, by k.")


def thresholds(rows: Sequence[Row], series: Mapping[str, str], own: float) -> Picture:
    """Shares at each threshold with their intervals, and a line at the run's own threshold.

    series: columns of shares, beside each of which there are its _low and _high.
    """
    with drawing(_WIDTH, 300) as figure:
        axes = figure.subplots()
        for (name, label), color in zip(series.items(), (FIRST, SECOND), strict=False):
            known = [row for row in rows if row[name] is not None]
            drawn = [
                {**row, "low": row[f"{name}_low"], "high": row[f"{name}_high"]} for row in known
            ]
            _intervals(axes, drawn, "threshold", name, color)
            places = [_column(drawn, key) for key in ("threshold", name)]
            axes.plot(*places, color=color, linewidth=1.2, label=label)
        axes.axvline(own, color=INK, linewidth=1, linestyle=_DASHED)
        axes.set(ylim=(-0.02, 1.02), xlabel="threshold", ylabel="share")
        axes.grid()
        _legend(figure, axes, 2)
    told = f"{' and '.join(series.values())} at {len(rows)} thresholds"
    return Picture(figure, f"{told}; a line at the run's own, {own:.4g}.")


def precision_recall(lines: Mapping[str, Sequence[Row]]) -> Picture:
    """Precision against recall as the threshold falls, a line for each label."""
    named = any(lines)
    with drawing(_WIDTH, 375 + (16 * -(-len(lines) // 3) if named else 0)) as figure:
        axes = figure.subplots()
        colors = [FIRST, SECOND, FAINT, INK]
        for number, (name, rows) in enumerate(lines.items()):
            places = [[row[key] for row in rows] for key in ("recall", "precision")]
            style = "-" if number < len(colors) else ":"
            color = colors[number % len(colors)]
            axes.plot(*places, style, color=color, linewidth=1.3, label=short(name))
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02), xlabel="recall", ylabel="precision")
        axes.grid()
        if named:
            _legend(figure, axes, 3)
    told = f" of {', '.join(map(short, lines))}" if named else ""
    return Picture(figure, f"Precision against recall{told}.")


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=columns)


def _intervals(axes: Axes, rows: Sequence[Row], x: str, y: str, color: str) -> None:
    """A dot for each row, on the line from its `low` to its `high`."""
    places = _column(rows, x)
    axes.vlines(places, _column(rows, "low"), _column(rows, "high"), color=color, linewidth=1.1)
    axes.plot(places, _column(rows, y), "o", color=color, markersize=3.6, clip_on=False)


def _column(rows: Sequence[Row], name: str) -> np.ndarray:
    """Values (rows,) float64; NaN, which is not drawn, where one is undefined."""
    return np.array([row[name] for row in rows], float)


def _room(labels: Sequence[str]) -> float:
    """CSS pixels beside a matrix for its labels."""
    return 44 + 7.2 * max((len(short(each)) for each in labels), default=0)


def _matrix(axes: Axes, shares: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    _cells(axes, shares)
    axes.set_xticks(range(len(columns)), [short(each) for each in columns], rotation=90)
    axes.set_yticks(range(len(rows)), [short(each) for each in rows])
    axes.tick_params(length=0)


def _cells(axes: Axes, shares: np.ndarray) -> None:
    """A cell for each share (rows, columns) from 0 to 1, the more opaque the higher.

    Unlike the pixels of an image, they follow the colors of the page.
    """
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    squares = np.argwhere(shares > 0)[:, None, ::-1] + corners  # (cells, 4, 2): x, y
    colors = to_rgba_array(FIRST, shares[shares > 0])
    axes.add_collection(PolyCollection(squares, facecolors=colors, antialiaseds=False))
    rows, columns = shares.shape
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(LINE)
