"""Pictures of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ember.report.content import Row
from ember.report.drawing import CELL, Picture, Theme, picture, short

__all__ = ["MOST_BARS", "class_bars", "confusion", "precision_recall", "ranks", "reliability"]

MOST_BARS = 40
_MOST_COUNTS = 25
# Points of a cell of the heat map.
_POINTS = 72 * CELL


def confusion(labels: Sequence[str], answers: Sequence[str], counts: np.ndarray) -> Picture:
    """A heat map of (truth, answer) counts; the color is the share of the truth's rows."""
    side = CELL * max(len(labels), 6)
    room = 0.4 + 0.075 * max((len(short(each)) for each in [*labels, *answers]), default=0)
    size = (side * max(1.0, len(answers) / max(len(labels), 6)) + room, side + room)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        ramp = LinearSegmentedColormap.from_list("ember", [theme.paper, theme.first])
        axes.imshow(shares, cmap=ramp, vmin=0, vmax=1, interpolation="nearest", aspect="equal")
        axes.set_xticks(range(len(answers)), [short(each) for each in answers], rotation=90)
        axes.set_yticks(range(len(labels)), [short(each) for each in labels])
        axes.set_xlabel("answer")
        axes.set_ylabel("truth")
        axes.tick_params(length=0)
        if len(labels) > _MOST_COUNTS:
            return
        # A digit is about 0.64 as wide as it is high.
        size = min(7.0, 0.9 * _POINTS / (0.64 * len(str(counts.max(initial=0)))))
        for i, j in np.argwhere(counts > 0):
            color = theme.paper if shares[i, j] > 0.5 else theme.ink
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=color, fontsize=size)

    off = counts.copy()
    for i, label in enumerate(labels):
        off[i] = np.where([answer == label for answer in answers], 0, off[i])
    alt = f"Confusion matrix of {len(labels)} classes, rows the truth, columns the answer."
    if off.size and off.max() > 0:
        i, j = divmod(int(off.argmax()), off.shape[1])
        alt += (
            f" The most frequent confusion: {labels[i]} taken for {answers[j]}, {off[i, j]} rows."
        )
    return picture(draw, size, alt)


def reliability(rows: Sequence[Row], error: float | None) -> Picture:
    """Accuracy against mean score by bin, and below it how many rows each bin has."""
    filled = [row for row in rows if row["count"]]

    def draw(figure: Figure, theme: Theme) -> None:
        upper, lower = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [4, 1], "hspace": 0.06}
        )
        upper.plot([0, 1], [0, 1], color=theme.faint, linewidth=0.8, linestyle=(0, (4, 3)))
        _points(upper, filled, "confidence", "accuracy", theme.first)
        upper.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="accuracy")
        middles = [(row["lower"] + row["upper"]) / 2 for row in rows]
        widths = [0.86 * (row["upper"] - row["lower"]) for row in rows]
        lower.bar(middles, [row["count"] for row in rows], widths, color=theme.first)
        lower.set(xlabel="mean score of the bin", ylabel="rows")
        lower.locator_params(axis="y", nbins=2, integer=True)
        for axes in (upper, lower):
            axes.grid(color=theme.line, linewidth=0.6)

    alt = f"Reliability curve: accuracy by mean score, in {len(filled)} bins with rows."
    if error is not None:
        alt += f" Expected calibration error {error:.4f}."
    return picture(draw, (4.4, 4.2), alt)


def class_bars(names: Sequence[str], rows: Sequence[Row]) -> Picture:
    """Precision and recall of each class, side by side, with intervals where there are some."""
    places = np.arange(len(rows))

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        for name, shift, color in (
            ("precision", -0.19, theme.first),
            ("recall", 0.19, theme.second),
        ):
            values = np.array([row[name] for row in rows], float)
            axes.barh(places + shift, values, 0.34, color=color, label=name)
            ends = np.array([[row[f"{name}_low"], row[f"{name}_high"]] for row in rows], float)
            axes.hlines(places + shift, *ends.T, color=theme.ink, linewidth=0.9)
        axes.set_yticks(places, [short(each) for each in names])
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, 1.005), ylim=(len(rows) - 0.4, -0.6))
        axes.grid(axis="x", color=theme.line, linewidth=0.6)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)

    known = [(row["f1"], name) for name, row in zip(names, rows, strict=True)]
    alt = f"Precision and recall of {len(rows)} classes."
    if known:
        worst = min(known, key=lambda each: -1 if each[0] is None else each[0])
        alt += f" The lowest F1: {worst[1]}."
    return picture(draw, (5.2, 0.9 + 0.24 * len(rows)), alt)


def ranks(families: Mapping[str, Sequence[tuple[int, Row]]]) -> Picture:
    """Figures at several ranks k, a line for each family, with intervals."""

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        styles = [(theme.first, "-"), (theme.second, "-"), (theme.first, ":"), (theme.second, ":")]
        for (name, points), (color, style) in zip(families.items(), styles, strict=False):
            rows = [{"k": k, **row} for k, row in points if row["value"] is not None]
            _points(axes, rows, "k", "value", color)
            places = [[row[key] for row in rows] for key in ("k", "value")]
            axes.plot(*places, color=color, linestyle=style, linewidth=1.2, label=name)
        axes.set(ylim=(-0.02, 1.02), xlabel="k")
        axes.set_xticks(sorted({k for points in families.values() for k, _ in points}))
        axes.grid(color=theme.line, linewidth=0.6)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=4)

    return picture(draw, (5.2, 3.2), f"{', '.join(families)} at the first k documents, by k.")


def precision_recall(lines: Mapping[str, Sequence[Row]]) -> Picture:
    """Precision against recall as the threshold falls, a line for each label."""

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        colors = [theme.first, theme.second, theme.faint, theme.ink]
        for number, (name, rows) in enumerate(lines.items()):
            places = [[row[key] for row in rows] for key in ("recall", "precision")]
            style = ("-", ":")[number // len(colors) % 2]
            color = colors[number % len(colors)]
            axes.plot(*places, style, color=color, linewidth=1.3, label=short(name))
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02), xlabel="recall", ylabel="precision")
        axes.grid(color=theme.line, linewidth=0.6)
        if any(lines):
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)

    named = f" of {', '.join(map(short, lines))}" if any(lines) else ""
    rows = -(-len(lines) // 3) if any(lines) else 0
    return picture(draw, (5.2, 3.9 + 0.17 * rows), f"Precision against recall{named}.")


def _points(axes: Axes, rows: Sequence[Row], x: str, y: str, color: str) -> None:
    places = [row[x] for row in rows]
    low, high = (np.array([row[end] for row in rows], float) for end in ("low", "high"))
    axes.vlines(places, low, high, color=color, linewidth=1.1)
    axes.plot(places, [row[y] for row in rows], "o", color=color, markersize=3.6)
