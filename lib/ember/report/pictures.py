"""Pictures of an evaluation, drawn by matplotlib: PNG files, light and dark.

Labels are drawn as they are, never read as TeX. They become pixels, so that nothing in them can
run; a sign that no installed font has becomes a box, and the tables of the page have the text.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from PIL import Image

from ember.report.content import Row

__all__ = ["Picture", "class_bars", "confusion", "ranks", "reliability"]

MOST_BARS = 40
_MOST_COUNTS = 25
# Inches of a cell of the heat map, and points.
_CELL = 0.21
_POINTS = 72 * _CELL
_LONGEST = 22
# Signs beyond Latin, Greek and Cyrillic, where one of these is installed.
_FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei"]
_FONTS += ["Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji"]


@dataclass(frozen=True)
class _Theme:
    paper: str
    ink: str
    faint: str
    line: str
    first: str
    second: str


_LIGHT = _Theme("#ffffff", "#1c2126", "#59636e", "#dde1e6", "#1f63a8", "#c2571a")
_DARK = _Theme("#15181c", "#e2e6ea", "#9aa4af", "#32383f", "#4a8ccc", "#c9743f")


@dataclass(frozen=True)
class Picture:
    """A picture for both themes. width, height: in CSS pixels; the files have twice as many."""

    light: str
    dark: str
    width: int
    height: int
    alt: str


def confusion(labels: Sequence[str], answers: Sequence[str], counts: np.ndarray) -> Picture:
    """A heat map of (truth, answer) counts; the colour is the share of the truth's rows."""
    side = _CELL * max(len(labels), 6)
    room = 0.4 + 0.075 * max((len(_short(each)) for each in [*labels, *answers]), default=0)
    size = (side * max(1.0, len(answers) / max(len(labels), 6)) + room, side + room)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)

    def draw(figure: Figure, theme: _Theme) -> None:
        axes = figure.subplots()
        ramp = LinearSegmentedColormap.from_list("ember", [theme.paper, theme.first])
        axes.imshow(shares, cmap=ramp, vmin=0, vmax=1, interpolation="nearest", aspect="equal")
        axes.set_xticks(range(len(answers)), [_short(each) for each in answers], rotation=90)
        axes.set_yticks(range(len(labels)), [_short(each) for each in labels])
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
    return _picture(draw, size, alt)


def reliability(rows: Sequence[Row], error: float | None) -> Picture:
    """Accuracy against mean score by bin, and below it how many rows each bin has."""
    filled = [row for row in rows if row["count"]]

    def draw(figure: Figure, theme: _Theme) -> None:
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
    return _picture(draw, (4.4, 4.2), alt)


def class_bars(names: Sequence[str], rows: Sequence[Row]) -> Picture:
    """Precision and recall of each class, side by side, with intervals where there are some."""
    places = np.arange(len(rows))

    def draw(figure: Figure, theme: _Theme) -> None:
        axes = figure.subplots()
        for name, shift, color in (
            ("precision", -0.19, theme.first),
            ("recall", 0.19, theme.second),
        ):
            values = np.array([row[name] for row in rows], float)
            axes.barh(places + shift, values, 0.34, color=color, label=name)
            ends = np.array([[row[f"{name}_low"], row[f"{name}_high"]] for row in rows], float)
            axes.hlines(places + shift, *ends.T, color=theme.ink, linewidth=0.9)
        axes.set_yticks(places, [_short(each) for each in names])
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, 1.005), ylim=(len(rows) - 0.4, -0.6))
        axes.grid(axis="x", color=theme.line, linewidth=0.6)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)

    known = [(row["f1"], name) for name, row in zip(names, rows, strict=True)]
    alt = f"Precision and recall of {len(rows)} classes."
    if known:
        worst = min(known, key=lambda each: -1 if each[0] is None else each[0])
        alt += f" The lowest F1: {worst[1]}."
    return _picture(draw, (5.2, 0.9 + 0.24 * len(rows)), alt)


def ranks(families: Mapping[str, Sequence[tuple[int, Row]]]) -> Picture:
    """Figures at several ranks k, a line for each family, with intervals."""

    def draw(figure: Figure, theme: _Theme) -> None:
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

    return _picture(draw, (5.2, 3.2), f"{', '.join(families)} at the first k documents, by k.")


def _points(axes: Axes, rows: Sequence[Row], x: str, y: str, color: str) -> None:
    places = [row[x] for row in rows]
    low, high = (np.array([row[end] for row in rows], float) for end in ("low", "high"))
    axes.vlines(places, low, high, color=color, linewidth=1.1)
    axes.plot(places, [row[y] for row in rows], "o", color=color, markersize=3.6)


def _picture(
    draw: Callable[[Figure, _Theme], None], size: tuple[float, float], alt: str
) -> Picture:
    width, height = round(size[0] * 96), round(size[1] * 96)
    light, dark = (_png(draw, (width, height), theme) for theme in (_LIGHT, _DARK))
    return Picture(light, dark, width, height, alt)


def _png(draw: Callable[[Figure, _Theme], None], size: tuple[int, int], theme: _Theme) -> str:
    """The picture as the address of an image: a PNG of 256 colours."""
    # matplotlib rounds pixels down.
    inches = ((2 * size[0] + 0.1) / 192, (2 * size[1] + 0.1) / 192)
    with _style(theme):
        figure = Figure(figsize=inches, dpi=192, layout="constrained", facecolor=theme.paper)
        canvas = FigureCanvasAgg(figure)
        draw(figure, theme)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).quantize(
        256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    ).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@contextmanager
def _style(theme: _Theme) -> Iterator[None]:
    installed = {font.name for font in fontManager.ttflist}
    settings: Any = {
        "text.parse_math": False,
        "font.family": [name for name in _FONTS if name in installed],
        "font.size": 8.5,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.line,
        "axes.labelcolor": theme.faint,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": False,
        "xtick.color": theme.line,
        "ytick.color": theme.line,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "text.color": theme.ink,
        "legend.frameon": False,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def _short(label: str) -> str:
    """A label as one short line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in label).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
