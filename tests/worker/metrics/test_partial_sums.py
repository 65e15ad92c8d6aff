"""Sums of tasks, merged, whatever the partitions: without Spark, which only moves the records."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ember.worker.metrics.classes import ClassSums
from ember.worker.metrics.partial_sums import add_rows, judge_groups, merge_records, record, unpack
from ember.worker.metrics.sums import ALL
from ember.worker.metrics.weights import GROUPS, column_weights

NAMES = ["ant", "bee", "cat"]
REPLICATES = 7


def rows(n=300):
    rng = np.random.default_rng(2)
    truth, answer = rng.integers(0, 3, (2, n))
    return pa.RecordBatch.from_pydict(
        {
            "key": pa.array(rng.integers(-(2**62), 2**62, n)),
            "truth": pa.array([NAMES[each] for each in truth]),
            "answer": pa.array([NAMES[each] if each else None for each in answer]),
            "score": pa.array(rng.random(n)),
            "place": pa.array(((truth == answer) & (answer > 0)).astype(np.int32)),
            "slice_0": pa.array([f"g={each}" for each in rng.integers(0, 2, n)]),
        }
    )


def merged(parts, chunk_rows, groups=0):
    rule = ClassSums(pa.array(NAMES), (1,), 5)
    run = add_rows(rule.add, ["slice_0"], REPLICATES, chunk_rows, groups)
    records = pa.Table.from_batches([batch for part in parts for batch in run([part])])
    keys = [(name, "ascending") for name in ("section", "slice", "item")]
    ordered = records.sort_by(keys).to_batches(max_chunksize=3)
    return pa.Table.from_batches(merge_records(REPLICATES, groups)(ordered)).sort_by(keys)


@pytest.mark.parametrize(("count", "chunk_rows"), [(1, 64), (7, 2048)])
def test_partitions_and_chunks_do_not_show(count, chunk_rows):
    whole = rows()
    size = -(-whole.num_rows // count)
    parts = [whole.slice(start, size) for start in range(0, whole.num_rows, size)]
    assert merged(parts, chunk_rows).equals(merged([whole], 2048))


def test_counts_of_the_sample_are_those_of_the_rows():
    whole = rows()
    found = {
        (row["section"], row["slice"], row["item"]): row["sums"]
        for row in merged([whole], 100).to_pylist()
    }
    columns = (whole.column(name).to_pylist() for name in ("truth", "answer"))
    truth, answer = (np.array(column, object) for column in columns)
    total = unpack(found["total", ALL, 0], REPLICATES)[:, 0]
    right = int((truth == answer).sum())
    assert total.tolist() == [300, 300 - whole.column("answer").null_count, 0, right, right]
    of_bee = np.frombuffer(found["class", ALL, 1], np.float64)[:3]
    expected = [((truth == "bee") & (answer == "bee")).sum(), (truth == "bee").sum()]
    assert of_bee.tolist() == [*expected, (answer == "bee").sum()]


def test_what_is_left_without_a_group_of_rows_is_what_its_rows_lack():
    whole = rows()
    keys = whole.column("key").to_numpy()
    left = column_weights(keys, range(8, 8 + GROUPS), REPLICATES).astype(bool)
    found, alone = (
        {
            (row["section"], row["slice"], row["item"]): row["sums"]
            for row in merged([part], 100, groups).to_pylist()
            if row["section"] != "class"
        }
        for part, groups in ((whole, GROUPS), (whole.filter(pa.array(left[:, 3])), 0))
    )
    assert found.keys() == alone.keys()
    for key, packed in found.items():
        without = unpack(packed, REPLICATES, GROUPS)[:, 1 + REPLICATES + 3]
        np.testing.assert_array_equal(without, unpack(alone[key], REPLICATES)[:, 0])


def test_a_group_is_seen_whole_though_it_comes_in_several_batches():
    table = pa.table({"slice": ["a", "a", "a", "b", "c", "c"], "n": [1, 2, 3, 4, 5, 6]})
    seen = []

    def judge(key, found, sums):
        seen.append((*key, found.column("n").to_pylist()))
        yield record("figures", key[0], 0, np.zeros(1, np.int64))

    records = list(judge_groups(judge, ["slice"], 0)(table.to_batches(max_chunksize=2)))
    assert seen == [("a", [1, 2, 3]), ("b", [4]), ("c", [5, 6])]
    assert [batch.column("slice")[0].as_py() for batch in records] == ["a", "b", "c"]
