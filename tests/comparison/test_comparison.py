"""Search and join of DataFrames against brute force in float64, whatever the partitioning."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pyarrow as pa
import pytest
from pyspark import SparkFiles
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, LongType

import ember
from corpora import write
from ember.comparison import blocks, blockwise, join, packing, search, vector_files, vector_store
from ember.errors import InvalidConfig, InvalidInput, TooManyFailures
from ember.settings.comparison import ComparisonLimits
from ember.worker.vectors.block_cache import stored_rows
from ember.worker.vectors.vectors import NULL

DIMENSION = 12


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 64 rows, so that small tables have several."""
    monkeypatch.setattr(vector_files, "BLOCK_BYTES", 64 * 4 * DIMENSION)


def clustered(seed: int, count: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    centers = random.normal(size=(8, DIMENSION))
    rows = centers[random.integers(0, 8, count)] + 0.3 * random.normal(size=(count, DIMENSION))
    rows[count // 2] = rows[0]  # an exact tie
    return rows.astype(np.float32)


def table(spark, path, ids, matrix, files=1):
    vectors = pa.array(list(matrix), pa.list_(pa.float32()))
    order = np.random.default_rng(0).permutation(len(ids))
    shuffled = pa.array(ids).take(pa.array(order))
    write(
        path / "in.parquet",
        max(1, len(ids) // files),
        id=shuffled,
        embedding=vectors.take(pa.array(order)),
    )
    return spark.read.parquet(str(path)).repartition(files)


def scores(left, right, metric) -> np.ndarray:
    """(n, m) float32 scores, computed in float64."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    if metric == "euclidean":
        return np.linalg.norm(left[:, None] - right[None], axis=2).astype(np.float32)
    if metric == "cosine":
        left = left / np.linalg.norm(left, axis=1, keepdims=True)
        right = right / np.linalg.norm(right, axis=1, keepdims=True)
    return (left @ right.T).astype(np.float32)


def brute_top_k(ids, matrix, other_ids, other, metric, k, exclude_self=False):
    found = {}
    table = scores(matrix, other, metric)
    sign = 1 if metric == "euclidean" else -1
    for row, key in enumerate(ids):
        ranked = sorted(
            (sign * table[row, column], other_ids[column])
            for column in range(len(other_ids))
            if not (exclude_self and other_ids[column] == key)
        )
        found[key] = ranked[:k]
    return found


def collect_top_k(frame):
    found: dict = {}
    for row in frame.orderBy("query_id", "rank").collect():
        found.setdefault(row["query_id"], []).append(
            (row["neighbor_id"], row["rank"], row["score"])
        )
    return found


@pytest.mark.parametrize(
    ("metric", "files"), [("cosine", 7), ("inner_product", 1), ("euclidean", 7)]
)
def test_top_k_is_that_of_brute_force(spark, tmp_path, metric, files):
    query_ids = [f"q{number:03}" for number in range(90)]
    ids = list(range(300))
    queries, corpus = clustered(1, 90), clustered(1, 300)
    frame = ember.search(
        table(spark, tmp_path / "q", query_ids, queries, files),
        table(spark, tmp_path / "c", ids, corpus, files),
        k=5,
        metric=metric,
    ).table
    assert frame.dtypes == [
        ("query_id", "string"),
        ("neighbor_id", "bigint"),
        ("rank", "int"),
        ("score", "float"),
    ]
    ours = collect_top_k(frame)
    expected = brute_top_k(query_ids, queries, ids, corpus, metric, 5)
    assert ours.keys() == expected.keys()
    for key, found in ours.items():
        assert [rank for _, rank, _ in found] == [1, 2, 3, 4, 5]
        theirs = np.array([abs(score) for score, _ in expected[key]])
        assert np.allclose([abs(score) for *_, score in found], theirs, atol=1e-6, rtol=0)
        assert [neighbor for neighbor, *_ in found] == [neighbor for _, neighbor in expected[key]]


def test_ties_go_to_the_smaller_id_and_a_row_s_own_id_can_be_left_out(spark, tmp_path):
    ids = [f"{number:04}" for number in range(400)]
    same = np.ones((400, DIMENSION), np.float32)
    same_table = table(spark, tmp_path / "t", ids, same, 3)
    frame = ember.search(same_table, k=3, exclude_self=True).table
    ours = collect_top_k(frame)
    assert len(ours) == 400
    for key, found in ours.items():
        others = [each for each in ids[:4] if each != key][:3]
        assert [neighbor for neighbor, *_ in found] == others


def test_a_corpus_smaller_than_k_and_empty_tables_give_what_there_is(spark, tmp_path):
    before = sorted(Path(gettempdir()).glob("ember-packed-*"))
    two = table(spark, tmp_path / "a", [1, 2], clustered(0, 2))
    none = two.filter("id < 0")
    assert ember.search(two, two).table.count() == 4
    assert ember.search(two, none).table.count() == 0
    assert ember.search(none, two).table.count() == 0
    assert ember.join(none, threshold=-1).table.count() == 0
    assert ember.join(two.limit(1), threshold=-1).table.count() == 0
    # What they packed goes with Spark.
    assert sorted(Path(gettempdir()).glob("ember-packed-*")) == before
    assert list(Path(SparkFiles.getRootDirectory()).glob("ember-packed-*"))


def test_rows_of_one_id_are_packed_into_several_blocks(spark, tmp_path):
    matrix = clustered(7, 500)
    same = table(spark, tmp_path / "t", [7] * 500, matrix, 3)
    made = vector_files.write(same, "cosine", f"file://{tmp_path}/runs")
    # As of an attempt that failed when the run was done.
    shutil.copy(made.runs[0].file.removeprefix("file:"), tmp_path / "runs" / "again")
    vectors = blocks.TableVectors.of(spark, made, DIMENSION)
    packed = blocks.pack(spark, made, vectors, f"file://{tmp_path}/blocks", size=64)
    assert packed.rows == 500
    assert len(packed.blocks) >= 4
    sizes = np.diff([*packed.firsts, 500])
    assert 0 < min(sizes) <= max(sizes) <= 128
    found = ember.join(same, threshold=0.9).table
    expected = np.triu(scores(matrix, matrix, "cosine") >= np.float32(0.9), 1).sum()
    assert found.count() == expected


@pytest.mark.parametrize(
    ("metric", "threshold", "files"),
    [("cosine", 0.9, 5), ("inner_product", 12.0, 1), ("euclidean", 1.4, 5)],
)
def test_a_self_join_gives_each_pair_of_brute_force_once(spark, tmp_path, metric, threshold, files):
    ids = [f"r{number:03}" for number in range(350)]
    matrix = clustered(2, 350)
    rows = table(spark, tmp_path / "t", ids, matrix, files)
    frame = ember.join(rows, threshold=threshold, metric=metric).table
    ours = {(row["left_id"], row["right_id"]): row["score"] for row in frame.collect()}
    assert frame.count() == len(ours)
    table_ = scores(matrix, matrix, metric)
    hit = table_ <= threshold if metric == "euclidean" else table_ >= np.float32(threshold)
    rows, columns = np.nonzero(np.triu(hit, 1))
    expected = {(ids[row], ids[column]) for row, column in zip(rows, columns, strict=True)}
    assert len(expected) > 100
    assert ours.keys() == expected
    for (left, right), score in ours.items():
        assert abs(score - table_[int(left[1:]), int(right[1:])]) <= 1e-6


def test_a_join_of_two_tables_gives_every_pair(spark, tmp_path):
    left, right = clustered(3, 130), clustered(4, 200)
    frame = ember.join(
        table(spark, tmp_path / "l", list(range(130)), left, 2),
        table(spark, tmp_path / "r", [f"r{n}" for n in range(200)], right, 3),
        threshold=0.2,
    ).table
    hit = scores(left, right, "cosine") >= np.float32(0.2)
    expected = {(int(row), f"r{column}") for row, column in zip(*np.nonzero(hit), strict=True)}
    assert {(row["left_id"], row["right_id"]) for row in frame.collect()} == expected


def test_rows_that_cannot_be_compared_are_left_out(spark, tmp_path):
    rows = [[1.0, 0.0], [1.0, 0.1], None, [float("nan"), 1.0], [0.0, 0.0], [1.0], [2.0, 0.0]]
    rows += [[1.0, 0.0]] * 200
    write(
        tmp_path / "t.parquet",
        id=list(range(207)),
        embedding=pa.array(rows, pa.list_(pa.float32())),
    )
    frame = spark.read.parquet(str(tmp_path / "t.parquet"))
    found = ember.search(frame, k=1, max_failed_fraction=0.02)
    asked = {row["query_id"] for row in found.table.collect()}
    assert asked == set(range(207)) - {2, 3, 4, 5}
    assert sorted(found.rejected.collect()) == [
        ("left", 2, "null embedding"),
        ("left", 3, "not finite"),
        ("left", 4, "zero norm"),
        ("left", 5, "wrong length: 1 instead of 2"),
    ]
    assert found.facts["counts"] == {"rejected": {"left": 4}}
    assert found.facts["tables"]["left"]["rows"] == 203
    assert found.recall is None
    too_many = (
        r"4 of 207 rows of the left table have no usable vector \(1 not finite, 1 null embedding, "
        r"1 wrong length, 1 zero norm\), more than max_failed_fraction = 0.01"
    )
    with pytest.raises(TooManyFailures, match=too_many):
        ember.search(frame, k=1)
    with pytest.raises(TooManyFailures, match="4 of 207 rows of the right table"):
        ember.join(frame.limit(1), frame, threshold=0.5)


def test_rows_of_many_lengths_are_counted_without_keeping_their_vectors(spark, tmp_path):
    odd = [[1.0] * length for length in range(40)]  # more lengths than a task keeps
    rows = [*odd, None, *([[1.0] * DIMENSION] * 400)]
    ids = [f"r{number:03}" for number in range(len(rows))]
    write(tmp_path / "t.parquet", id=ids, embedding=pa.array(rows, pa.list_(pa.float32())))
    table_ = spark.read.parquet(str(tmp_path / "t.parquet"))
    with pytest.raises(InvalidInput, match="mixes vectors of 12 and 39 dimensions"):
        packing.prepare(table_, None, "cosine", f"file://{tmp_path}/refused")
    limits = ComparisonLimits(max_failed_fraction=0.2)
    for folder, files in (("one", table_), ("several", table_.repartition(3))):
        found = packing.prepare(files, None, "cosine", f"file://{tmp_path}/{folder}", limits=limits)
        assert (found.left.rows, found.left.rejected, found.left.dimension) == (401, 40, DIMENSION)
        reasons = {row["id"]: row["reason"] for row in found.left.rejected_rows(spark).collect()}
        lengths = {n: f"wrong length: {n} instead of {DIMENSION}" for n in range(40)}
        del lengths[DIMENSION]
        assert reasons == {"r040": NULL, **{ids[n]: lengths[n] for n in lengths}}


@pytest.mark.parametrize("shared", [True, False])
def test_nodes_read_the_files_in_place_or_get_copies(spark, tmp_path, monkeypatch, shared):
    monkeypatch.setattr(vector_store, "is_local", lambda spark: shared)
    monkeypatch.setattr(vector_files, "SORTED_ROWS", 60)  # so that three tasks sort the ids
    where = tmp_path / "a folder é"
    (where / "left" / "runs").mkdir(parents=True)
    (where / "left" / "runs" / "part-00000").write_text("what a killed driver left")
    matrix = clustered(5, 151)
    matrix[77] = np.nan
    rows = table(spark, tmp_path / "t", list(range(151)), matrix, 2)
    limits = ComparisonLimits(rows_per_block=20)
    compared = packing.prepare(rows, None, "cosine", f"file://{where}", limits=limits)
    assert [row["id"] for row in compared.left.rejected_rows(spark).collect()] == [77]
    assert len(compared.left.files()) == 3
    assert len(compared.left.blocks) > 6
    keys = [key for key in range(151) if key != 77]
    expected = brute_top_k(keys, matrix[keys], keys, matrix[keys], "cosine", 3)
    ours = collect_top_k(search.neighbors(spark, compared, 3, exclude_self=False))
    assert {key: [n for n, *_ in ours[key]] for key in ours} == {
        key: [n for _, n in expected[key]] for key in expected
    }


@pytest.mark.parametrize("shared", [True, False])
def test_stored_values_lie_in_files_of_rows(spark, tmp_path, monkeypatch, shared):
    """All bytes, line ends among them, come back as they were, from a file each or from one."""
    monkeypatch.setattr(vector_store, "is_local", lambda spark: shared)
    every = np.arange(256, dtype=np.uint8).tobytes()

    def pack(batches):
        for batch in batches:
            for number in batch.column(0).to_pylist():
                matrix = np.full((2, 3), number, np.float32)
                yield {"rows": number, "whole": pa.py_buffer(every), "matrix": [matrix, -matrix]}

    schema = vector_store.schema(rows=LongType(), whole=BinaryType(), matrix=BinaryType())
    table_ = spark.range(0, 6, 1, 2).filter("id != 5")
    for one_each, files in ((True, 5), (False, 2)):
        folder = f"file:{tmp_path}/{shared}-{one_each}"
        found = vector_store.write(table_, pack, schema, folder, ["rows"], one_each=one_each)
        assert [row[1:] for row in found] == [(0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 3), (1, 1, 4)]
        names = list(dict.fromkeys(row[0] for row in found))
        assert len(names) == files
        stored = [row for file in vector_store.here(names, shared) for row in stored_rows(file)]
        assert [row.column("whole")[0].as_py() for row in stored] == [every] * 5
        for number, row in enumerate(stored):
            values = np.frombuffer(row.column("matrix")[0].as_buffer(), np.float32)
            assert values.tolist() == [number] * 6 + [-number] * 6
    none = vector_store.write(table_.limit(0), pack, schema, folder, ["rows"])
    assert none == []


def test_workers_spare_what_they_have_loaded_from_collection(spark):
    def body(task):
        yield pa.RecordBatch.from_pydict({"pid": [os.getpid()]})

    def tell(batches):
        for _ in batches:
            loaded = vars(sys.modules["pyspark.worker"])
            walked = any(each is loaded for each in gc.get_objects())
            yield pa.RecordBatch.from_pydict({"pid": [os.getpid()], "walked": [walked]})

    tasks = [(number, None) for number in range(8)]
    worked = {row.pid for row in blockwise.frame(spark, tasks, body, "pid long").collect()}
    # Many tasks, so that each worker gets some.
    told = spark.range(0, 64, 1, 64).mapInArrow(tell, "pid long, walked boolean").collect()
    walked = {row.pid: row.walked for row in told if row.pid in worked}
    assert walked
    assert not any(walked.values())


def test_what_is_no_table_of_embeddings_is_refused(spark, tmp_path):
    good = table(spark, tmp_path / "a", [1, 2], clustered(0, 2))
    longer = table(spark, tmp_path / "b", [1, 2], np.ones((2, 20), np.float32))
    with pytest.raises(InvalidInput, match="12 dimensions and the right ones 20"):
        ember.search(good, longer, k=1)
    with pytest.raises(InvalidInput, match="mixes vectors of"):
        ember.search(good.union(longer), k=1)
    with pytest.raises(InvalidInput, match="embeddings are array<float>"):
        ember.search(good, k=1, embedding="id")
    with pytest.raises(InvalidInput, match="no column key"):
        ember.join(good, threshold=0.9, id="key")
    with pytest.raises(InvalidInput, match="k is 0"):
        ember.search(good, k=0)
    with pytest.raises(InvalidInput, match="unknown mode 'exakt'"):
        ember.search(good, mode="exakt")
    with pytest.raises(InvalidConfig, match="max_failed_fraction"):
        ember.search(good, max_failed_fraction=2)
    with pytest.raises(InvalidInput, match="unknown metric"):
        ember.search(good, k=1, metric="dot")
    with pytest.raises(InvalidInput, match="not a negative one"):
        ember.join(good, threshold=-1, metric="euclidean")


def grouped(spark, path, ids, matrix, groups, files=2):
    vectors = pa.array(list(matrix), pa.list_(pa.float32()))
    tenants = [None if group is None else f"t{group}" for group in groups]
    write(path / "in.parquet", 50, id=ids, embedding=vectors, tenant=tenants, shelf=groups)
    return spark.read.parquet(str(path)).repartition(files)


def some_groups(seed: int, count: int) -> list[int | None]:
    """One group of half the rows, many small ones, and rows of no group."""
    draws = np.random.default_rng(seed).integers(-count // 2, count // 4, count)
    return [None if draw == 0 else max(0, int(draw)) for draw in draws]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_only_rows_of_one_group_are_compared(spark, tmp_path, metric):
    left, right = clustered(1, 240), clustered(2, 300)
    lefts, rights = some_groups(1, 240), some_groups(2, 300)
    one = grouped(spark, tmp_path / "l", list(range(240)), left, lefts)
    other = grouped(spark, tmp_path / "r", [f"r{n:03}" for n in range(300)], right, rights)
    agree = np.array([[a is not None and a == b for b in rights] for a in lefts])
    table_ = scores(left, right, metric)

    # A quarter of the pairs that may meet.
    share = 0.25 if metric == "euclidean" else 0.75
    threshold = float(np.quantile(table_[agree], share))
    columns = ["tenant", "shelf"]
    frame = ember.join(one, other, threshold=threshold, metric=metric, within=columns).table
    hit = table_ <= threshold if metric == "euclidean" else table_ >= np.float32(threshold)
    hit &= agree
    expected = {(int(row), f"r{column:03}") for row, column in zip(*np.nonzero(hit), strict=True)}
    assert len(expected) > 1000
    found = frame.collect()
    assert len(found) == len(expected)
    assert {(row["left_id"], row["right_id"]) for row in found} == expected

    ours = collect_top_k(ember.search(one, other, k=3, metric=metric, within=["tenant"]).table)
    assert ours.keys() == set(np.flatnonzero(agree.any(axis=1)).tolist())
    sign = 1 if metric == "euclidean" else -1
    for row, neighbors in ours.items():
        ranked = sorted((sign * table_[row, c], f"r{c:03}") for c in np.flatnonzero(agree[row]))
        assert [neighbor for neighbor, *_ in neighbors] == [name for _, name in ranked[:3]]


def test_a_self_join_within_groups_gives_each_pair_once(spark, tmp_path):
    matrix, groups = clustered(3, 300), some_groups(3, 300)
    rows = grouped(spark, tmp_path / "t", list(range(300)), matrix, groups)
    frame = ember.join(rows, threshold=0.3, within=["shelf"]).table
    hit = np.triu(scores(matrix, matrix, "cosine") >= np.float32(0.3), 1)
    agree = np.array([[a is not None and a == b for b in groups] for a in groups])
    pairs = [(row["left_id"], row["right_id"]) for row in frame.collect()]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {(int(a), int(b)) for a, b in zip(*np.nonzero(hit & agree), strict=True)}


def test_a_group_column_that_holds_no_single_values_is_refused(spark, tmp_path):
    good = table(spark, tmp_path / "a", [1, 2], clustered(0, 2))
    with pytest.raises(InvalidInput, match="within column embedding is array<float>"):
        ember.search(good, k=1, within=["embedding"])
    with pytest.raises(InvalidInput, match="no column tenant"):
        ember.join(good, threshold=0.9, within=["tenant"])


def test_spark_s_own_nearest_join_finds_the_same_neighbors(spark, tmp_path):
    queries = table(spark, tmp_path / "q", list(range(20)), clustered(5, 20))
    corpus = table(spark, tmp_path / "c", list(range(150)), clustered(6, 150), 3)
    ours = collect_top_k(ember.search(queries, corpus, k=4, metric="inner_product").table)
    left, right = queries.toDF("query_id", "asked"), corpus.toDF("neighbor_id", "there")
    score = "aggregate(zip_with(asked, there, (x, y) -> x * y), 0D, (s, x) -> s + x)"
    nearest = left.nearestByJoin(right, F.expr(score), 4, mode="exact", direction="similarity")
    theirs: dict = {}
    for row in nearest.select("query_id", "neighbor_id").collect():
        theirs.setdefault(row["query_id"], set()).add(row["neighbor_id"])
    assert {key: {neighbor for neighbor, *_ in found} for key, found in ours.items()} == theirs


def test_one_folder_serves_many_searches_and_keeps_what_it_holds(spark, tmp_path):
    (tmp_path / "left" / "runs").mkdir(parents=True)
    (tmp_path / "left" / "runs" / "mine").write_text("mine")
    for near in ("x", "y"):
        rows = [("a", [1.0, 0.0]), (near, [1.0, 0.1])]
        table = spark.createDataFrame(rows, "id string, embedding array<float>")
        found = ember.search(table, k=1, exclude_self=True, folder=str(tmp_path)).table
        assert {row["query_id"]: row["neighbor_id"] for row in found.collect()} == {
            "a": near,
            near: "a",
        }
    assert (tmp_path / "left" / "runs" / "mine").read_text() == "mine"


def test_a_run_that_goes_on_with_other_cores_has_the_tasks_of_the_first(
    spark, tmp_path, monkeypatch
):
    """Finished tasks are kept by their numbers, so these must stand for the same blocks."""
    rows = table(spark, tmp_path / "t", [f"i{n}" for n in range(400)], clustered(1, 400))
    divided = []
    for count in (1, 64):
        monkeypatch.setattr(packing, "cores", lambda _, count=count: count)
        found = packing.prepare(rows, None, "cosine", f"file://{tmp_path}/shared")
        divided.append((join._tasks(found, 4 * found.cores), search._tasks(found, found.cores)))
    assert divided[0] == divided[1]
    assert len(divided[0][0]) > 1


def test_rejected_rows_of_two_tables_with_ids_of_two_types_are_one_table(spark):
    left = spark.sql("select 7 id, cast(null as array<float>) embedding union select 8, array(1f)")
    right = spark.sql("select 'x' id, array(1f) embedding union select 'y', array(0f)")
    found = ember.join(left, right, threshold=0.5, max_failed_fraction=0.5)
    assert [(row.left_id, row.right_id) for row in found.table.collect()] == [(8, "x")]
    assert sorted(found.rejected.collect()) == [
        ("left", "7", "null embedding"),
        ("right", "y", "zero norm"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "arguments"),
    [
        ("top_k", "search", {"corpus": None, "k": 1}),
        ("approximate_top_k", "search", {"corpus": None, "k": 1}),
        ("similarity_join", "join", {}),
    ],
)
def test_a_name_of_before_warns_and_does_what_it_did(spark, old, new, arguments):
    table_ = spark.sql("select 1 id, array(1f) embedding union select 2, null")
    with pytest.warns(DeprecationWarning, match=rf"ember.{old} is deprecated; use ember.{new}"):
        found = getattr(ember, old)(table_, **arguments)
    assert found.count() == (0 if new == "join" else 1)
