"""Run by the packed Python (see selftest.py): embed rows, say what was loaded from elsewhere."""

from __future__ import annotations

import bz2  # noqa: F401
import ctypes  # noqa: F401
import json
import lzma  # noqa: F401
import pickle
import re
import ssl  # noqa: F401
import sys
import zlib  # noqa: F401
from pathlib import Path

import pyarrow as pa

from ember.worker.task import embed_batches

SYSTEM = re.compile(
    r"/(?:usr/)?lib(?:64)?/.*\b(ld-linux|libc|libm|libdl|libpthread|librt|libutil|libresolv|"
    r"libstdc\+\+|libgcc_s)(?=[-.])[^/]*$|/(?:usr/)?lib/locale/|/(?:usr/)?lib.*/gconv/"
)


def main(work: str, environment: str) -> None:
    vectors = {}
    for kind, (spec, rows) in pickle.loads(Path(work).read_bytes()).items():
        table = pa.Table.from_batches(embed_batches(pa.ipc.open_stream(rows), spec))
        if set(table["status"].to_pylist()) != {"ok"}:
            raise SystemExit(f"{kind}: {table['error'].to_pylist()}")
        vectors[kind] = table["embedding"].to_pylist()
    import numba  # noqa: F401  # what comparisons take
    import pandas  # noqa: F401  # what Spark's workers take
    import sklearn  # noqa: F401

    root = Path(environment).resolve()
    lines = Path("/proc/self/maps").read_text("utf-8").splitlines()
    loaded = {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}
    loaded = {each for each in loaded if re.search(r"\.so\b|/bin/", each)} | {
        *filter(None, sys.path)
    }
    strangers = sorted(
        each
        for each in loaded
        if not Path(each).resolve().is_relative_to(root)
        and not SYSTEM.match(each)
        and each != str(Path(__file__).parent)
    )
    print(json.dumps({"vectors": vectors, "strangers": strangers}))


main(*sys.argv[1:])
