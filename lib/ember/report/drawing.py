"""Drawing with matplotlib: every picture twice, light and dark, as PNG files.

Labels are drawn as they are, never read as TeX. They become pixels, so that nothing in them can
run; a sign that no installed font has becomes a box, and the tables of the page have the text.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from PIL import Image

__all__ = ["CELL", "LIGHT", "Picture", "Theme", "picture", "png", "short"]

# Inches of a cell of a heat map.
CELL = 0.21
_LONGEST = 22
# Signs beyond Latin, Greek and Cyrillic, where one of these is installed.
_FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei"]
_FONTS += ["Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji"]


@dataclass(frozen=True)
class Theme:
    """The colors of a picture, as page.css has them."""

    paper: str
    ink: str
    faint: str
    line: str
    first: str
    second: str


LIGHT = Theme("#ffffff", "#1c2126", "#59636e", "#dde1e6", "#1f63a8", "#c2571a")
_DARK = Theme("#15181c", "#e2e6ea", "#9aa4af", "#32383f", "#4a8ccc", "#c9743f")


@dataclass(frozen=True)
class Picture:
    """A picture for both themes. width, height: in CSS pixels; the files have twice as many."""

    light: str
    dark: str
    width: int
    height: int
    alt: str


def picture(draw: Callable[[Figure, Theme], None], size: tuple[float, float], alt: str) -> Picture:
    """What `draw` puts on a figure of `size` inches (of 96 CSS pixels)."""
    width, height = round(size[0] * 96), round(size[1] * 96)
    light, dark = (
        f"data:image/png;base64,{base64.b64encode(png(draw, (width, height), theme)).decode()}"
        for theme in (LIGHT, _DARK)
    )
    return Picture(light, dark, width, height, alt)


def png(
    draw: Callable[[Figure, Theme], None],
    size: tuple[int, int],
    theme: Theme,
    *,
    photos: bool = False,
) -> bytes:
    """What `draw` puts on a figure of `size` CSS pixels: a PNG, twice as large.

    photos: it has more than 256 colors.
    """
    # matplotlib rounds pixels down.
    inches = ((2 * size[0] + 0.1) / 192, (2 * size[1] + 0.1) / 192)
    with _style(theme):
        figure = Figure(figsize=inches, dpi=192, layout="constrained", facecolor=theme.paper)
        canvas = FigureCanvasAgg(figure)
        draw(figure, theme)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    image, file = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    if not photos:
        image = image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image.save(file, "PNG", optimize=not photos)
    return file.getvalue()


@contextmanager
def _style(theme: Theme) -> Iterator[None]:
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


def short(label: str) -> str:
    """A label as one short line of printable signs."""
    line = " ".join("".join(c if c.isprintable() else " " for c in label).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
