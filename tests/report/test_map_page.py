"""The page of a map: what it holds against what it was given, and a browser that uses it."""

from __future__ import annotations

import base64
import io
import json
import re
from importlib.resources import files

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from browser import BROWSER, tab
from ember.report.map_content import Told
from ember.report.map_data import MapPage, color_of
from ember.report.map_page import render_map
from ember.worker.images.sprites import ACROSS, sheet_batches, tile_batches, tile_side
from report_pages import HOSTILE, Page

MANIFEST = {
    "run_id": "r1",
    "finished": "2026-01-02T03:04:05+00:00",
    "config": {"metric": "cosine"},
    "counts": {"usable": 5, "rejected": 2, "reasons": {"null embedding": 2}},
}


def page_of(count: int = 400, seed: int = 0) -> MapPage:
    draw = np.random.default_rng(seed)
    points = draw.normal(size=(count, 2)).astype(np.float32) * 30
    labels = [None if n % 50 == 7 else f"class {n % 30:02}" for n in range(count)]
    ids = [*HOSTILE, *(f"row {n}" for n in range(len(HOSTILE), count))][:count]
    numbers = [None if n == 3 else float(n) for n in range(count)]
    colors = [
        color_of("label", pa.chunked_array([labels])),
        color_of("loss </script>", pa.chunked_array([pa.array(numbers, pa.float32())])),
    ]
    texts = [*HOSTILE, *(f"text {n}" for n in range(len(HOSTILE), count))][:count]
    return MapPage(ids, points[:, 0], points[:, 1], colors, Told(texts=texts))


def held(text: str) -> dict:
    """What the page's script reads."""
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def numbers(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_it_holds_what_it_was_given_and_nothing_of_a_row_leaves_its_place():
    page = page_of()
    text = render_map(page, MANIFEST)
    data = held(text)
    assert (numbers(data["x"], "<f4") == page.x).all()
    assert (numbers(data["y"], "<f4") == page.y).all()
    assert (data["ids"], data["texts"]) == (page.ids, page.told.texts)
    label, loss = data["colors"]
    codes = numbers(label["codes"], "<u2")
    told = [None if code == 65535 else label["names"][code] for code in codes]
    assert told == [None if n % 50 == 7 else f"class {n % 30:02}" for n in range(400)]
    # The most frequent first, of equal ones by name.
    assert label["names"][0] == "class 00"
    values = numbers(loss["values"], "<f4")
    assert np.isnan(values[3])
    assert (np.delete(values, 3) == np.delete(np.arange(400), 3)).all()
    assert (loss["low"], loss["cutLow"], loss["cutHigh"]) == (pytest.approx(4, abs=1.1), True, True)
    parts = Page(text)
    assert [tag for tag, _ in parts.elements].count("script") == 2
    assert not [name for _, each in parts.elements for name in each if name.startswith("on")]
    policy = next(each["content"] for _, each in parts.elements if "http-equiv" in each)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    lead = " ".join("".join(parts.texts).split())
    assert "400 rows, near where their vectors are (cosine). Left out: 2 null embedding." in lead


def test_integers_are_categories_while_they_are_few_and_odd_numbers_are_none():
    few = color_of("digit", pa.chunked_array([[1, 2, 2, None]]))
    assert few.fields["names"] == ["1", "2"]
    many = color_of("width", pa.chunked_array([list(range(30))]))
    assert (many.fields["kind"], many.fields["high"]) == ("number", pytest.approx(28.7, abs=0.1))
    odd = pa.chunked_array([pa.array([float("nan"), float("inf"), 1e300, None], pa.float64())])
    assert np.isnan(numbers(color_of("odd", odd).fields["values"], "<f4")).all()
    nothing = color_of("nothing", pa.chunked_array([pa.array([None, None], pa.string())]))
    assert nothing.fields["names"] == []


def test_pictures_lie_on_sheets_where_the_page_looks_for_them():
    def flat(color: tuple[int, int, int], size: tuple[int, int]) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", size, color).save(file, "PNG")
        return file.getvalue()

    colors = {0: (200, 30, 30), 5: (30, 200, 30), ACROSS**2 + ACROSS + 2: (30, 30, 200)}
    contents = [flat(color, (300, 200)) for color in colors.values()]
    batch = pa.RecordBatch.from_pydict(
        {"position": [*colors, 9, 5], "content": [*contents, b"no picture", contents[0]]}
    )
    side = tile_side(2000)
    (tiles,) = tile_batches([batch], "image", side, None)
    reasons = [reason and reason.partition(":")[0] for reason in tiles.column(3).to_pylist()]
    assert reasons == [None, None, None, "not an image", None]
    rows = [row for row in tiles.to_pylist() if row["image"]]
    for row in rows:
        row["sheet"] = row["position"] // ACROSS**2
    rows.sort(key=lambda row: row["position"])
    sheets = list(sheet_batches([pa.RecordBatch.from_pylist(rows)], side))
    assert [sheet.to_pylist()[0]["sheet"] for sheet in sheets] == [0, 1]
    for sheet in sheets:
        row = sheet.to_pylist()[0]
        picture = Image.open(io.BytesIO(row["data"]))
        assert picture.format == "WEBP"
        for place, *size in zip(row["positions"], row["widths"], row["heights"], strict=True):
            assert size == [side, pytest.approx(side * 2 / 3, abs=1)]
            line, column = divmod(place % ACROSS**2, ACROSS)
            found = picture.getpixel((column * side + side // 2, line * side + side // 3))
            assert np.abs(np.array(found) - colors[place]).max() < 12


def test_the_tiles_of_a_page_are_of_bounded_pixels():
    assert tile_side(1) == tile_side(2000) == 96
    for count in (5_000, 20_000, 50_000):
        assert count * tile_side(count) ** 2 <= 24_000_000
    assert tile_side(50_000) >= 20


def test_color_blind_readers_tell_the_colors_apart():
    """By simulations of Machado, Oliveira and Fernandes (2009), in CIELAB."""
    sights = {
        "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
        "deutan": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
        "tritan": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
    }
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    style = (files("ember.report") / "templates" / "map.css").read_text("utf-8")
    pairs = re.findall(r"--(?:c\d|rest): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", style)
    assert len(pairs) == 9
    for theme in (0, 1):
        parts = [[int(pair[theme][at : at + 2], 16) / 255 for at in (1, 3, 5)] for pair in pairs]
        shares = np.array(parts)
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        for name, sight in sights.items():
            seen = np.clip(linear @ np.array(sight).T, 0, 1) @ xyz.T / [0.9505, 1, 1.089]
            f = np.where(seen > 0.008856, np.cbrt(seen), 7.787 * seen + 16 / 116)
            lab = np.stack([116 * f[:, 1], 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])])
            far = np.linalg.norm(lab[:, :, None] - lab[:, None], axis=0)
            far[np.diag_indices(9)] = np.inf
            assert far.min() > {"normal": 30, "tritan": 13}.get(name, 17), (name, theme)


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome")
def test_a_browser_finds_the_row_under_the_pointer_and_selects_regions(tmp_path):
    page = page_of(2000)
    file = tmp_path / "map.html"
    file.write_text(render_map(page, MANIFEST), "utf-8")
    with tab(tmp_path / "profile") as browser:
        browser.open(file)
        box = browser.run(
            "(({x, y, width, height}) => [x, y, width, height])"
            "(document.getElementById('above').getBoundingClientRect())"
        )

        def screen() -> np.ndarray:
            """Where each row is on the screen, (n, 2)."""
            browser.settle()
            view = browser.run("document.getElementById('stage').dataset.view")
            x, y, scale = map(float, view.split())
            return np.stack(
                [
                    (page.x - x) * scale + box[0] + box[2] / 2,
                    (page.y - y) * scale + box[1] + box[3] / 2,
                ],
                axis=1,
            )

        def shown() -> str:
            browser.settle()
            return browser.run(
                "document.getElementById('tip').hidden ? '' : "
                "document.querySelector('#tip .key').textContent"
            )

        def look_at(place: np.ndarray) -> None:
            browser.mouse("mouseMoved", *map(float, place))
            far = np.hypot(*(screen() - place).T)
            wanted = page.ids[int(far.argmin())] if far.min() < 12 else ""
            assert shown() == wanted

        for row in (0, 1, 2, 3, 17, 1234):
            look_at(screen()[row])
        # Into the middle of the cloud, by the wheel, and on by dragging.
        middle = screen()[17]
        for _ in range(4):
            browser.mouse("mouseWheel", *map(float, middle), deltaX=0, deltaY=-300)
        inside = np.hypot(*(screen() - middle).T) < 150
        assert 3 < inside.sum() < 200
        start = [box[0] + box[2] / 2, box[1] + box[3] / 2]
        before = screen()
        browser.mouse("mousePressed", *start, button="left", clickCount=1)
        browser.mouse("mouseMoved", start[0] + 60, start[1] + 25, button="left")
        browser.mouse("mouseReleased", start[0] + 60, start[1] + 25, button="left")
        assert np.allclose(screen() - before, [60, 25], atol=0.01)
        for row in np.flatnonzero(inside)[:4]:
            look_at(screen()[row])

        # A region by dragging with Shift; what is in it are ids to copy.
        corners = [(-80, -60), (90, -70), (70, 80), (-60, 60)]
        path = [(start[0] + x, start[1] + y) for x, y in corners]
        browser.mouse("mousePressed", *path[0], button="left", clickCount=1, modifiers=8)
        for corner in path[1:]:
            browser.mouse("mouseMoved", *corner, button="left", modifiers=8)
        browser.mouse("mouseReleased", *path[-1], button="left", modifiers=8)
        places = screen() - start
        within = np.ones(len(places), bool)
        for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
            within &= (x2 - x1) * (places[:, 1] - y1) - (y2 - y1) * (places[:, 0] - x1) > 0
        listed = browser.run("document.getElementById('ids').value").split("\n")
        assert sorted(listed) == sorted(page.ids[row] for row in np.flatnonzero(within))
        assert len(listed) > 1
        # The others are faint, and there.
        x, y = places[int(np.flatnonzero(~within & (np.abs(places) < 200).all(axis=1))[0])]
        paint = "document.getElementById('points').getContext('2d').getImageData(%d, %d, 1, 1).data"
        x, y = round(x + box[2] / 2 - 0.5), round(y + box[3] / 2 - 0.5)
        color = list(browser.run(f"[...{paint % (x, y)}]"))
        assert color[:3] != [255, 255, 255]
        assert max(color[:3]) - min(color[:3]) < 25

        # By keys alone: the row nearest the middle, pinned.
        browser.run("document.getElementById('above').focus()")
        browser.key("0")
        browser.key("+")
        wanted = page.ids[int(np.hypot(*(screen() - start).T).argmin())]
        assert shown() == wanted
        browser.key("Enter")
        assert browser.run("document.querySelector('#card .key').textContent") == wanted
        # Another color, and a category that is switched off, is found no more.
        browser.run("document.querySelector('#legend .entry').click()")
        first = int(np.flatnonzero([n % 30 == 0 for n in range(2000)])[4])
        browser.mouse("mouseMoved", *map(float, screen()[first]))
        assert shown() != page.ids[first]
        browser.run(
            "(() => { const color = document.getElementById('color'); color.value = 1; "
            "color.dispatchEvent(new Event('change')); })()"
        )
        assert browser.run("document.querySelectorAll('#ramp').length") == 1
        assert browser.complaints == []
        wide = "document.documentElement.scrollWidth > innerWidth"
        assert not browser.run(wide)
