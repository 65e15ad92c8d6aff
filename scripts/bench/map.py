"""How smoothly a browser moves and zooms a map: the times of its frames.

    .venv/bin/python scripts/bench/map.py [--page out/map/map.html] [--points 20000]

Without a page, one of random points in clusters is made. The browser is Chromium without a GPU, in
a window of 1400 x 900; moves and zooms are events of its input devices. Printed are the seconds
between frames while the map moves, and what the page itself spent on each, in milliseconds. On a
machine that others load, the CPU time says what these would be on one that is quiet.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from browser import Tab, tab
from ember.report.map_content import Told
from ember.report.map_data import MapPage, color_of
from ember.report.map_page import render_map

_WATCH = """
window.frames_ = {between: [], own: []};
const real = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (draw) => real((time) => {
  const start = performance.now();
  draw(time);
  window.frames_.own.push(performance.now() - start);
});
let before = 0;
const tick = (time) => {
  if (before && window.watched_) window.frames_.between.push(time - before);
  before = time;
  real(tick);
};
real(tick);
"""


def page(points: int) -> str:
    draw = np.random.default_rng(0)
    group = draw.integers(0, 20, points)
    middles = 28 * draw.normal(size=(20, 2))
    places = (middles[group] + 4 * draw.normal(size=(points, 2))).astype(np.float32)
    colors = [color_of("group", pa.chunked_array([[f"group {each}" for each in group]]))]
    ids = [f"row {number}" for number in range(points)]
    told = Told(texts=[f"The text of row {number}." for number in range(points)])
    facts = {"run_id": "bench", "finished": "2026-01-01T00:00:00+00:00"}
    facts["config"] = {"metric": "cosine"}
    facts["counts"] = {"usable": points, "rejected": 0, "reasons": {}}
    return render_map(MapPage(ids, places[:, 0], places[:, 1], colors, told), facts)


def use(browser: Tab) -> None:
    """Drag the map about, then zoom in and out, with a step for each frame."""
    browser.mouse("mousePressed", 500, 450, button="left", clickCount=1)
    for step in range(120):
        turn = step / 12
        x, y = 500 + 150 * math.sin(turn), 450 + 110 * (1 - math.cos(turn))
        browser.mouse("mouseMoved", x, y, button="left")
    browser.mouse("mouseReleased", 500, 450, button="left")
    for delta in [-60] * 50 + [60] * 70:
        browser.mouse("mouseWheel", 500, 450, deltaX=0, deltaY=delta)


def worked(browser: Tab) -> float:
    """Seconds of CPU time that the page's thread has had, whatever else the machine does."""
    metrics = browser.call("Performance.getMetrics")["metrics"]
    return next(each["value"] for each in metrics if each["name"] == "TaskDuration")


def told(name: str, values: list[float]) -> None:
    marks = np.quantile(values, [0.5, 0.9, 0.99, 1])
    shown = "  ".join(
        f"{n} {v:.1f}" for n, v in zip(("50%", "90%", "99%", "most"), marks, strict=True)
    )
    over = sum(value > 100 for value in values)
    print(f"{name:32} {len(values):5} frames  {shown} ms  over 100 ms: {over}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--page", type=Path)
    parser.add_argument("--points", type=int, default=20_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = given.page or Path(folder, "map.html")
        if not given.page:
            file.write_text(page(given.points), "utf-8")
        print(f"{file.stat().st_size / 2**20:.1f} MiB of page")
        with tab(Path(folder, "profile"), 1400, 900) as browser:
            browser.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)
            browser.open(file)
            browser.call("Performance.enable", timeDomain="threadTicks")
            browser.run("window.watched_ = true; frames_.own = []")
            before = worked(browser)
            use(browser)
            browser.settle()
            spent = worked(browser) - before
            frames = browser.run("window.frames_")
    told("from frame to frame", frames["between"])
    told("of it the page's own", frames["own"])
    print(
        f"CPU time of its thread, a frame: {1000 * spent / len(frames['own']):.1f} ms in the mean"
    )


if __name__ == "__main__":
    main()
