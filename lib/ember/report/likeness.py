"""Pictures of a search or a join: how scores are distributed, and how alike the rows shown are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ember.report.content import Row
from ember.report.drawing import CELL, Picture, Theme, picture, short

__all__ = ["heat_map", "histogram"]


def histogram(rows: Sequence[Row], series: Mapping[str, str], threshold: float | None) -> Picture:
    """Counts by score, in bins with `lower` and `upper`; `series` names the columns of counts.

    The first series stands behind the second. threshold: a line, where there is one.
    """
    middles = [(row["lower"] + row["upper"]) / 2 for row in rows]
    width = 0.92 * (rows[0]["upper"] - rows[0]["lower"])

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        colors = [theme.first, theme.second] if len(series) > 1 else [theme.first]
        for (column, name), color in zip(series.items(), colors, strict=False):
            axes.bar(middles, [row[column] for row in rows], width, color=color, label=name)
        if threshold is not None:
            axes.axvline(threshold, color=theme.ink, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlabel="score", ylabel="pairs")
        axes.locator_params(axis="y", nbins=5, integer=True)
        axes.grid(axis="y", color=theme.line, linewidth=0.6)
        if len(series) > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)

    first = next(iter(series))
    peak = max(rows, key=lambda row: row[first])
    alt = (
        f"Histogram of {sum(row[first] for row in rows)} scores from {rows[0]['lower']:.4g} to "
        f"{rows[-1]['upper']:.4g}; most lie between {peak['lower']:.4g} and {peak['upper']:.4g}."
    )
    return picture(draw, (5.2, 2.9), alt)


def heat_map(names: Sequence[str], values: np.ndarray, metric: str) -> Picture:
    """How alike rows are, (n, n): the darker the more. The diagonal does not set the scale."""
    count = len(names)
    others = values[~np.eye(count, dtype=bool)]
    others = others[np.isfinite(others)]
    low, high = (float(others.min()), float(others.max())) if len(others) else (0.0, 1.0)
    side = CELL * max(count, 8)
    room = 0.5 + 0.075 * max(len(short(name)) for name in names)

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        ends = [theme.paper, theme.first]
        ramp = LinearSegmentedColormap.from_list("ember", ends[::-1] if far else ends)
        shown = axes.imshow(values, ramp, vmin=low, vmax=max(high, low + 1e-6), aspect="equal")
        labels = [short(name) for name in names]
        axes.set_xticks(range(count), labels, rotation=90)
        axes.set_yticks(range(count), labels)
        axes.tick_params(length=0)
        bar = figure.colorbar(shown, ax=axes, fraction=0.04, pad=0.02, shrink=0.6, label=metric)
        bar.outline.set_visible(False)

    far = metric == "euclidean"
    what = "distances" if far else "similarities"
    alt = (
        f"Heat map of the {what} ({metric}) of {count} of the rows shown "
        f"among each other, from {low:.4g} to {high:.4g}."
    )
    return picture(draw, (side + room + 0.9, side + room), alt)
