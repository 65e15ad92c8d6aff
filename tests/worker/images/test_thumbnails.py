"""Thumbnails: small, made of pixels alone, and a reason for every row that has none."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from ember.worker.images.decoding import decode
from ember.worker.images.thumbnails import excerpt, show_batches, thumbnail
from ember.worker.row_paths import PathRules
from ember.worker.rows import RowError
from odd_images import bomb, encoded, odd_images, picture

SCRIPT = b"<script>alert(1)</script>"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"


@pytest.mark.parametrize("name", odd_images())
def test_every_format_becomes_a_small_jpeg_or_png_of_the_same_shape(name):
    data = odd_images()[name]
    made = thumbnail(data, side=32)
    image = Image.open(io.BytesIO(made.data))
    whole = decode(data, 10**6)
    assert image.format == "PNG"
    assert image.size == (made.width, made.height)
    assert max(image.size) == min(32, max(whole.size))
    # The same picture: its mean color stays.
    ours, theirs = (np.asarray(each, float).mean(axis=(0, 1)) for each in (image, whole))
    assert np.abs(ours - theirs).max() < 12


def test_nothing_but_pixels_gets_through():
    whole = picture(300, 200)
    exif = Image.Exif()
    exif[0x010E] = SCRIPT.decode()
    jpeg = encoded(whole, "JPEG", comment=SCRIPT, exif=exif, icc_profile=SCRIPT) + SCRIPT
    assert jpeg.count(SCRIPT) == 4
    made = thumbnail(jpeg)
    assert SCRIPT not in made.data
    image = Image.open(io.BytesIO(made.data))
    assert (image.format, image.size) == ("JPEG", (144, 96))
    assert not {"exif", "comment", "icc_profile"} & set(image.info)
    small = encoded(picture(30, 20), "PNG", exif=exif, icc_profile=SCRIPT)
    image = Image.open(io.BytesIO(thumbnail(small).data))
    assert (image.format, dict(image.info)) == ("PNG", {})
    assert np.array_equal(np.asarray(image), np.asarray(picture(30, 20)))


def test_every_row_comes_back_with_a_picture_or_the_reason(tmp_path):
    file = tmp_path / "a b.png"
    file.write_bytes(encoded(picture(), "PNG"))
    sound = encoded(picture(), "PNG")
    contents = [sound, None, b"", SVG, bomb(), sound[:200], b"GIF89a" + SCRIPT]
    reasons = ["null content", "empty content", "not an image", "too many pixels"]
    batch = pa.RecordBatch.from_pydict(
        {
            "id": [f"r{n}" for n in range(len(contents))],
            "content": pa.array(contents, pa.binary()),
            "label": pa.array(["<b>"] + [None] * 6, pa.string()),
        }
    )
    (shown,) = show_batches([batch], "image", paths=False)
    rows = shown.to_pylist()
    assert [row["id"] for row in rows] == batch.column("id").to_pylist()
    assert (rows[0]["label"], rows[0]["width"], rows[0]["reason"]) == ("<b>", 60, None)
    assert [row["reason"].split(":")[0] for row in rows[1:5]] == reasons
    assert all(row["image"] is None and row["reason"] for row in rows[1:])
    paths = pa.RecordBatch.from_pydict(
        {"id": ["a", "b"], "content": [str(file), str(tmp_path / "nowhere.png")], "label": ["", ""]}
    )
    (shown,) = show_batches([paths], "image", paths=PathRules((str(tmp_path),)))
    first, second = shown.to_pylist()
    assert first["image"].startswith(b"\x89PNG")
    assert second["reason"] == f"file not found: {tmp_path}/nowhere.png"


def test_texts_are_shortened_to_a_line():
    assert excerpt(b"  two\n\n\twords ") == "two words"
    long = excerpt(("word " * 100).encode(), longest=20)
    assert long == "word word word word…"
    for raw in (None, b" \n", b"\xff\xfe"):
        with pytest.raises(RowError):
            excerpt(raw)
    batch = pa.RecordBatch.from_pydict(
        {"id": ["a", "b"], "content": pa.array([b"x  y", b"\xff"]), "label": ["", ""]}
    )
    (shown,) = show_batches([batch], "text", paths=False)
    assert [row["text"] for row in shown.to_pylist()] == ["x y", None]
