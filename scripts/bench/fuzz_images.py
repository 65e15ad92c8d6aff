"""Decode damaged pictures of every format, and report crashes and rows over their budget.

    .venv/bin/python scripts/bench/fuzz_images.py --minutes 30 --keep findings

Each case is made from a seed and its number, and decoded in a child process under RLIMIT_AS and a
timer. A finding is a death of the child, an exception other than RowError, or more time or memory
than a row of so many pixels may take (see docs/security.md). Findings go to the folder `--keep`;
`--replay FILE …` decodes files again.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import signal
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ember.worker.images.decoding import decode
from ember.worker.images.headers import read_claim
from ember.worker.rows import RowError

MAX_PIXELS = 2_000_000
# Of a row of so many pixels: documented are 16 bytes and 0.1 microseconds a pixel; the rest is room
# for Python, and for a machine that does other things as well.
SECONDS = 2.0
MEGABYTES = 16 * MAX_PIXELS / 1e6 + 32
_BATCH = 200
_NUMBERS = (0, 1, 2, 3, 16, 127, 128, 255, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF)


def seeds() -> dict[str, bytes]:
    """A sound picture for each way in which a format stores one."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(24), np.arange(32))[..., None] * [3, 4, 5]
    image = Image.fromarray((smooth + rng.integers(0, 9, smooth.shape)).astype(np.uint8))
    gray, palette = image.convert("L"), image.quantize(16)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 200)
    both = {"save_all": True, "append_images": [image.transpose(Image.Transpose.ROTATE_180)]}
    exif = Image.Exif()
    exif[0x0112] = 6
    ways: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "jpeg": (image, "JPEG", {"exif": exif, "comment": b"a word"}),
        "jpeg progressive": (image, "JPEG", {"progressive": True}),
        "jpeg cmyk": (image.convert("CMYK"), "JPEG", {"progressive": True}),
        "mpo": (image, "MPO", both),
        "png": (image, "PNG", {"exif": exif, "icc_profile": bytes(200)}),
        "png 16": (deep, "PNG", {}),
        "png palette": (palette, "PNG", {"transparency": bytes(range(16))}),
        "apng": (image, "PNG", both),
        "gif": (palette, "GIF", {"comment": b"a word"}),
        "gif animated": (palette, "GIF", {"save_all": True, "append_images": [palette.rotate(9)]}),
        "webp": (image, "WEBP", {"exif": exif}),
        "webp lossless": (image.convert("RGBA"), "WEBP", {"lossless": True}),
        "webp animated": (image, "WEBP", both),
        "tiff": (image, "TIFF", {"exif": exif}),
        "tiff 16": (deep, "TIFF", {}),
        "tiff big": (image, "TIFF", {"big_tiff": True}),
        "bmp": (image, "BMP", {}),
        "bmp palette": (palette, "BMP", {}),
        "ppm": (image, "PPM", {}),
        "pgm 16": (deep, "PPM", {}),
        "avif": (image.convert("RGBA"), "AVIF", {"speed": 10, "exif": exif}),
        "avif animated": (image, "AVIF", {"speed": 10, **both}),
        "jp2": (image, "JPEG2000", {}),
        "j2k": (image, "JPEG2000", {"no_jp2": True, "tile_size": (16, 16)}),
    }
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        ways[f"tiff {name}"] = (image, "TIFF", {"compression": name})
    ways["tiff group4"] = (image.convert("1"), "TIFF", {"compression": "group4"})
    made = {name: _encoded(*way) for name, way in ways.items()}
    made["ppm plain"] = b"P3 # words\n4 3\n255\n" + b"1 22 255\n" * 12
    made["bmp run lengths"] = _run_lengths(made["bmp palette"])
    return made


def _encoded(image: Image.Image, form: str, options: dict[str, object]) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _run_lengths(bmp: bytes) -> bytes:
    (start,) = struct.unpack_from("<I", bmp, 10)
    header = bytearray(bmp[:start])
    struct.pack_into("<I", header, 30, 1)
    return bytes(header) + b"\x20\x07\0\0" * 24 + b"\0\1"


def damaged(kinds: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """Case `number`: the name of what it was made from, and the bytes."""
    rng = np.random.default_rng([seed, number])
    names = list(kinds)
    name = names[rng.integers(len(names))]
    data = bytearray(kinds[name])
    for _ in range(rng.integers(1, 6)):
        _damage(data, rng, kinds[names[rng.integers(len(names))]])
    if data.startswith(b"\x89PNG") and rng.random() < 0.8:
        _mend_png(data)
    return name, bytes(data)


def _damage(data: bytearray, rng: np.random.Generator, other: bytes) -> None:
    size = len(data)
    # Headers decide most; half of the damage is done to the first bytes.
    place = int(rng.integers(size if rng.random() < 0.5 else min(size, 200))) if size else 0
    length = int(rng.integers(1, 40))
    how = rng.integers(7)
    if how == 0:
        data[place : place + 1] = bytes([int(rng.integers(256))])
    elif how == 1:  # a number that is at an end of its range
        width, order = int(rng.choice([1, 2, 4])), str(rng.choice(["<", ">"]))
        value = int(rng.choice(_NUMBERS)) & (1 << 8 * width) - 1
        form = order + {1: "B", 2: "H", 4: "I"}[width]
        data[place : place + width] = struct.pack(form, value)
    elif how == 2:
        del data[place : place + length]
    elif how == 3:  # a piece several times
        data[place:place] = data[place : place + length] * int(rng.integers(1, 200))
    elif how == 4:
        start = int(rng.integers(len(other)))
        data[place : place + length] = other[start : start + length]
    elif how == 5:
        del data[place:]
    else:
        for at in rng.integers(0, max(1, size), 4):
            data[at : at + 1] = bytes([int(rng.integers(256))])


def _mend_png(data: bytearray) -> None:
    """Right checksums, without which Pillow reads no further than the damage."""
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[position + 4 : end]))
        position = end + 4


@dataclass(frozen=True)
class Outcome:
    """What came of one case: "" or the reason why it is a finding, seconds, megabytes."""

    problem: str
    seconds: float
    megabytes: float


def judge(data: bytes) -> Outcome:
    """Decode in this process and see what it took."""
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak begins here
    begun = time.process_time()
    problem = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = decode(data, MAX_PIXELS)
        if image.mode != "RGB" or image.width * image.height > MAX_PIXELS:
            problem = f"{image.mode} of {image.size}"
    except RowError:
        pass
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - begun
    megabytes = (_memory("VmHWM") - before) / 1e6
    if not problem and seconds > SECONDS:
        problem = f"{seconds:.1f} s"
    if not problem and megabytes > MEGABYTES + 4 * len(data) / 1e6:
        problem = f"{megabytes:.0f} MB"
    return Outcome(problem, seconds, megabytes)


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def run_batch(cases: list[bytes]) -> Iterator[Outcome]:
    """Judge cases in a child; one that dies is a finding, and another goes on after it."""
    done = 0
    while done < len(cases):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _judge_all(cases[done:], writing)
        os.close(writing)
        with os.fdopen(reading, "r", encoding="utf-8") as stream:
            for line in stream:
                seconds, megabytes, problem = line.rstrip("\n").split(" ", 2)
                yield Outcome(problem, float(seconds), float(megabytes))
                done += 1
        _, status = os.waitpid(child, 0)
        if status:
            code = os.waitstatus_to_exitcode(status)
            yield Outcome(f"the process ended with {code}", 0.0, 0.0)
            done += 1


def _judge_all(cases: list[bytes], writing: int) -> None:
    limit = int(_memory("VmSize") + 8 * MEGABYTES * 1e6)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for data in cases:
        signal.alarm(int(20 * SECONDS))  # ends the process
        outcome = judge(data)
        problem = " ".join(outcome.problem.split())
        os.write(writing, f"{outcome.seconds} {outcome.megabytes} {problem}\n".encode())
    os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("findings"))
    parser.add_argument("--replay", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    for file in given.replay:
        (outcome,) = run_batch([file.read_bytes()])
        print(file, outcome, _claim(file.read_bytes()))
    if given.replay:
        return 0
    kinds = seeds()
    end = time.monotonic() + 60 * given.minutes
    number = decoded = 0
    slowest = largest = 0.0
    findings: set[str] = set()
    while time.monotonic() < end:
        batch = [damaged(kinds, given.seed, number + each) for each in range(_BATCH)]
        for (name, data), outcome in zip(
            batch, run_batch([each[1] for each in batch]), strict=True
        ):
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.megabytes)
            decoded += 1
            if outcome.problem:
                findings.add(f"{name}: {outcome.problem}")
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / f"{given.seed}-{number + decoded % _BATCH}-{name}").write_bytes(data)
                print(f"{decoded} {name}: {outcome.problem}", flush=True)
        number += _BATCH
    print(
        f"{decoded} cases, {len(findings)} kinds of findings, slowest {slowest:.2f} s, most memory "
        f"{largest:.0f} MB"
    )
    return 1 if findings else 0


def _claim(data: bytes) -> str:
    try:
        found = read_claim(data)
    except RowError as error:
        return str(error)
    return f"{found.format} {found.width}x{found.height}, cost {found.cost:.2f}"


if __name__ == "__main__":
    sys.exit(main())
