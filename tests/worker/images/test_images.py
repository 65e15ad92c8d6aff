from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ember.worker.images.decoding import decode
from ember.worker.rows import RowError
from odd_images import (
    LIMIT,
    animation,
    bomb,
    encoded,
    gray16,
    gray_tiff,
    odd_images,
    oriented,
    picture,
    reason,
)


def plain(data: bytes) -> np.ndarray:
    """What Pillow alone makes of it."""
    with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
        warnings.simplefilter("ignore")
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", odd_images())
def test_pixels_equal_plain_pillow(name: str) -> None:
    data = odd_images()[name]
    image = decode(data, LIMIT)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), plain(data))


def test_animation_gives_its_first_frame() -> None:
    first = picture(seed=0).quantize(32).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decode(animation(), LIMIT)), np.asarray(first))


def test_transparent_pixels_keep_their_color() -> None:
    image = picture()
    opaque = np.asarray(image)
    image.putalpha(0)
    np.testing.assert_array_equal(np.asarray(decode(encoded(image, "PNG"), LIMIT)), opaque)


# What each orientation does to the stored pixels, rows first, in numpy.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    data = oriented(picture(), orientation, form)
    # Pillow alone turns TIFF, and TIFF only.
    stored = np.asarray(picture()) if form == "TIFF" else plain(data)
    expected = UPRIGHT[orientation](stored)
    np.testing.assert_array_equal(np.asarray(decode(data, LIMIT)), expected)


@pytest.mark.parametrize("orientation", [0, 9, 99])
def test_unknown_orientation_is_ignored(orientation: int) -> None:
    data = oriented(picture(), orientation)
    np.testing.assert_array_equal(np.asarray(decode(data, LIMIT)), plain(data))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage!!!!!!",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01",
    ],
)
def test_unreadable_exif_does_not_spoil_sound_pixels(exif: bytes) -> None:
    data = encoded(picture(), "JPEG", exif=exif)
    np.testing.assert_array_equal(np.asarray(decode(data, LIMIT)), plain(data))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_not_clipped(form: str) -> None:
    image = gray16()
    decoded = np.asarray(decode(encoded(image, form), LIMIT))
    expected = np.asarray(image) // 256
    assert len(np.unique(expected)) > 200
    for channel in range(3):
        np.testing.assert_array_equal(decoded[..., channel], expected)


# Samples, how they are stored, and the same as 0 (black) … 255 (white). 9 wide: an odd row of bits.
RAMP = np.linspace(0, 1, 9 * 5).reshape(5, 9)
FULL = (RAMP * 65_535).astype(np.uint16)
GRAY_TIFFS = {
    "12 bits": ((RAMP * 4_095).astype(np.uint16), {"bits": 12}, (RAMP * 4_095).astype(int) // 16),
    "16 bits": (FULL, {}, FULL // 256),
    "16 bits, big": (FULL.astype(">u2"), {}, FULL // 256),
    "16 bits, 0 is white": (FULL, {"white": 0}, 255 - FULL // 256),
    "signed": ((FULL - 32_768.0).astype("<i2"), {}, FULL // 256),
    "signed, big": ((FULL - 32_768.0).astype(">i2"), {}, FULL // 256),
    "signed, 8 bits": ((FULL // 256 - 128.0).astype("i1"), {}, FULL // 256),
    "8 bits, 0 is white": ((FULL // 256).astype("u1"), {"white": 0}, 255 - FULL // 256),
    "32 bits": (FULL.astype("<u4"), {}, FULL // 256),
    "32 bits, beyond": (FULL.astype("<u4") + (1 << 31), {}, np.full_like(FULL, 255)),
    "float": ((FULL // 256).astype("<f4"), {}, FULL // 256),
    "float, 0 is white": ((FULL // 256).astype("<f4"), {"white": 0}, 255 - FULL // 256),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", [name for name in GRAY_TIFFS if name != "signed, big"])
def test_gray_tiff_is_what_its_tags_mean(name: str, packed: bool) -> None:
    samples, options, expected = GRAY_TIFFS[name]
    decoded = np.asarray(decode(gray_tiff(samples, packed=packed, **options), LIMIT))
    for channel in range(3):
        np.testing.assert_array_equal(decoded[..., channel], expected)


@pytest.mark.parametrize("dtype", [">i2", ">i4", ">f4"])
def test_big_endian_gray_that_pillow_swaps_twice_is_refused(dtype: str) -> None:
    samples = (FULL // 256).astype(dtype)
    assert reason(gray_tiff(samples, packed=True)).startswith("unsupported image: compressed big")
    assert decode(gray_tiff(samples), LIMIT).size == (9, 5)


def test_big_endian_signed_gray_begins_at_its_least_value() -> None:
    samples, _, expected = GRAY_TIFFS["signed, big"]
    np.testing.assert_array_equal(np.asarray(decode(gray_tiff(samples), LIMIT))[..., 0], expected)


def test_gray_tiff_is_turned_before_it_is_read() -> None:
    samples, options, expected = GRAY_TIFFS["16 bits, 0 is white"]
    data = encoded(Image.fromarray(samples), "TIFF", tiffinfo={262: options["white"], 274: 6})
    decoded = np.asarray(decode(data, LIMIT))
    np.testing.assert_array_equal(decoded[..., 0], np.rot90(expected, -1))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "null content"),
        (b"", "empty content"),
        (b"just some text", "not an image: 14 bytes of no known format"),
        ("не картинка".encode(), "not an image: 21 bytes of no known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (encoded(Image.new("RGB", (1, 1)), "PNG"), "single pixel image: 1x1 PNG"),
        (encoded(Image.new("P", (1, 1)), "GIF"), "single pixel image: 1x1 GIF"),
        (encoded(Image.new("RGB", (9, 9)), "EPS"), "not an image: EPS"),
    ],
)
def test_what_is_no_picture_says_why(data: bytes | None, expected: str) -> None:
    assert reason(data).startswith(expected)


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("form", ["jpeg", "progressive jpeg", "png", "bmp", "tiff", "gif"])
def test_file_cut_in_its_pixels_is_truncated(form: str, kept: float) -> None:
    whole = {**odd_images(), "jpeg": encoded(picture(300, 200), "JPEG")}[form]
    header = len(whole) - len(_pixel_part(whole, form))
    cut = header + int(kept * (len(whole) - header))
    assert reason(whole[:cut]).startswith("truncated image")


def _pixel_part(whole: bytes, form: str) -> bytes:
    marker = {"jpeg": b"\xff\xda", "progressive jpeg": b"\xff\xda", "png": b"IDAT"}.get(form)
    if marker:
        return whole[whole.index(marker) + 20 :]
    return whole[{"bmp": 54, "tiff": 200, "gif": 100}[form] :]


@pytest.mark.parametrize("form", odd_images())
def test_any_prefix_is_an_error_or_the_whole_picture(form: str) -> None:
    whole = odd_images()[form]
    pixels = plain(whole)
    failed = 0
    for cut in sorted({*range(1, len(whole), max(1, len(whole) // 40)), *range(len(whole))[-6:]}):
        try:
            image = decode(whole[:cut], LIMIT)
        except RowError:
            failed += 1
        else:
            np.testing.assert_array_equal(np.asarray(image), pixels)
    assert failed > 10


def test_bomb_is_refused_by_its_header() -> None:
    assert len(bomb()) < 1_000_000
    # The same at a size that passes: the file itself is sound.
    assert not np.asarray(decode(bomb(300), LIMIT)).any()
    assert reason(bomb()).startswith("too many pixels")
    assert reason(bomb(), 10**10).startswith("too many pixels")


def test_limit_is_the_last_size_that_passes() -> None:
    data = encoded(picture(60, 40), "PNG")
    assert decode(data, 60 * 40).size == (60, 40)
    assert reason(data, 60 * 40 - 1) == "too many pixels: 60x40 is over the limit of 2,399 pixels"


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_row_errors(data: bytes) -> None:
    with pytest.raises(RowError):
        decode(data, LIMIT)


@given(
    form=st.sampled_from(sorted(odd_images())),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=8),
)
def test_damaged_files_raise_nothing_but_row_errors(form: str, place: float, junk: bytes) -> None:
    data = bytearray(odd_images()[form])
    start = int(place * len(data))
    data[start : start + len(junk)] = junk
    try:
        outcome = decode(bytes(data), LIMIT).mode
    except RowError as error:
        outcome = str(error)
    assert "\n" not in outcome
    assert len(outcome) < 300
