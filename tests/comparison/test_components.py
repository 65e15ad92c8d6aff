"""Near-duplicate groups against scipy's connected components."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ember.comparison import components
from ember.comparison.components import near_duplicates, summary


@pytest.fixture(autouse=True, params=["one task", "rounds over the cluster"])
def way(request, monkeypatch):
    if request.param != "one task":
        monkeypatch.setattr(components, "_ONE_TASK", 0)


def expected_groups(count: int, edges: list[tuple[int, int]]) -> dict[int, set[int]]:
    rows, columns = np.array(edges).T
    _, labels = connected_components(
        coo_array((np.ones(len(edges)), (rows, columns)), shape=(count, count)), directed=False
    )
    groups: dict[int, set[int]] = {}
    for node in np.unique(np.array(edges)):
        groups.setdefault(labels[node], set()).add(int(node))
    return {min(group): group for group in groups.values()}


def random_edges(seed: int) -> list[tuple[int, int]]:
    random = np.random.default_rng(seed)
    chain = [(node, node + 1) for node in range(100, 160)]  # as long as a star is wide
    star = [(300, node) for node in range(200, 260)]
    drawn = random.integers(0, 90, (60, 2)).tolist()
    edges = chain + star + [(a, b) for a, b in drawn if a != b]
    random.shuffle(edges)
    return [(int(a), int(b)) for a, b in edges]


def test_groups_are_the_connected_components(spark, tmp_path):
    def name(node):
        return f"node {node:03}"

    edges = random_edges(0)
    pairs = spark.createDataFrame([(name(a), name(b)) for a, b in edges], ["left_id", "right_id"])
    groups = near_duplicates(pairs, f"{tmp_path}/rounds").cache()
    assert groups.columns == ["id", "group_id", "representative"]
    found: dict = {}
    chosen: dict = {}
    for row in groups.collect():
        found.setdefault(row["group_id"], set()).add(row["id"])
        if row["representative"]:
            chosen.setdefault(row["group_id"], []).append(row["id"])
    expected = expected_groups(400, edges)
    assert found == {name(low): set(map(name, group)) for low, group in expected.items()}
    degree: dict = {}
    for node in (node for edge in edges for node in edge):
        degree[node] = degree.get(node, 0) + 1
    best = {low: min(group, key=lambda n: (-degree[n], n)) for low, group in expected.items()}
    assert chosen == {name(low): [name(node)] for low, node in best.items()}
    assert summary(groups) == {
        "groups": len(expected),
        "rows": sum(map(len, expected.values())),
        "largest": max(map(len, expected.values())),
    }


def test_rows_of_one_id_are_a_group(spark, tmp_path):
    """Also where nothing else is near them; a null id names no row."""
    pairs = [(7, 7), (1, 9), (9, 9), (9, 9), (3, 2), (None, 5), (None, None)]
    made = spark.createDataFrame(pairs, "left_id int, right_id int")
    groups = near_duplicates(made, f"{tmp_path}/rounds").cache()
    assert {tuple(row) for row in groups.collect()} == {
        (7, 7, True),
        (1, 1, False),
        (9, 1, True),
        (2, 2, True),
        (3, 2, False),
        (5, 5, True),
    }
    assert summary(groups) == {"groups": 4, "rows": 6, "largest": 2}


def test_no_pairs_make_no_groups(spark, tmp_path):
    pairs = spark.createDataFrame([], "left_id string, right_id string, score float")
    groups = near_duplicates(pairs, f"{tmp_path}/rounds")
    assert groups.count() == 0
    assert summary(groups) == {"groups": 0, "rows": 0, "largest": 0}
