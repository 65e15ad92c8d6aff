"""Small files that ask for much: each is an error row before a decoder sees it."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from ember.worker.images.decoding import FORMATS, decode
from ember.worker.images.headers import read_claim
from odd_images import LIMIT, bomb, encoded, odd_images, picture, reason

# An orientation: a quarter turn.
EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow was asked"))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks: bytes, of: Image.Image | None = None) -> bytes:
    """A sound PNG with chunks behind its header."""
    data = encoded(of or picture(), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def png_header(width: int, height: int, bits: int = 8, color: int = 2) -> bytes:
    body = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


# --- formats within formats ------------------------------------------------------------------


def iptc(payload: bytes) -> bytes:
    """An IPTC file around any other, with a header of 16 x 16 pixels."""
    fields = [(3, 20, b"\0\x10"), (3, 30, b"\0\x10"), (3, 60, b"\1\0"), (3, 65, b"\0")]
    fields += [(3, 120, b"\1"), (8, 10, payload)]
    return b"".join(struct.pack(">BBBH", 28, *each[:2], len(each[2])) + each[2] for each in fields)


def ico(payload: bytes) -> bytes:
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(payload), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + payload


def icns(payload: bytes) -> bytes:
    return b"icns" + struct.pack(">I4sI", 16 + len(payload), b"ic08", 8 + len(payload)) + payload


@pytest.mark.parametrize("wrapped", [iptc, ico, icns])
def test_a_format_that_holds_another_is_no_image(
    wrapped: Callable[[bytes], bytes], no_decoder: None
) -> None:
    name = wrapped.__name__.upper()
    assert reason(wrapped(bomb(3000))).startswith(f"not an image: {name} is not read; JPEG, PNG,")


def test_no_program_is_run_for_a_page_in_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, lambda *_, **__: pytest.fail("a program was run"))
    eps = encoded(Image.new("RGB", (9, 9)), "EPS")
    assert Image.open(io.BytesIO(iptc(eps))).format == "IPTC"  # what Pillow alone takes it for
    for data in (eps, iptc(eps), b"\xc5\xd0\xd3\xc6" + eps, b"%PDF-1.4\n" + eps):
        assert reason(data).startswith("not an image")


@pytest.mark.parametrize("form", ["FITS", "PSD", "TGA", "PCX", "ICO", "ICNS", "DDS", "SGI", "QOI"])
def test_formats_outside_of_the_list_are_not_opened(form: str, no_decoder: None) -> None:
    heads = {"FITS": b"SIMPLE  =                    T", "PSD": b"8BPS\0\1"}
    data = heads.get(form) or encoded(picture(32, 32), form)
    assert reason(data + bytes(3000)).startswith("not an image")


def test_pillow_is_given_the_one_format_that_the_bytes_say(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    opened = Image.open

    def note(stream: io.BytesIO, formats: tuple[str, ...]) -> Image.Image:
        given.append(formats)
        return opened(stream, formats=formats)

    monkeypatch.setattr(Image, "open", note)
    for data in odd_images().values():
        decode(data, LIMIT)
    assert {len(each) for each in given} == {1}
    assert {each[0] for each in given} <= set(FORMATS)


# --- time and memory -------------------------------------------------------------------------


def scans(count: int, between: bytes = b"", of: Image.Image | None = None) -> bytes:
    """A progressive JPEG whose last scan comes `count` times more."""
    data = encoded(of or picture(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + (between + data[last:-2]) * count + b"\xff\xd9"


@pytest.mark.parametrize(
    "between",
    [
        b"",
        b"\xff\xfe\0\x06\xff\xd9\xff\xd9",  # an end of the image that is a comment
        b"\xff\xff\xff",
        b"\xff\xc4\0\x13\x10" + bytes(16),
    ],
)
def test_scans_of_a_jpeg_are_bounded_by_its_pixels(between: bytes, no_decoder: None) -> None:
    data = scans(2143, between)
    assert len(data) < 1_000_000
    assert reason(data, 60 * 40 * 50).startswith("too many pixels: 60x40 counts for 28")


def test_a_run_of_fill_bytes_among_the_pixels_takes_no_time(no_decoder: None) -> None:
    data = scans(0)[:-2] + (b"\xff" * 5_000_000 + b"\0") + b"\xff\xd9"
    assert read_claim(data).cost == 1


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_ordinary_progressive_jpegs_cost_what_others_do(mode: str) -> None:
    data = encoded(picture().convert(mode), "JPEG", progressive=True)
    assert read_claim(data).cost == 1
    assert decode(data, 60 * 40).size == (60, 40)


def test_what_follows_the_end_of_a_jpeg_is_no_scan() -> None:
    data = encoded(picture(), "JPEG", progressive=True) + b"\xff\xda\0\x08" * 5000
    assert read_claim(data).cost == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xe1\0\x0cExif\0\0ab\0\0" * 30_000,
        b"\xff\xd8" + b"\xff" * 100_000 + encoded(picture(), "JPEG")[2:],
        b"\xff\xd8\xff\xe0\0\2" + b"a" * 100_000 + encoded(picture(), "JPEG")[2:],
        scans(0)[:-2] + b"\xff\xfe\0\2" * 30_000,
    ],
    ids=["segments", "fill bytes", "junk", "segments between scans"],
)
def test_endless_headers_of_a_jpeg_are_corrupt(data: bytes, no_decoder: None) -> None:
    assert reason(data).startswith("corrupt image")


def test_many_pieces_of_exif_are_not_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg = encoded(picture(), "JPEG", exif=EXIF)
    piece = b"\xff\xe1\0\x10Exif\0\0" + b"01234567"
    data = jpeg[:2] + jpeg[2:].replace(b"\xff\xdb", piece * 500 + b"\xff\xdb", 1)
    assert len(read_claim(data).data) == len(jpeg)
    np.testing.assert_array_equal(decode(data, LIMIT), decode(jpeg, LIMIT))
    assert decode(data, LIMIT).size == (40, 60)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png_header(1, 89_478_485), "a side of 1x89478485 is over 65,535"),
        (png_header(70_000, 10), "a side of 70000x10"),
        (png_header(800, 800, bits=16), "800x800"),
        (b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0, 0, 0) + b"," + b"\xff" * 9, "131070x131070"),
        (b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, 40, 2000, -2000, 1, 24, 0), "2000x2000"),
        (b"P6\n# words\n2000 2000\n255\n", "2000x2000"),
        (b"P3 200 200 255\n1 2 3", "values one by one"),
        (b"P5 200 200 254\n", "values one by one"),
    ],
)
def test_what_a_header_claims_is_refused(data: bytes, words: str, no_decoder: None) -> None:
    assert reason(data.ljust(100, b"\0")).startswith("too many pixels")
    assert words in reason(data.ljust(100, b"\0"))


def test_a_canvas_of_webp_is_refused_before_room_is_made(no_decoder: None) -> None:
    for lossless in (False, True):
        data = bytearray(encoded(picture(), "WEBP", lossless=lossless, exif=EXIF))
        assert data[12:16] == b"VP8X"
        data[24:30] = b"\xff\x3f\0\xff\x3f\0"
        assert reason(bytes(data)).startswith("too many pixels: 16384x16384")


def test_run_lengths_are_bounded_by_pixels_and_bytes(no_decoder: None) -> None:
    header = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 0, 0, 54, 40, 100, 100, 1, 8, 1, 0, 0, 0, 0, 0)
    assert "run lengths" in reason(header + b"\1\0" * 100_000)


def test_a_stream_of_jpeg2000_counts_and_not_its_box(no_decoder: None) -> None:
    data = bytearray(encoded(picture(), "JPEG2000"))
    at = data.index(b"\xff\x4f\xff\x51")
    struct.pack_into(">II", data, at + 8, 60_000, 60_000)
    struct.pack_into(">II", data, at + 24, 60_000, 60_000)
    assert reason(bytes(data)).startswith("too many pixels: 60000x60000")
    struct.pack_into(">II", data, at + 8, 400, 400)
    struct.pack_into(">II", data, at + 24, 1, 1)
    assert reason(bytes(data)) == "unsupported image: a JPEG 2000 of 160,000 tiles is not read"


def test_streams_of_avif_count_and_not_the_box_before_them(no_decoder: None) -> None:
    data = bytearray(encoded(picture(300, 200), "AVIF", speed=10))
    assert read_claim(bytes(data)).cost == 3
    at = data.index(b"ispe")
    struct.pack_into(">II", data, at + 8, 16, 16)
    assert reason(bytes(data), 60_000) == (
        "too many pixels: 16x16 counts for 90,000 (60,000 pixels in its streams), which is over "
        "the limit of 60,000 pixels"
    )


def test_frames_hidden_in_an_avif_count(no_decoder: None) -> None:
    from ember.worker.images.av1 import Av1Stream

    data = encoded(picture(300, 200), "AVIF", speed=10)
    start = data.index(b"mdat") + 4
    stream = data[start:]
    assert (Av1Stream(stream).area, Av1Stream(stream).frames) == (60_000, 1)
    assert Av1Stream(stream * 3).frames == 3


def box(kind: bytes, *body: bytes) -> bytes:
    content = b"".join(body)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def avif_of(items: int, extents: int = 1) -> bytes:
    """An AVIF whose items, all of them pictures, lie at the same place: its whole file."""
    numbers = range(1, items + 1)
    infe = [box(b"infe", b"\2\0\0\0", struct.pack(">HH4s", n, 0, b"av01")) for n in numbers]
    where = struct.pack(">HH", 0, extents) + struct.pack(">II", 0, 4000) * min(extents, 20)
    iloc = b"\0\0\0\0\x44\0" + struct.pack(">H", items)
    iloc += b"".join(struct.pack(">H", n) + where for n in numbers)
    ispe = box(b"ispe", bytes(4), struct.pack(">II", 16, 16))
    meta = box(
        b"meta",
        bytes(4),
        box(b"iinf", bytes(4), struct.pack(">H", items), *infe),
        box(b"iloc", iloc),
        box(b"iprp", box(b"ipco", ispe)),
    )
    return (box(b"ftyp", b"avif", bytes(4)) + meta).ljust(4000, b"\0")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (avif_of(1), "corrupt image: the AVIF says no size"),
        (avif_of(1200), "corrupt image: the AVIF has 1,200 pictures that lie in one another"),
        (avif_of(1, 2), "unsupported image: an AVIF whose pictures lie in several pieces"),
        (avif_of(1, 60_000), "corrupt image: an item of the AVIF lies in too many pieces"),
    ],
)
def test_items_of_an_avif_that_lie_in_one_another_are_refused(
    data: bytes, words: str, no_decoder: None
) -> None:
    assert reason(data).startswith(words)


def test_a_worker_short_of_memory_fails_the_row_and_not_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    data = encoded(picture(), "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load_prepare", fail)
    assert reason(data).startswith("out of memory: ")


# --- TIFF ------------------------------------------------------------------------------------


def tiff(**tags: int | tuple[int, int, int]) -> bytes:
    """A TIFF of 10 x 10 gray pixels in one strip, with other tags: a value, or (type, count, …)."""
    values = {256: 10, 257: 10, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 10, 279: 100}
    given = values | {int(name[1:]): value for name, value in tags.items()}
    pixels = bytes(range(100))
    entries = b""
    for tag, value in sorted(given.items()):
        kind, count, stored = value if isinstance(value, tuple) else (4, 1, value)
        entries += struct.pack("<HHII", tag, kind, count, stored)
    head = b"II*\0" + struct.pack("<I", 8 + len(pixels))
    return head + pixels + struct.pack("<H", len(given)) + entries + bytes(4)


def test_the_plain_tiff_of_these_tests_is_sound() -> None:
    expected = np.arange(100).reshape(10, 10)
    np.testing.assert_array_equal(np.asarray(decode(tiff(), LIMIT))[..., 0], expected)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"t256": 60_000, "t257": 60_000}, "too many pixels: 60000x60000"),
        # A tile of gigabytes for a picture of a hundred pixels.
        ({"t273": (4, 0, 0), "t322": 60_000, "t323": 60_000, "t324": 8}, "too many pixels: 10x10"),
        ({"t273": (4, 200_000, 8)}, "too many pixels: 10x10 counts for"),
        ({"t259": 34_925}, "unsupported image: compression 34925"),
        ({"t259": 6}, "unsupported image: compression 6"),
        # Places and sizes of strips as bytes: the fuzz found them.
        ({"t259": 7, "t273": (1, 4, 8), "t279": (1, 4, 9)}, "corrupt image: the strips or tiles"),
        ({"t65000": (3, 2_000_000, 8)}, "corrupt image: tag 65000"),
        ({"t256": 0}, "corrupt image: the TIFF says no size"),
        ({"t273": (4, 0, 0)}, "corrupt image: the TIFF has neither strips nor tiles"),
    ],
)
def test_what_a_tiff_asks_for_is_refused(
    tags: dict[str, int | tuple[int, int, int]], words: str, no_decoder: None
) -> None:
    assert reason(tiff(**tags)).startswith(words)


def test_a_tiff_of_endless_tags_is_corrupt(no_decoder: None) -> None:
    data = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 40)
    assert reason(data).startswith("corrupt image: the TIFF has 1,099,511,627,776 tags")


def test_scans_in_a_tiff_are_counted(no_decoder: None) -> None:
    plain = encoded(picture(), "TIFF", compression="jpeg")
    assert read_claim(plain).cost == 1
    at = plain.index(b"\xff\xda")
    assert read_claim(plain[: at + 2] + b"\xff\xda" * 200 + plain[at + 402 :]).cost > 10


def test_a_long_chain_of_pictures_is_not_walked() -> None:
    first = tiff()
    chain = first
    for _ in range(2000):  # each points at the next
        chain = chain[:-4] + struct.pack("<I", len(chain)) + first[108:]
    assert decode(chain, LIMIT).size == (10, 10)


# --- sound pictures with much beside their pixels --------------------------------------------


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(3_000_000)))],
        [chunk(b"iCCP", b"profile\0\0" + np.random.default_rng(0).bytes(3_000_000))],
        [chunk(b"tEXt", b"Comment\0" + b"word " * 400_000)],
        [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"word " * 400_000))],
        [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(80_000_000)))],
        [chunk(b"tEXt", b"Comment\0word")] * 20_000,
        [chunk(b"eXIf", bytes(1_000_000))],
        [chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>"), chunk(b"zTXt", b"broken")],
    ],
    ids=["profile", "broken profile", "text", "packed text", "xmp bomb", "texts", "exif", "broken"],
)
def test_profiles_and_texts_do_not_spoil_a_png(chunks: list[bytes]) -> None:
    np.testing.assert_array_equal(np.asarray(decode(png_with(*chunks), LIMIT)), picture())


@pytest.mark.parametrize("packed", [False, True])
def test_an_orientation_in_the_texts_of_a_png_is_kept(packed: bool) -> None:
    xmp = b'<rdf tiff:Orientation="6"/>'
    body = (b"\1\0\0\0" + zlib.compress(xmp)) if packed else (b"\0\0\0\0" + xmp)
    data = png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0" + body))
    np.testing.assert_array_equal(np.asarray(decode(data, LIMIT)), np.rot90(picture(), -1))


def test_an_animated_png_gives_the_picture_that_all_programs_show() -> None:
    frames = [picture(seed=seed) for seed in range(3)]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(np.asarray(decode(data, LIMIT)), frames[0])


# --- modes -----------------------------------------------------------------------------------

DEEP = np.arange(60 * 40, dtype=np.uint32).reshape(40, 60)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG2000", "PPM"])
@pytest.mark.parametrize("largest", [200, 255, 256, 65_535])
def test_16_bit_gray_is_scaled_by_its_mode_and_not_by_its_values(form: str, largest: int) -> None:
    values = (DEEP * largest // DEEP.max()).astype(np.uint16)
    decoded = np.asarray(decode(encoded(Image.fromarray(values), form), LIMIT))
    for channel in range(3):
        np.testing.assert_array_equal(decoded[..., channel], values // 256)


def test_32_bit_gray_is_taken_as_16_bits() -> None:
    values = DEEP.astype(np.int32) * 60 - 1000
    decoded = np.asarray(decode(encoded(Image.fromarray(values), "TIFF"), LIMIT))
    np.testing.assert_array_equal(decoded[..., 1], np.clip(values, 0, 65_535) // 256)


def test_floating_point_gray_is_taken_as_8_bits() -> None:
    values = DEEP.astype(np.float32) / 4 - 50
    decoded = np.asarray(decode(encoded(Image.fromarray(values), "TIFF"), LIMIT)).astype(int)
    assert np.abs(decoded[..., 2] - np.clip(values, 0, 255)).max() <= 1


@pytest.mark.parametrize(("mode", "form"), [("LA", "TIFF"), ("LA", "PNG"), ("PA", "TIFF")])
def test_transparency_of_gray_and_palettes_is_dropped(mode: str, form: str) -> None:
    image = picture().convert("L")
    expected = np.asarray(image)
    if mode == "PA":
        image = picture().quantize(16)
        expected = np.asarray(image.convert("RGB"))[..., 0]
    image = image.convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    decoded = np.asarray(decode(encoded(image, form), LIMIT))
    np.testing.assert_array_equal(decoded[..., 0], expected)


def test_inks_are_taken_from_white() -> None:
    inks = np.stack([DEEP % 200, DEEP % 97, DEEP % 53, DEEP % 31], axis=-1).astype(np.uint8)
    decoded = np.asarray(decode(encoded(Image.fromarray(inks, "CMYK"), "TIFF"), LIMIT)).astype(int)
    wide = inks.astype(int)
    expected = (255 - wide[..., :3]) * (255 - wide[..., 3:]) / 255
    assert np.abs(decoded - expected).max() <= 1
