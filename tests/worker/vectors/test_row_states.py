"""States of rows: they tell whether a row has changed, and why it cannot be compared."""

from __future__ import annotations

import pyarrow as pa
import pytest

from ember.worker.vectors.row_states import row_states

FLOAT = pa.float32()


def states(vectors, groups=None, kind=FLOAT, metric="cosine"):
    columns = {"id": list(range(len(vectors))), "embedding": pa.array(vectors, pa.list_(kind))}
    if groups is not None:
        columns["group"] = pa.array(groups, pa.string())
    batch = pa.RecordBatch.from_pydict(columns)
    found = row_states([batch], metric, exact=kind == pa.float64())
    rows = {row["id"]: row for each in found for row in each.to_pylist()}
    assert sorted(rows) == list(range(len(vectors)))
    return [rows[number] for number in range(len(vectors))]


def hashes(found):
    return [(row["high"], row["low"]) for row in found]


def test_a_hash_is_that_of_the_vector_and_its_group_in_any_company():
    found = hashes(states([[1, 2], [1, 2], [2, 1], [1, 2, 0]], ["a", "b", "a", "a"]))
    assert len(set(found)) == 4
    assert hashes(states([[3, 4], [1, 2]], ["c", "b"]))[1] == found[1]
    assert hashes(states([[1, 2]]))[0] not in found
    assert len({*hashes(states([[0.1]])), *hashes(states([[0.1]], kind=pa.float64()))}) == 2


def test_what_cannot_be_compared_has_its_reason_and_what_has_no_group_none():
    rows = [[1, 2], None, [0, 0], [float("nan"), 1], [1, None], [], [1, 2]]
    found = states(rows, [*"aaaaaa", None])
    reasons = [row["reason"] for row in found]
    assert (
        reasons
        == [None, "null embedding", "zero norm", "not finite", "null embedding"] + [None] * 2
    )
    assert [row["length"] for row in found] == [2, -1, 2, 2, 2, 0, 2]
    assert [row["apart"] for row in found] == [False] * 6 + [True]
    assert [row["reason"] for row in states(rows, metric="inner_product")][2] is None


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_a_vector_in_the_middle_of_a_batch_is_its_own(kind):
    rows = [None, [1, 2], [0, 0], [3, 4]]
    found = hashes(states(rows, kind=kind))
    assert found[1] == hashes(states([[1, 2]], kind=kind))[0]
    assert found[3] == hashes(states([[3, 4]], kind=kind))[0]
