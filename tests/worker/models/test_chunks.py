"""Long texts in chunks: what is cut where, and that each chunk is embedded as a text of its own."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ember.errors import InvalidInput
from ember.worker import task
from ember.worker.models import chunks
from ember.worker.models.chunks import Chunking, Splitter, windows
from ember.worker.stats import TaskStats
from sentence_folders import ours, resolved, sentence_folder
from tiny_models import MAX_TOKENS, tiny_bert

LONG = "  the cat sat on a mat and the big dog runs in the small house of a cat\n" * 3
WORDS = LONG.split()
ODD = ["short", "", None, "bad \xff", LONG, "   ", "x" * 90, "\u200b", "the dog " * 700]


@st.composite
def sizes(draw):
    tokens = draw(st.integers(1, 12))
    begins = draw(st.lists(st.booleans(), min_size=1, max_size=80))
    return begins, tokens, draw(st.integers(0, tokens - 1))


@settings(max_examples=200)
@example(([False, True, False, True, False], 3, 1))
@given(sizes())
def test_windows_cover_all_tokens_and_overlap(given):
    begins, tokens, overlap = given
    found = windows(begins, tokens, overlap)
    assert (found[0][0], found[-1][1]) == (0, len(begins))
    assert all(0 < stop - start <= tokens for start, stop in found)
    for (start, stop), (following, its_stop) in pairwise(found):
        assert start < following <= stop - overlap
        assert stop < its_stop
        # A word is cut only where none begins in the window's second half.
        second_half = range(start + max(overlap, tokens // 2) + 1, start + tokens + 1)
        assert begins[stop] or not any(begins[place] for place in second_half)


def test_windows_of_words_of_one_token_are_as_long_as_they_may_be():
    assert windows([True] * 10, 4, 1) == [(0, 4), (3, 7), (6, 10)]
    assert windows([True] * 10, 4, 0) == [(0, 4), (4, 8), (8, 10)]
    assert windows([True] * 4, 4, 3) == [(0, 4)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tiny_bert(tmp_path_factory.mktemp("base"))
    model = tmp_path_factory.mktemp("chunked") / "model"
    return sentence_folder(model, base, "max", "normalize", prompts={"query": "find: "})


def table(folder: Path, texts: list[str | None], chunking: Chunking, **model):
    """Ember's rows as dictionaries, and the stats."""
    raws = [
        text if text is None else text.encode("latin-1" if "\xff" in text else "utf-8")
        for text in texts
    ]
    columns = [pa.array(range(len(texts))), pa.array(raws, pa.binary())]
    batch = pa.RecordBatch.from_arrays(columns, names=["id", "content"])
    stats = TaskStats()
    made = task.embed_batches([batch], resolved(folder, **model), chunking=chunking, stats=stats)
    return pa.Table.from_batches(made).to_pylist(), stats


def test_a_text_of_hardly_any_token_is_an_error_row_and_takes_no_more_memory(folder, monkeypatch):
    monkeypatch.setattr(chunks, "MOST_CHARACTERS", 400_000)
    rows, _ = table(folder, ["a cat", "x" * 900_000, "a dog"], Chunking(8, 2))
    assert [row["status"] for row in rows] == ["ok", "error", "ok"]
    assert rows[1]["error"].startswith("too long: ")


def test_a_text_over_the_limit_of_bytes_is_not_cut_into_chunks(folder):
    spec = replace(resolved(folder), max_bytes=50)
    batch = pa.RecordBatch.from_pydict({"id": [1], "content": [LONG]})
    (made,) = task.embed_batches([batch], spec, chunking=Chunking(8, 2))
    assert made.to_pylist()[0]["error"].startswith("too many bytes")


@pytest.mark.parametrize("model", [{}, {"role": "query"}])
def test_each_chunk_has_the_vector_of_its_own_text(folder, model):
    rows, stats = table(folder, ODD, Chunking(8, 2), **model)
    assert (stats.rows, stats.counts["chunks"], stats.truncated) == (len(ODD), len(rows), 0)
    good = [row for row in rows if row["status"] == "ok"]
    texts = [ODD[row["id"]][row["start"] : row["end"]] for row in good]
    expected = ours(resolved(folder, **model), texts)
    assert np.abs(np.array([row["embedding"] for row in good]) - expected).max() < 1e-5
    failed = [row for row in rows if row["status"] == "error"]
    assert [row["id"] for row in failed] == [1, 2, 3, 5]
    for row in failed:
        assert (row["chunk"], row["start"], row["end"]) == (0, None, None)


def test_chunks_cover_each_text_and_share_the_overlap(folder):
    rows, _ = table(folder, ODD, Chunking(8, 2))
    for number in (0, 4, 6, 7, 8):
        chunks = [row for row in rows if row["id"] == number]
        assert [row["chunk"] for row in chunks] == list(range(len(chunks)))
        assert (chunks[0]["start"], chunks[-1]["end"]) == (0, len(ODD[number]))
    words = [ODD[4][row["start"] : row["end"]].split() for row in rows if row["id"] == 4]
    assert words == [WORDS[start : start + 8] for start in range(0, len(WORDS) - 2, 6)]


def test_a_window_is_no_longer_than_the_model_takes_beside_prompt_and_special_tokens(folder):
    rows, stats = table(folder, [LONG], Chunking(256, 3), role="query")
    room = MAX_TOKENS - 2 - len("find:")  # of the prompt each letter is a token
    assert stats.truncated == 0
    assert len(LONG[: rows[0]["end"]].split()) == room
    with pytest.raises(InvalidInput, match=rf"a chunk has at most {room} tokens in this model"):
        table(folder, [LONG], Chunking(256, 30), role="query")


def test_the_mean_of_a_text_s_chunks_has_unit_length_where_the_model_s_vectors_have(folder):
    for model in ({}, {"layer": "mean"}, {"layer": "mean", "normalize": True}):
        chunks, _ = table(folder, ODD, Chunking(8, 2), **model)
        rows, stats = table(folder, ODD, Chunking(8, 2, "mean"), **model)
        assert stats.rows == len(rows) == len(ODD)
        assert [row["id"] for row in rows] == list(range(len(ODD)))
        for row in rows:
            parts = [chunk for chunk in chunks if chunk["id"] == row["id"]]
            assert row["error"] == parts[0]["error"]
            if row["error"] is None:
                mean = np.mean([part["embedding"] for part in parts], axis=0)
                unit = not model or "normalize" in model
                expected = mean / np.linalg.norm(mean) if unit else mean
                assert np.abs(np.array(row["embedding"]) - expected).max() < 1e-6


@pytest.mark.parametrize("piece", [40, 100, 333])
def test_a_long_text_is_cut_as_if_it_were_tokenized_whole(folder, piece):
    encoder = task._build(resolved(folder), None, 1, False)
    whole = Splitter(encoder.tokenizer, 22, Chunking(8, 2))
    pieces = Splitter(encoder.tokenizer, 22, Chunking(8, 2), piece)
    for text in (
        LONG * 5,
        "blue " + " " * 900 + "cat " * 50,
        "\u200b" * 500 + "dog",
        "\u200b" * 999,
    ):
        assert pieces.spans(text) == whole.spans(text)
