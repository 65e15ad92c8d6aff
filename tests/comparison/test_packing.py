"""How many neighbors of how many queries a worker is asked to hold."""

from __future__ import annotations

import pytest

from ember.comparison.packing import _affordable
from ember.errors import InvalidInput


def test_a_block_of_queries_is_as_small_as_its_neighbors_ask_for():
    assert _affordable(None, 10**9) >= 10**6
    assert _affordable(10**9, 5) >= 10**6
    few = _affordable(1_000_000, 10**9)
    assert 1 <= few <= 20
    with pytest.raises(InvalidInput, match=r"k is 1000000000, .* ask for at most \d+, or join"):
        _affordable(10**9, 10**9)
