"""Make scripts/pictures/map.png: the map of the handwritten digits, a row under the pointer.

    .venv/bin/python scripts/pictures/map.py [--page out/map/map.html --target map.png] [--dark]

The digits come with scikit-learn; their pixels serve as vectors. Needs chromium.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from search import png
from sklearn.datasets import load_digits

from ember.jobs import map as map_job

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from browser import Tab, tab

TARGET = Path(__file__).parent / "map.png"
SIZE = (1240, 800)
# Where a row is on the screen, as [x, y].
_PLACE = """
((id) => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const row = data.ids.indexOf(id);
  const floats = (text) => new Float32Array(
    Uint8Array.from(atob(text), (each) => each.charCodeAt(0)).buffer);
  const [x, y, scale] = document.getElementById("stage").dataset.view.split(" ").map(Number);
  const box = document.getElementById("above").getBoundingClientRect();
  return [(floats(data.x)[row] - x) * scale + box.left + box.width / 2,
    (floats(data.y)[row] - y) * scale + box.top + box.height / 2];
})(%s)
"""


def digits_map(folder: str) -> Path:
    """The page of a map of the digits, colored by what they are and how much ink they have."""
    digits = load_digits()
    ids = [f"digit-{number:04}" for number in range(len(digits.data))]
    table = {
        "id": ids,
        "content": [png(pixels) for pixels in digits.images],
        "digit": [str(label) for label in digits.target],
        "ink": digits.data.mean(axis=1).astype(np.float32) / 16,
        "embedding": pa.array(list(digits.data.astype(np.float32)), pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(table), f"{folder}/digits.parquet")
    settings = [f"input={{path: {folder}/digits.parquet, id: id}}", "color=[digit, ink]"]
    settings += [f"content={{path: {folder}/digits.parquet}}", "metric=euclidean"]
    settings += [f"output.path={folder}/out"]
    if code := map_job.main([f"--set={each}" for each in settings]):
        raise SystemExit(code)
    return Path(folder, "out", "map.html")


def point_at(browser: Tab, row: str) -> None:
    x, y = browser.run(_PLACE % json.dumps(row))
    browser.mouse("mouseMoved", x, y)
    browser.settle()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--page", type=Path, help="of another map, in place of the digits'")
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--row", default="digit-0011", help="id of the row to point at")
    parser.add_argument("--dark", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = given.page or digits_map(folder)
        with tab(Path(folder, "profile"), *SIZE) as browser:
            browser.open(page)
            if given.dark:
                browser.run("document.getElementById('theme').click()")
            # All pictures are there once they are decoded.
            browser.run("new Promise((done) => setTimeout(done, 3000))")
            point_at(browser, given.row)
            shot = browser.call("Page.captureScreenshot", format="png")["data"]
    picture = Image.open(io.BytesIO(base64.b64decode(shot)))
    picture.convert("RGB").quantize(256).save(given.target, optimize=True)


if __name__ == "__main__":
    main()
