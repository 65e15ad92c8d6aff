"""Charts drawn once with matplotlib, written as SVG inside the page and as PNG files beside it.

Every color in the SVG is a CSS variable of the page, so that one drawing serves the light and the
dark theme. Texts stay texts, escaped, in the font of the page; nothing is read as TeX.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Transform

__all__ = ["FAINT", "FIRST", "INK", "LINE", "PAPER", "SECOND", "Picture", "drawing", "short"]

# The colors of page.css in its light theme. Charts have no others.
PAPER, INK, FAINT, LINE = "#ffffff", "#1c2126", "#59636e", "#dde1e6"
FIRST, SECOND = "#1f63a8", "#c2571a"
_VARIABLES = {PAPER: "paper", INK: "ink", FAINT: "faint", LINE: "line"}
_VARIABLES |= {FIRST: "first", SECOND: "second"}
_DPI = 96  # CSS pixels
_LONGEST = 22
# For PNG files: scripts beyond Latin, Greek and Cyrillic, where one of these is installed.
_FONTS = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei"]
_FONTS += ["Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji"]
_STYLE: Any = {
    "text.parse_math": False,
    "font.size": 8.5,
    "axes.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.labelcolor": FAINT,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Picture:
    """A chart. alt: what it shows, in words, for readers who cannot see it."""

    figure: Figure
    alt: str

    @property
    def svg(self) -> Markup:
        """The chart as an element of an HTML page."""
        renderer = _SvgRenderer(self.figure)
        with _styled():
            self.figure.draw(renderer)
        width, height = renderer.get_canvas_width_height()
        return Markup(
            '<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {:g} {:g}" '
            'width="{:g}" height="{:g}">{}</svg>'
        ).format(self.alt, width, height, width, height, Markup("\n").join(renderer.elements))

    def png(self) -> bytes:
        """The chart in light colors as a PNG file, two pixels for each CSS pixel."""
        file = io.BytesIO()
        FigureCanvasAgg(self.figure)
        with _styled():
            self.figure.savefig(file, format="png", dpi=2 * _DPI, facecolor=PAPER)
        return file.getvalue()


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure to draw on, `width` by `height` CSS pixels, in the style of the page."""
    # A little more than whole pixels, since matplotlib rounds them down.
    size = (round(width) + 0.05) / _DPI, (round(height) + 0.05) / _DPI
    with _styled():
        figure = Figure(figsize=size, dpi=_DPI, layout="compressed", facecolor="none")
        yield figure
        # Room for labels is found only in a second pass, where a matrix has to be square.
        figure.draw_without_rendering()


@contextmanager
def _styled() -> Iterator[None]:
    """The style of the page, whatever a matplotlibrc says.

    Characters that no installed font has are boxes in the PNG files; the page has them as text.
    """
    installed = {font.name for font in fontManager.ttflist}
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        mpl.rcParams["font.family"] = [name for name in _FONTS if name in installed]
        yield


def short(label: str) -> str:
    """A label as one short line of printable characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in label).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


class _SvgRenderer(RendererBase):
    """Collects what matplotlib draws as SVG elements, positions in CSS pixels.

    matplotlib's own SVG has inline styles, which the page's Content-Security-Policy blocks, fixed
    colors, and ids that repeat from chart to chart.
    """

    def __init__(self, figure: Figure) -> None:
        super().__init__()
        self.elements: list[Markup] = []
        self._metrics = FigureCanvasAgg(figure).get_renderer()
        self._size = float(round(figure.bbox.width)), float(round(figure.bbox.height))

    def get_canvas_width_height(self) -> tuple[float, float]:
        return self._size

    def points_to_pixels(self, points: Any) -> Any:
        return points * _DPI / 72

    def get_text_width_height_descent(self, s: str, prop: FontProperties, ismath: Any) -> Any:
        return self._metrics.get_text_width_height_descent(s, prop, ismath)

    def draw_path(
        self,
        gc: GraphicsContextBase,
        path: Path,
        transform: Transform,
        rgbFace: Any = None,  # noqa: N803
    ) -> None:
        """An outline, where its line has a width, and what it encloses, where that has a color."""
        width = self.points_to_pixels(gc.get_linewidth())
        if rgbFace is None and not width:
            return
        paint = ['fill="none"' if rgbFace is None else _paint("fill", rgbFace, gc)]
        if width:
            paint.append(_paint("stroke", gc.get_rgb(), gc))
            paint.append(f'stroke-width="{width:.3g}"')
            offset, dashes = gc.get_dashes()
            if dashes is not None:
                lengths = _numbers(self.points_to_pixels(np.asarray(dashes)))
                paint.append(f'stroke-dasharray="{lengths}" stroke-dashoffset="{offset:g}"')
        if not gc.get_antialiased():
            paint.append('shape-rendering="crispEdges"')
        down = transform + Affine2D().scale(1, -1).translate(0, self._size[1])
        letters = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}
        steps = [
            "Z" if code == Path.CLOSEPOLY else letters[code] + _numbers(values)
            for values, code in path.iter_segments(down)
        ]
        self.elements.append(Markup(f'<path d="{"".join(steps)}" {" ".join(paint)}/>'))

    def draw_text(  # noqa: PLR0917  # as matplotlib calls it
        self,
        gc: GraphicsContextBase,
        x: float,
        y: float,
        s: str,
        prop: FontProperties,
        angle: float,
        ismath: Any = False,
        mtext: Text | None = None,
    ) -> None:
        """A text, anchored where it is aligned: the page's font may be narrower or wider."""
        anchor, share = _anchor(mtext, angle)
        along = share * self.get_text_width_height_descent(s, prop, False)[0]
        turn = math.radians(angle)
        place = f"translate({x + along * math.cos(turn):.1f} {y - along * math.sin(turn):.1f})"
        if angle:
            place += f" rotate({-angle:g})"
        size = self.points_to_pixels(prop.get_size_in_points())
        attributes = f'transform="{place}" text-anchor="{anchor}" font-size="{size:.3g}"'
        element = Markup(f"<text {attributes} {_paint('fill', gc.get_rgb(), gc)}>{{}}</text>")
        self.elements.append(element.format(s))


def _numbers(values: Any) -> str:
    return " ".join(f"{value:.1f}" for value in values)


def _anchor(text: Text | None, angle: float) -> tuple[str, float]:
    """The SVG's name for where a line of text is aligned, and the share of it that lies before."""
    side: str = text.get_horizontalalignment() if text else "left"
    if text and angle and text.get_rotation_mode() != "anchor":  # upright: it reads upward
        side = {"top": "right", "bottom": "left"}.get(text.get_verticalalignment(), "center")
    return {"left": ("start", 0.0), "center": ("middle", 0.5), "right": ("end", 1.0)}[side]


def _paint(kind: str, color: Any, gc: GraphicsContextBase) -> str:
    """The attributes of a fill or stroke."""
    alpha = color[3] if len(color) == 4 else gc.get_alpha()
    opacity = f' {kind}-opacity="{alpha:.3g}"' if alpha < 1 else ""
    return f'{kind}="var(--{_VARIABLES[to_hex(color)]})"{opacity}'
