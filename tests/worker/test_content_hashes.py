"""Hashes of the files that rows name, and rows whose files have to be those that were hashed."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pytest

from ember.worker.content_hashes import with_hashes
from ember.worker.row_paths import UNKNOWN, PathRules
from ember.worker.rows import RowError


def test_a_file_is_hashed_and_has_to_be_the_same_when_it_is_read(tmp_path):
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "large").write_bytes(b"123456")
    rules = PathRules((str(tmp_path),))
    batch = pa.record_batch({"id": [1, 2, 3, 4], "c": ["one", "gone", None, "large"]})
    (found,) = with_hashes([batch], rules, 5)
    one = hashlib.sha256(b"1").hexdigest()
    assert found.to_pydict() == {**batch.to_pydict(), "hash": [one, None, None, None]}

    hashed = PathRules(rules.roots, hashed=True)
    assert hashed.read(f"{one} one".encode(), 5) == b"1"
    for said, reason in [
        (f"{UNKNOWN} one", "changed during the run: one"),
        (f"{UNKNOWN} gone", "file not found: gone"),
        (f"{one} large", "too many bytes"),
        (f"{one} ", "empty content"),
        (f"{one} ../one", "path not allowed"),
    ]:
        with pytest.raises(RowError, match=reason):
            hashed.read(said.encode(), 5)
    (tmp_path / "one").write_bytes(b"2")
    with pytest.raises(RowError, match="changed during the run"):
        hashed.read(f"{one} one".encode(), 5)
    with pytest.raises(RowError, match="null content"):
        hashed.read(None, 5)
