"""Links within buckets against all pairs: the same groups, the best neighbor, never many links."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.worker.duplicates.links import Hashes, ShingleSets, best_copies, bucket_links, links

FEW_BITS = st.lists(st.integers(0, 255), min_size=1, max_size=24)
SETS = st.lists(st.sets(st.integers(-5, 5), min_size=1), min_size=1, max_size=16)


def hashes(values: list[int]) -> Hashes:
    return Hashes(pa.array(values, pa.int64()))


def sets(values: list[set[int]]) -> ShingleSets:
    return ShingleSets(pa.array([sorted(each) for each in values], pa.list_(pa.int64())))


def bits_alike(one: int, other: int) -> float:
    return 1 - (one ^ other).bit_count() / 64


def jaccard(one: set[int], other: set[int]) -> float:
    return len(one & other) / len(one | other)


def components(count: int, pairs: Iterator[tuple[int, int]] | list[tuple[int, int]]) -> list[int]:
    """The smallest row of each row's group, by repeated relabeling."""
    group = list(range(count))
    for left, right in pairs:
        old, new = sorted((group[left], group[right]), reverse=True)
        group = [new if each == old else each for each in group]
    return group


def check_links(rows, values, similarity, threshold) -> None:
    count = len(values)
    left, right, score = links(rows, 0, count, threshold)
    every = [
        (one, other)
        for one, other in combinations(range(count), 2)
        if similarity(values[one], values[other]) >= threshold
    ]
    found = list(zip(left.tolist(), right.tolist(), strict=True))
    assert set(found) <= set(every)
    assert len(found) <= 2 * count
    for (one, other), told in zip(found, score.tolist(), strict=True):
        assert told == pytest.approx(similarity(values[one], values[other]))
    assert components(count, found) == components(count, every)
    for row in range(count):
        better = [one for one, other in every if other == row]
        if better:  # the first before it is among its links
            assert (min(better), row) in found


@given(FEW_BITS, st.integers(0, 4))
def test_links_of_hashes_make_the_groups_that_all_pairs_make(values, distance):
    check_links(hashes(values), values, bits_alike, 1 - distance / 64)


@given(SETS, st.sampled_from([0.2, 0.5, 0.7, 1.0]))
def test_links_of_shingles_make_the_groups_that_all_pairs_make(values, threshold):
    check_links(sets(values), values, jaccard, threshold)


def test_a_bucket_of_rows_that_are_all_near_has_a_link_for_each():
    class Counted(Hashes):
        compared = 0

        def scores(self, row, others):
            Counted.compared += len(others)
            return super().scores(row, others)

    values = pa.array(np.random.default_rng(0).integers(0, 2, 100_000), pa.int64())
    left, right, _ = links(Counted(values), 0, len(values), 1 - 1 / 64)
    assert set(left.tolist()) == {0}
    assert right.tolist() == list(range(1, 100_000))
    assert Counted.compared == 99_999


@given(FEW_BITS, FEW_BITS, st.integers(0, 4))
def test_each_row_has_the_most_similar_copy_of_the_other_table(own, others, distance):
    threshold = 1 - distance / 64
    left, right, score = best_copies(
        hashes(own + others), 0, len(own), len(own) + len(others), threshold
    )
    expected = []
    for row, value in enumerate(own):
        alike = [bits_alike(value, other) for other in others]
        if max(alike) >= threshold:  # of equal ones the first
            expected.append((row, len(own) + alike.index(max(alike)), max(alike)))
    assert list(zip(left.tolist(), right.tolist(), score.tolist(), strict=True)) == expected


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 7)), max_size=30),
    st.lists(st.integers(0, 30), max_size=5),
)
def test_buckets_are_whole_however_their_rows_come_in_batches(rows, cuts):
    rows = sorted(rows)
    keys, values = [key for key, _ in rows], [value for _, value in rows]
    whole = pa.RecordBatch.from_pydict(
        {
            "key": pa.array(keys, pa.int64()),
            "id": [f"i{number}" for number in range(len(rows))],
            "hash": pa.array(values, pa.int64()),
        }
    )
    ends = sorted(min(cut, len(rows)) for cut in cuts)
    batches = [
        whole.slice(start, end - start)
        for start, end in zip([0, *ends], [*ends, len(rows)], strict=True)
    ]
    names = {"left_id": pa.string(), "right_id": pa.string(), "score": pa.float32()}
    found = pa.Table.from_batches(
        bucket_links(batches, 1 - 1 / 64, against=False),
        pa.schema([*names.items(), ("key", pa.int64())]),
    )
    expected = set()
    for key in set(keys):
        first, count = keys.index(key), keys.count(key)
        left, right, _ = links(hashes(values), first, first + count, 1 - 1 / 64)
        pairs = zip(left.tolist(), right.tolist(), strict=True)
        expected |= {(f"i{a}", f"i{b}", key) for a, b in pairs}
    columns = ("left_id", "right_id", "key")
    assert {tuple(row[c] for c in columns) for row in found.to_pylist()} == expected
