"""`where` in the sections that name tables: which rows are read, what is noted, what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import manifest, write

FLOATS = pa.list_(pa.float32())


def embeddings(path, count=40):
    matrix = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    ids = [f"i{n:03}" for n in range(count)]
    side = [None if n % 4 == 3 else n % 4 == 0 for n in range(count)]
    columns = {"image_id": ids, "embedding": pa.array(list(matrix), FLOATS), "a `b`.c": side}
    return write(path, **columns), matrix


def test_each_side_of_a_search_is_divided_and_a_resumed_run_must_agree(run_job, tmp_path):
    source, matrix = embeddings(tmp_path / "in.parquet")
    out = tmp_path / "out"
    settings = {
        "queries__path": source,
        "queries__id": "image_id",
        "queries__where": "`a ``b``.c`",  # null is not true
        "corpus__path": source,
        "corpus__id": "image_id",
        "corpus__where": "not (`a ``b``.c` or image_id like '%5')",
        "k": 3,
        "output__path": out,
        "output__mode": "resume",
    }
    assert run_job("search", **settings) == (0, "")
    queries = [n for n in range(40) if n % 4 == 0]
    corpus = [n for n in range(40) if n % 4 in (1, 2) and n % 10 != 5]
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    best = np.argsort(-(unit[queries] @ unit[corpus].T), axis=1)[:, :3]
    expected = {
        (f"i{q:03}", rank + 1): f"i{corpus[found]:03}"
        for q, row in zip(queries, best, strict=True)
        for rank, found in enumerate(row)
    }
    table = pq.read_table(out).to_pylist()
    assert {(row["query_id"], row["rank"]): row["neighbor_id"] for row in table} == expected
    told = manifest(out)
    assert told["config"]["queries"]["where"] == "`a ``b``.c`"
    assert told["input_files"] == [f"file://{source}"]
    assert told["tables"]["right"]["rows"] == len(corpus)
    code, message = run_job("search", **{**settings, "queries__where": "image_id > ''"})
    assert (code, "made with other settings" in message) == (2, True)


def test_a_row_that_is_not_read_is_no_failure_and_another_choice_of_rows_is_not_resumed(
    run_job, bert, tmp_path
):
    texts = ["a cat", None, "a dog", None, "the mat"]
    source = write(tmp_path / "in.parquet", text_id=list(range(5)), content=texts)
    settings = {
        "input__path": source,
        "input__id": "text_id",
        "input__modality": "text",
        "model__name": bert,
        "output__path": tmp_path / "out",
    }
    few = {**settings, "input__where": "content is not null and text_id > 1"}
    assert run_job("embed", **few) == (0, "")
    assert sorted(pq.read_table(tmp_path / "out")["text_id"].to_pylist()) == [2, 4]
    assert manifest(tmp_path / "out")["counts"]["rows"] == 2
    # Of two rows with one id, another condition may read the other one.
    more = {**settings, "input__where": "content is not null", "output__mode": "resume"}
    code, message = run_job("embed", **more)
    assert (code, "other settings (input.where was content is not null and" in message) == (2, True)
    assert sorted(pq.read_table(tmp_path / "out")["text_id"].to_pylist()) == [2, 4]


def test_predictions_of_some_rows_are_judged_against_their_part_of_the_truth(run_job, tmp_path):
    labels = ["cat", "dog"] * 5
    truth = write(tmp_path / "truth.parquet", id=list(range(10)), label=labels)
    answers = [[{"index": 0, "label": "cat", "score": 0.9}]] * 4
    given = write(tmp_path / "given.parquet", id=[0, 1, 2, 3], predictions=answers)
    settings = {
        "kind": "classification",
        "predictions__path": given,
        "predictions__id": "id",
        "truth__path": truth,
        "bootstrap": 0,
        "report": "false",
    }
    code, message = run_job("evaluate", **settings, output__path=tmp_path / "all")
    assert (code, "without a prediction" in message) == (3, True)
    chosen = {**settings, "truth__where": "id < 4", "predictions__where": "id != 2"}
    chosen["limits__max_failed_fraction"] = 0.3
    code, message = run_job("evaluate", **chosen, output__path=tmp_path / "some")
    assert code == 0, message
    assert manifest(tmp_path / "some")["counts"] == {"rows": 4, "failed": 1}
    assert manifest(tmp_path / "some")["figures"]["accuracy"]["value"] == 0.25


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("image_id = = 3", "that is no condition on its rows: Syntax error at or near '='"),
        ("image_id", 'Filter expression "image_id" of type "STRING" is not a boolean'),
        ("color = 'red'", "with name `color` cannot be resolved. Did you mean one of"),
        ("count(*) > 1", "contains invalid expressions: count(1)"),
        ("true; drop table t", "Syntax error at or near ';'"),
        ("image_id in (select id from parquet.`/nowhere`)", "which has a subquery; a condition"),
        ("not exists(select 1)", "which has a subquery"),
        ("length(image_id) = 1 + (select max(id) from parquet.`/nowhere`)", "has a subquery"),
        ("now() > timestamp'2020-01-01' or false", "depends on the time, the user or the session"),
        ("unix_timestamp() > 3", "depends on the time"),
        ("current_date > '2020-01-01'", "depends on the time"),
        ("image_id = current_user()", "depends on the time, the user"),
        ("date' Today ' > date'2020-01-01'", "depends on the time"),
        ("rand() < 0.5", "chooses other rows every time; divide rows by a hash of the id"),
    ],
)
def test_what_is_no_condition_is_exit_code_2_in_one_line(run_job, tmp_path, condition, words):
    source, _ = embeddings(tmp_path / "in.parquet", 4)
    settings = {
        "corpus__path": source,
        "corpus__id": "image_id",
        "output__path": tmp_path / "work" / "out",
    }
    code, message = run_job("export", f"--set=corpus.where={condition}", **settings)
    assert (code, words in message, message) == (2, True, message)
    assert f"{source}: where is " in message
    assert (message.count("\n"), "SQLSTATE" in message) == (1, False)
    assert not (tmp_path / "work").exists()
