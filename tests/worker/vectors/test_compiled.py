"""Compiled code that is kept between processes, and when it is made anew."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import ember

# Of a kernel in loops.py that reads a constant of bounds.py and calls a function of scores.py.
CALL = """
from ember.worker.vectors.loops import _bounded, _tie_floor
print(_bounded(0.0, 1.0, 1.0, 1, 0.0)[1], _tie_floor(0.0))
print(sum(_bounded.stats.cache_hits.values()), sum(_tie_floor.stats.cache_hits.values()))
"""


def test_an_edited_constant_of_another_module_is_compiled_anew(tmp_path: Path) -> None:
    package = tmp_path / "ember"
    shutil.copytree(
        Path(ember.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")

    def run() -> list[str]:
        command = [sys.executable, "-c", CALL]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    before, hits = run()
    assert hits == "0 0"
    assert run() == [before, "1 1"]
    assert before == "1e-37 -1e-37"

    bounds = package / "worker/vectors/bounds.py"
    edited = bounds.read_text("utf-8").replace("TINY = 1e-37", "TINY = 1e-30")
    bounds.write_text(edited, "utf-8")
    assert run() == ["1e-30 -1e-30", "0 0"]
