"""Approximate search: with all lists probed it is the exact one; fewer lists cost only recall."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ember.worker.vectors import fit_basis, ivf, prepare
from ember.worker.vectors.block_cache import (
    BlockCache,
    RunFiles,
    own_keys,
    own_numbers,
    shared_keys,
    to_ipc,
)
from ember.worker.vectors.ivf import InvertedFile, list_places
from ember.worker.vectors.ivf_lists import fit_lists
from ember.worker.vectors.ivf_recall import choose_probes
from vector_cases import KINDS, brute_force, brute_top_k, clustered, random

METRICS = ["cosine", "inner_product", "euclidean"]


def cache(folder, matrix, metric, size):
    """A table in packed blocks and runs, as Spark and as tasks write them: the vectors in another
    order."""
    count, dimension = matrix.shape
    places = np.random.default_rng(0).permutation(count)  # of each row in the runs
    lying = np.empty_like(matrix)
    lying[places] = matrix
    firsts = list(range(0, count, size))
    ids = [
        pa.array([f"r{n:04}" for n in range(first, min(first + size, count))]) for first in firsts
    ]
    packed = {
        "ids": [to_ipc(pa.table({"id": each})) for each in ids],
        "groups": pa.nulls(len(firsts), pa.binary()),
        "places": [places[first : first + size].tobytes() for first in firsts],
        "again": [0] * len(firsts),
    }
    file = stored(folder / "blocks.parquet", packed)
    starts = [0, count // 3, count // 2]
    runs = [
        stored(folder / f"run{place}.parquet", {"matrix": [part.tobytes()]})
        for place, part in enumerate(np.split(lying, starts[1:]))
    ]
    runs[1] = str(folder / "run1.npy")
    np.save(runs[1], lying[starts[1] : starts[2]])
    vectors = RunFiles(runs, starts, count, dimension, matrix.dtype.name)
    blocks = [(file, row) for row in range(len(firsts))]
    return BlockCache(blocks, firsts, vectors, fit_basis(matrix, metric), str(folder / "cache"), 1)


def stored(path, columns):
    pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
    return str(path)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_all_lists_give_the_exact_answer(tmp_path, monkeypatch, metric, kind):
    for name, size in (("FLUSH_TILES", 5), ("TILE_ROWS", 16), ("TILE_COLUMNS", 20)):
        monkeypatch.setattr(ivf, name, size)
    rng = np.random.default_rng(3)
    corpus, queries = kind(rng, 300, 9), kind(rng, 40, 9)
    queries[:5] = corpus[:5]
    here = cache(tmp_path, corpus, metric, 120)
    lists = fit_lists(corpus, metric, 12)
    owners = lists.nearest(corpus, 1)[:, 0].astype(np.int32)
    file = InvertedFile.on_node(here, owners, 12)
    assert sorted(file.numbers) == list(range(300))
    block = prepare(queries, metric, here.basis)
    probes = lists.nearest(queries, 12, queries=True)
    assert (np.sort(probes, axis=1) == np.arange(12)).all()
    for exclude_self in (False, True):
        found, pairs = file.search(block, probes, 7, exclude_self=exclude_self)
        ids, scores = found.result(metric)
        own = np.arange(40) if exclude_self else None
        expected = brute_top_k(brute_force(queries, corpus, metric), np.arange(300), 7, metric, own)
        np.testing.assert_array_equal(ids, expected[0])
        np.testing.assert_array_equal(scores, expected[1])
    assert 40 * 300 <= pairs <= 2 * 40 * 300


@pytest.mark.parametrize("metric", METRICS)
def test_some_lists_give_the_best_rows_of_those(tmp_path, metric):
    rng = np.random.default_rng(4)
    corpus, queries = clustered(rng, 400, 6), clustered(rng, 30, 6)
    lists = fit_lists(corpus, metric, 16)
    owners = lists.nearest(corpus, 1)[:, 0].astype(np.int32)
    here = cache(tmp_path, corpus, metric, 400)
    probes = lists.nearest(queries, 3, queries=True)
    file = InvertedFile.on_node(here, owners, 16)
    found, _ = file.search(prepare(queries, metric, here.basis), probes, 5, threads=2)
    ids, _ = found.result(metric)
    scores = brute_force(queries, corpus, metric)
    for row in range(30):
        inside = np.flatnonzero(np.isin(owners, probes[row]))
        best, _ = brute_top_k(scores[row : row + 1, inside], inside, 5, metric)
        np.testing.assert_array_equal(ids[row], best[0])


def test_a_query_near_small_lists_still_gets_all_its_places(tmp_path):
    rng = np.random.default_rng(8)
    corpus = random(rng, 60, 5)
    lists = fit_lists(corpus, "euclidean", 30)
    owners = lists.nearest(corpus, 1)[:, 0].astype(np.int32)
    here = cache(tmp_path, corpus, "euclidean", 60)
    block = prepare(corpus, "euclidean", here.basis)
    file = InvertedFile.on_node(here, owners, 30)
    assert (file.search(block, owners[:, None], 8)[0].result("euclidean")[0] < 0).any()
    found, _ = file.search_nearest(block, lists, 1, 8, exclude_self=True)
    assert (found.result("euclidean")[0] >= 0).all()
    few, _ = file.search_nearest(block, lists, 1, 100)
    every = brute_top_k(brute_force(corpus, corpus, "euclidean"), np.arange(60), 100, "euclidean")
    np.testing.assert_array_equal(few.result("euclidean")[0], every[0])


@pytest.mark.parametrize("metric", METRICS)
def test_lists_and_probes_do_not_depend_on_how_rows_are_batched(metric):
    rng = np.random.default_rng(5)
    rows = clustered(rng, 500, 8)
    rows[::7] = rows[0]
    lists = fit_lists(rows, metric, 20)
    again = fit_lists(rows, metric, 20)
    np.testing.assert_array_equal(lists.centroids, again.centroids)
    whole = lists.nearest(rows, 4)
    parts = [lists.nearest(part, 4) for part in np.array_split(rows, 13)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    some = lists.nearest(rows, 4, ordered=False)
    np.testing.assert_array_equal(np.sort(some, axis=1), np.sort(whole, axis=1))
    points = lists.points(rows).astype(np.float64)
    centroids = lists.centroids.astype(np.float64)
    if metric == "euclidean":
        closeness = -np.linalg.norm(points[:, None] - centroids[None], axis=2)
    else:
        closeness = points @ centroids.T
    best = np.take_along_axis(closeness, whole, axis=1)
    np.testing.assert_allclose(best, -np.sort(-closeness, axis=1)[:, :4], atol=1e-6)


def test_lists_of_inner_products_hold_the_longest_rows_for_every_query():
    """Rows of one direction and many lengths: what counts is the length."""
    rng = np.random.default_rng(6)
    rows = clustered(rng, 2000, 12) * rng.lognormal(0, 0.5, (2000, 1)).astype(np.float32)
    queries = clustered(rng, 100, 12)
    lists = fit_lists(rows, "inner_product", 40)
    owners = lists.nearest(rows, 1)[:, 0].astype(np.int32)
    best, _ = brute_top_k(brute_force(queries, rows, "inner_product"), np.arange(2000), 10, "")
    nearest = lists.nearest(queries, 40, queries=True)
    places = list_places(best, owners, nearest, 40)
    # Probing a fifth of the lists at random would find a fifth.
    assert (places < 8).mean() > 0.8


def test_places_of_neighbors_and_of_those_that_are_not_there():
    owners = np.array([0, 1, 2, 2], np.int32)
    places = list_places(np.array([[3, 0, 1, -1]]), owners, np.array([[2, 0]]), 3)
    assert places.tolist() == [[0, 1, 3, -1]]


def test_more_lists_than_rows_are_refused():
    with pytest.raises(ValueError, match="cannot make 3 lists of a sample of 2 rows"):
        fit_lists(np.ones((2, 4), np.float32), "cosine", 3)
    assert len(fit_lists(np.ones((9, 4), np.float32), "cosine", 3)) == 3


def test_own_rows_are_found_by_their_ids(tmp_path):
    here = cache(tmp_path, np.ones((10, 2), np.float32), "cosine", 4)
    ids = pa.array(["r0007", "none", "r0000", None])
    assert own_numbers(ids, here).tolist() == [7, -2, 0, -4]
    np.testing.assert_array_equal(here.rows_at(np.array([1, 8])), np.ones((2, 2)))


@pytest.mark.parametrize("target", [0.5, 0.9])
def test_the_lower_bound_of_recall_reaches_the_target_and_holds(target):
    rng = np.random.default_rng(7)
    spread = rng.geometric(0.12, 20_000)[:, None] + rng.integers(0, 9, (20_000, 10))
    places = np.minimum(spread - 1, 60)
    missed = 0
    for trial in range(200):
        sample = places[rng.choice(len(places), 300, replace=False)]
        chosen = choose_probes(sample, 60, target)
        per_query = (sample < chosen.probes).mean(axis=1)
        assert chosen.mean == pytest.approx(per_query.mean())
        assert chosen.low >= target
        fewer = (sample < chosen.probes - 1).mean(axis=1)
        assert fewer.mean() - 1.96 * fewer.std(ddof=1) / np.sqrt(300) < target + 1e-3, trial
        missed += (places < chosen.probes).mean() < target
    assert missed <= 200 * 0.05  # 2.5% by construction


def test_recall_of_queries_without_neighbors_is_complete_and_all_lists_always_do():
    assert choose_probes(np.full((5, 3), -1), 4, 0.99).probes == 1
    beyond = choose_probes(np.full((5, 3), 4), 4, 0.5)
    assert (beyond.probes, beyond.mean, beyond.low) == (4, 1.0, 1.0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("away", "powers", "dtype"),
    [(0, (-40, 0, 36), np.float32), (0, (-30, -29), np.float64), (5_500_000, (0,), np.float64),
     (0, (0,) * 90 + (17,), np.float32)],
)  # fmt: skip
def test_lists_of_rows_of_any_size_and_place(tmp_path, metric, away, powers, dtype):
    rng = np.random.default_rng(9)
    powers = [min(power, 18) if metric == "inner_product" else power for power in powers]
    sizes = 10.0 ** rng.choice(powers, (200, 1))
    rows = (away + rng.normal(size=(200, 6)) * sizes).astype(dtype)
    here = cache(tmp_path, rows, metric, 70)
    lists = fit_lists(rows, metric, 8)
    owners = lists.nearest(rows, 1)[:, 0].astype(np.int32)
    file = InvertedFile.on_node(here, owners, 8)
    block = prepare(rows[:30], metric, here.basis)
    found, _ = file.search(block, lists.nearest(rows[:30], 8, queries=True), 5, exclude_self=True)
    exact = brute_force(rows[:30], rows, metric)
    expected = brute_top_k(exact, np.arange(200), 5, metric, np.arange(30))
    np.testing.assert_array_equal(found.result(metric)[1], expected[1])
    np.testing.assert_array_equal(found.result(metric)[0], expected[0])


def test_rows_of_one_id_share_a_key_across_blocks(tmp_path):
    here = cache(tmp_path, np.ones((10, 2), np.float32), "cosine", 4)
    assert here.own(1).tolist() == [4, 5, 6, 7]
    ids = pa.array([2, 2, 3, None, None])
    assert own_keys(ids, 10, 3).tolist() == [7, 7, 12, 13, 14]
    zeros = pa.array([-0.0, 0.0, 1.0, float("nan"), float("nan")])
    assert own_keys(zeros, 0, 0).tolist() == [0, 0, 2, 3, 3]
    mine, theirs = shared_keys(pa.array([1, None, 5]), pa.array([None, 5, 7]))
    agree = (mine[:, None] == theirs).tolist()
    assert agree == [[False] * 3, [False] * 3, [False, True, False]]
