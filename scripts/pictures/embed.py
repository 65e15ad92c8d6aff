"""Draw scripts/pictures/embed.svg from what scripts/bench/embed.py measured.

    .venv/bin/python scripts/pictures/embed.py embed.json

A row of panels for each case: rows a second of the whole run, and steady, with the limit that
arithmetic in float32 sets.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

TARGET = Path(__file__).with_suffix(".svg")
sys.path.insert(0, str(TARGET.parents[1] / "bench"))

from embed_summary import Summary, limit, summaries  # noqa: E402

_EMBER, _OTHER, _LIMIT = "#c2410c", "#94a3b8", "#1e293b"


def main() -> None:
    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "ember", "font.size": 8, "svg.fonttype": "none"}
    from matplotlib import pyplot

    cases = list(json.loads(Path(sys.argv[1]).read_text("utf-8"))["cases"].values())
    found = [summaries(case) for case in cases]
    heights = [len(each) + 1.5 for each in found]
    figure, panels = pyplot.subplots(
        len(cases),
        2,
        squeeze=False,
        figsize=(9, 0.24 * sum(heights)),
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for case, each, (left, right) in zip(cases, found, panels, strict=True):
        labels = [case["labels"][name] for name in each]
        draw(left, labels, [one.rate for one in each.values()])
        left.set_title(f"{case['title']}: whole run, {case['rows']:,} rows", loc="left")
        draw(right, labels, [one.steady for one in each.values()])
        right.set_title("steady, rows a second", loc="left")
        right.set_yticklabels([])
        draw_limit(right, case, each)
    figure.savefig(TARGET, metadata={"Date": None})


def draw(panel: Any, labels: list[str], rates: list[float | None]) -> None:
    """Bars from the top in the order given, with their figures."""
    colors = [_EMBER if label.startswith("Ember") else _OTHER for label in labels]
    bars = panel.barh(labels, [rate or 0 for rate in rates], color=colors)
    panel.bar_label(bars, ["" if rate is None else f" {rate:.1f}" for rate in rates])
    panel.invert_yaxis()
    panel.margins(x=0.15)
    panel.set_xticks([])
    panel.tick_params(left=False)
    panel.spines[["top", "right", "bottom"]].set_visible(False)


def draw_limit(panel: Any, case: dict[str, Any], found: dict[str, Summary]) -> None:
    most = limit(case)
    panel.axvline(most, color=_LIMIT, linestyle="--", linewidth=0.8)
    panel.text(most, len(found) - 0.4, f" arithmetic {most:.1f}", color=_LIMIT, va="top", size=7)


if __name__ == "__main__":
    main()
