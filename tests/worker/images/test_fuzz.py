"""A short, seeded part of scripts/bench/fuzz_images.py, and the files that it found."""

from __future__ import annotations

import importlib.util
import struct
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ember.worker.images.decoding import decode
from ember.worker.rows import RowError

SCRIPT = Path(__file__).parents[3] / "scripts" / "bench" / "fuzz_images.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_images", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_images"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged files
def test_damaged_files_of_every_format_raise_nothing_but_row_errors(fuzz: ModuleType) -> None:
    kinds = fuzz.seeds()
    for data in kinds.values():
        decode(data, fuzz.MAX_PIXELS)
    outcomes = set()
    for number in range(600):
        _, data = fuzz.damaged(kinds, 7, number)
        try:
            outcomes.add(decode(data, fuzz.MAX_PIXELS).mode)
        except RowError as error:
            outcomes.add(str(error).split(":")[0])
    assert outcomes >= {"RGB", "truncated image", "corrupt image", "not an image"}


FOUND = {
    "a directory of BigTIFF beyond all memory": b"II+\0\x08\0\0\0" + struct.pack("<Q", 1 << 63),
    "a tag of BigTIFF beyond all memory": b"II+\0\x08\0\0\0"
    + struct.pack("<QQHHQQQ", 16, 1, 256, 16, 2, 1 << 63, 0),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_the_fuzz_found_is_a_row_error(name: str) -> None:
    with pytest.raises(RowError):
        decode(FOUND[name], 10**6)
