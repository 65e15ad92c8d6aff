"""Hashes of the files that rows name, which are read for them on the workers, side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa

from ember.worker.row_paths import PathRules
from ember.worker.rows import RowError, raw_values

__all__ = ["with_hashes"]

# Files that are read at a time: what takes long is waiting for a disk or a store.
_READERS = 8


def with_hashes(
    batches: Iterable[pa.RecordBatch], paths: PathRules, max_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Batches (id, path, …) with one more column, the SHA-256 of each file's bytes in hex.

    It is null where the path is, and where the file cannot be read as a row's content.
    """
    with ThreadPoolExecutor(_READERS, "ember-hash") as pool:
        for batch in batches:
            found = pool.map(partial(_hash, paths, max_bytes), raw_values(batch.column(1)))
            hashes = pa.array(list(found), pa.string())
            names = [*batch.schema.names, "hash"]
            yield pa.RecordBatch.from_arrays([*batch.columns, hashes], names=names)


def _hash(paths: PathRules, max_bytes: int, raw: bytes | None) -> str | None:
    try:
        return hashlib.sha256(paths.read(raw, max_bytes)).hexdigest()
    except RowError:
        return None
