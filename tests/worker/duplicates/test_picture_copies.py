"""Perceptual hashes of pictures, and that no pair within the distance is lost by their bands."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from corpora import picture
from ember.worker.duplicates.fingerprints import Fingerprinting, fingerprint_batches
from ember.worker.duplicates.pictures import perceptual_hash, picture_bands
from ember.worker.stats import TaskStats


def scene(seed: int, side: int = 256) -> Image.Image:
    """A picture with large shapes, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def distance(one: Image.Image, other: Image.Image) -> int:
    hashes = perceptual_hash(one), perceptual_hash(other)
    assert None not in hashes
    return ((hashes[0] ^ hashes[1]) & (2**64 - 1)).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_edits_of_a_picture_have_near_hashes_and_other_pictures_far_ones(seed):
    whole = scene(seed)
    stream = io.BytesIO()
    whole.save(stream, "JPEG", quality=30)
    edits = [
        whole.resize((90, 90)),
        Image.open(stream),
        whole.filter(ImageFilter.GaussianBlur(3)),
    ]
    assert max(distance(whole, each) for each in edits) <= 6
    assert min(distance(whole, scene(other)) for other in range(10, 20)) > 12


def test_the_hash_is_that_of_imagehash():
    import imagehash

    bits = imagehash.phash(scene(0)).hash.ravel()
    expected = int("".join("1" if bit else "0" for bit in bits), 2)
    assert perceptual_hash(scene(0)) & (2**64 - 1) == expected


def test_a_picture_of_one_color_has_no_hash():
    assert perceptual_hash(Image.new("RGB", (50, 50), (200, 10, 10))) is None


@given(st.integers(-(2**63), 2**63 - 1), st.sets(st.integers(0, 63), max_size=16))
def test_hashes_within_the_distance_share_a_band(value, flipped):
    other = np.array([value], np.int64).view(np.uint64)
    for bit in flipped:
        other ^= np.uint64(1) << np.uint64(bit)
    pair = [value, int(other.view(np.int64)[0])]
    for allowed in range(max(1, len(flipped)), 17):
        bands = picture_bands(pair, allowed)
        assert bands.shape == (2, allowed + 1)
        assert (bands[0] == bands[1]).any()


def test_the_bands_of_a_hash_hold_all_its_bits():
    ones = {tuple(picture_bands([1 << bit if bit < 63 else -(2**63)], 8)[0]) for bit in range(64)}
    assert len(ones) == 64
    assert tuple(picture_bands([0], 8)[0]) not in ones


def test_each_row_has_a_fingerprint_or_a_reason():
    what = Fingerprinting("image", None, 8, None, max_bytes=10_000, max_pixels=10_000)
    flat = io.BytesIO()
    Image.new("RGB", (10, 12), "white").save(flat, "PNG")
    contents = [picture(1), None, b"", b"no picture", picture(1)[:200], flat.getvalue()]
    contents += [b"x" * 10_001]
    batch = pa.RecordBatch.from_pydict(
        {"id": list("abcdefg"), "content": contents, "preferred": [1, 2, None, 4, 5, 6, 7]}
    )
    stats = TaskStats()
    (found,) = fingerprint_batches([batch], what, stats)
    rows = found.to_pylist()
    assert [row["id"] for row in rows] == list("abcdefg")
    assert [row["preferred"] for row in rows] == [1, 2, None, 4, 5, 6, 7]
    assert [row["error"] is None for row in rows] == [True, *[False] * 4, True, False]
    assert [rows[number]["error"].partition(":")[0] for number in (1, 2, 6)] == [
        "null content",
        "empty content",
        "too many bytes",
    ]
    assert (rows[0]["size"], rows[0]["bytes"]) == (1200, len(contents[0]))
    assert (rows[5]["size"], rows[5]["perceptual"], rows[5]["perceptual_bands"]) == (
        120,
        None,
        None,
    )
    assert len(rows[0]["perceptual_bands"]) == 9
    assert all(row["exact"] is None for row in rows if row["error"])
    assert stats.rows == 7
