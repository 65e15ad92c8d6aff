"""What only a classic session has: files that are sent to executors for a while."""

from __future__ import annotations

import pytest

from ember.spark import classic


def sent(spark) -> set[str]:
    return {uri.rpartition("/")[2] for uri in spark.sparkContext.listFiles}


def fail(_: None) -> None:
    raise FileNotFoundError


def test_files_that_are_lent_are_asked_for_until_the_block_ends(spark, tmp_path):
    """An executor that comes later would fail on one that is gone; others' files stay."""
    for name in ("theirs", "ours-1", "ours-2"):
        (tmp_path / name).write_text(name)
    spark.sparkContext.addFile(str(tmp_path / "theirs"))
    with classic.files_lent(spark):
        classic.send_file(spark, f"file:{tmp_path}/ours-1")
        assert {"theirs", "ours-1"} <= sent(spark)
    assert "theirs" in sent(spark)
    assert "ours-1" not in sent(spark)
    with pytest.raises(FileNotFoundError), classic.files_lent(spark):
        fail(classic.send_file(spark, f"file:{tmp_path}/ours-2"))
    assert "ours-2" not in sent(spark)
    classic.send_file(spark, f"file:{tmp_path}/ours-1")  # by a session's own, to stay
    assert "ours-1" in sent(spark)
