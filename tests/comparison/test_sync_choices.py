"""What a run with output.mode sync goes by: how many pairs are new, how many neighbors are kept."""

from __future__ import annotations

from itertools import product

import pytest

from ember.comparison.sync import share_of_pairs
from ember.comparison.sync_search import places
from ember.spark.kept import without


@pytest.mark.parametrize(("left", "right"), [((7, 2), (5, 0)), ((7, 2), (5, 3)), ((4, 4), (9, 1))])
def test_the_share_of_new_pairs_is_that_of_pairs_with_a_new_row(left, right):
    pairs = list(product(range(left[0]), range(right[0])))
    new = [pair for pair in pairs if pair[0] < left[1] or pair[1] < right[1]]
    assert share_of_pairs(left, right) == pytest.approx(len(new) / len(pairs), abs=1e-5)


def test_a_table_without_rows_has_no_new_pairs():
    assert share_of_pairs((0, 0), (5, 0)) == 0


def test_some_neighbors_more_are_kept_than_are_asked_for():
    assert [places(k) for k in (1, 10, 100)] == [5, 14, 125]


def test_a_section_that_does_not_count_takes_its_keys_along_and_no_other():
    identity = {"left.path": "a", "left": None, "leftover": 1, "threshold": 0.5}
    assert without(identity, {"left": "rows"}) == {"leftover": 1, "threshold": 0.5}
