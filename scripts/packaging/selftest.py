"""Unpack an environment somewhere else and have it embed ten rows, with nothing of this machine.

    .venv/bin/python scripts/packaging/selftest.py VARIANT ARCHIVE

The model is a tiny one with random weights. .venv embeds the same rows, and the vectors have to be
equal. Then `embed_rows.py` looks at what the process has loaded: nothing but the archive and the
system's own libraries.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from converted import as_run_by  # noqa: E402
from corpora import assert_close, picture  # noqa: E402
from ember.worker.task import embed_batches  # noqa: E402
from tiny_models import spec_of, tiny_bert, tiny_resnet  # noqa: E402

ROWS = 10


def main(variant: str, archive: str) -> int:
    with tempfile.TemporaryDirectory(prefix="ember selftest ") as folder:  # spaces are a trial, too
        here = Path(folder)
        environment = here / "unpacked"
        environment.mkdir()
        subprocess.run(["tar", "-xzf", archive, "-C", str(environment)], check=True)
        links = [e for e in environment.rglob("*") if e.is_symlink() and not inside(e, environment)]
        if links:
            return failed(f"{links[0]} is a link that leads out of the archive")
        runtime = "openvino" if variant == "cpu" else "torch"
        work = {"image": images(here, runtime), "text": texts(here, runtime)}
        (here / "work").write_bytes(pickle.dumps({key: both[:2] for key, both in work.items()}))
        program = ROOT / "scripts" / "packaging" / "embed_rows.py"
        done = subprocess.run(
            [environment / "bin" / "python", "-I", program, here / "work", environment],
            env={"PATH": "", "HOME": str(here)},
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return failed(f"the environment does not run:\n{done.stderr}")
        told = json.loads(done.stdout.splitlines()[-1])
        for kind, (_, _, expected) in work.items():
            for ours, theirs in zip(told["vectors"][kind], expected, strict=True):
                assert_close(np.asarray(ours, np.float32), theirs)
        if told["strangers"]:
            return failed(f"it loads what is not in it: {', '.join(told['strangers'])}")
    print(f"package: {archive} embeds {ROWS} images and {ROWS} texts elsewhere, in {runtime}")
    return 0


def failed(message: str) -> int:
    print(f"package: {message}", file=sys.stderr)
    return 1


def inside(link: Path, root: Path) -> bool:
    return not link.readlink().is_absolute() and link.resolve().is_relative_to(root.resolve())


def images(here: Path, runtime: str):
    (here / "resnet").mkdir()
    spec = as_run_by(runtime, spec_of(tiny_resnet(here / "resnet")), here / "images")
    return spec, *embedded(spec, [picture(number) for number in range(ROWS)])


def texts(here: Path, runtime: str):
    (here / "bert").mkdir()
    rows = [f"a small cat sat on {number} mats" for number in range(ROWS)]
    spec = as_run_by(runtime, spec_of(tiny_bert(here / "bert")), here / "texts")
    return spec, *embedded(spec, rows)


def embedded(spec, contents):
    """The rows as IPC bytes, and their vectors as .venv computes them."""
    batch = pa.record_batch({"id": pa.array(range(len(contents))), "content": contents})
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, batch.schema) as writer:
        writer.write_batch(batch)
    table = pa.Table.from_batches(embed_batches([batch], spec))
    vectors = [np.asarray(each, np.float32) for each in table["embedding"].to_pylist()]
    return stream.getvalue().to_pybytes(), vectors


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
