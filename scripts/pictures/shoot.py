"""Photograph a page in headless Chromium, for the README.

    .venv/bin/python scripts/pictures/shoot.py out/demo/pipeline/report.html \\
        scripts/pictures/demo.png --size 1000x1300
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image


def shoot(page: Path, target: Path, width: int, height: int) -> None:
    """Write the first `height` pixels of a page, `width` wide, as a PNG of 256 colors."""
    browser = shutil.which("chromium") or "google-chrome"
    with tempfile.TemporaryDirectory() as folder:
        shot = f"{folder}/shot.png"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        flags += ["--disable-background-networking", f"--user-data-dir={folder}/profile"]
        flags += [f"--window-size={width},{height}", f"--screenshot={shot}"]
        subprocess.run([browser, *flags, page.resolve().as_uri()], check=True)
        Image.open(shot).convert("RGB").quantize(256).save(target, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--size", default="1000x1300", help="width x height in pixels")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    shoot(given.page, given.target, width, height)


if __name__ == "__main__":
    main()
