"""What only a classic session has: files that are sent to executors for a while."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ember.spark import classic


def sent(spark) -> set[str]:
    return {uri.rpartition("/")[2] for uri in spark.sparkContext.listFiles}


def fail(_: None) -> None:
    raise FileNotFoundError


def test_files_of_a_folder_that_are_lent_are_asked_for_until_the_block_ends(spark, tmp_path):
    """Whichever thread sends them. An executor that comes later would fail on one that is gone."""
    folder = f"file:{tmp_path}/attempt"
    (tmp_path / "attempt").mkdir()
    for name in ("theirs", "attempt/ours-1", "attempt/ours-2", "other"):
        (tmp_path / name).write_text(name)
    spark.sparkContext.addFile(str(tmp_path / "theirs"))
    with classic.files_lent(spark, folder), ThreadPoolExecutor(1) as pool:
        pool.submit(classic.send_file, spark, f"{folder}/ours-1").result()
        classic.send_file(spark, f"file:{tmp_path}/other")  # of a session's own, to stay
        assert {"theirs", "ours-1", "other"} <= sent(spark)
    assert {"theirs", "other"} <= sent(spark)
    assert "ours-1" not in sent(spark)
    with pytest.raises(FileNotFoundError), classic.files_lent(spark, folder):
        fail(classic.send_file(spark, f"{folder}/ours-2"))
    assert "ours-2" not in sent(spark)
