"""Recall of labeled pairs, against scores by brute force in Python; which pairs are of no use."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.stats import binomtest

import ember
from ember.errors import InvalidConfig, InvalidInput

WORDS = [f"w{number}" for number in range(300)]


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[n : n + 3]) for n in range(len(words) - 2)}


def jaccard(one: str, other: str) -> float:
    left, right = shingles(one), shingles(other)
    return len(left & right) / len(left | right)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    left, right = one.astype(np.float64), other.astype(np.float64)
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


@pytest.fixture(scope="module")
def corpus() -> tuple[dict[int, str], dict[int, np.ndarray], list[tuple[int, int, bool]]]:
    """Texts by id, vectors by id, and pairs: of a text with copies ever further from it, and of
    texts that have nothing to do with each other but some words."""
    drawn, rng = random.Random(7), np.random.default_rng(7)
    texts: dict[int, str] = {}
    vectors: dict[int, np.ndarray] = {}
    pairs = []
    for number in range(0, 200, 5):
        words = drawn.choices(WORDS, k=25)
        vectors[number] = rng.normal(size=8).astype(np.float32)
        texts[number] = " ".join(words)
        for copy in range(1, 1 + drawn.randrange(4)):
            for _ in range(2):
                words[drawn.randrange(25)] = drawn.choice(WORDS)
            texts[number + copy] = " ".join(words)
            noise = rng.normal(size=8).astype(np.float32)
            vectors[number + copy] = vectors[number] + np.float32(0.25 * copy) * noise
            pairs.append((number, number + copy, True))
        if number:
            pairs.append((number, drawn.randrange(0, number, 5), False))
    return texts, vectors, pairs


def wilson(count: int, of: int) -> tuple[float, float, float]:
    ends = binomtest(count, of).proportion_ci(method="wilson")
    return count / of, ends.low, ends.high


def test_recall_at_each_threshold_and_of_the_run(spark, corpus):
    texts, vectors, pairs = corpus
    rows = spark.createDataFrame(list(texts.items()), "id long, text string")
    embeddings = spark.createDataFrame(
        [(key, vector.tolist()) for key, vector in vectors.items()],
        "id long, embedding array<float>",
    )
    # Some the other way round, and each of no use for another reason.
    given = [(b, a, label) if n % 3 else (a, b, label) for n, (a, b, label) in enumerate(pairs)]
    lost = [(0, 0, True), (None, 5, True), (0, 5, None), (0, 99_999, False), pairs[0]]
    first, second = pairs[1][:2], pairs[2][:2]
    lost += [(*first, not pairs[1][2])]
    used = [pair for pair in pairs if pair[:2] != first]
    judged = spark.createDataFrame(given + lost, "left_id int, right_id long, copy boolean")
    found = ember.dedup(
        rows,
        id="id",
        content="text",
        modality="text",
        tiers=["exact", {"minhash": 0.6}, {"embedding": 0.96}],
        embeddings=embeddings,
        pairs=judged,
    )
    told = found.facts["pairs"]
    copies = [pair for pair in used if pair[2]]
    others = [pair for pair in used if not pair[2]]
    assert (told["copies"], told["others"]) == (len(copies), len(others))
    assert told["unused"] == {
        "null": 2, "one row": 1, "repeated": 2, "copies and others": 1, "rows not read": 1,
    }  # fmt: skip
    assert second != first
    removed = {row.id: row for row in found.removed.collect()}
    end = {key: removed[key].kept_id if key in removed else key for key in texts}
    together = sum(end[a] == end[b] for a, b, _ in copies)
    assert 0 < together < len(copies)
    assert [told[key] for key in ("recall", "recall_low", "recall_high")] == pytest.approx(
        wilson(together, len(copies))
    )
    scores = {
        "minhash": lambda a, b: jaccard(texts[a], texts[b]),
        "embedding": lambda a, b: cosine(vectors[a], vectors[b]),
    }
    seen = set()
    for row in told["thresholds"]:
        score, least = scores[row["tier"]], row["threshold"]
        for name, some in (("recall", copies), ("wrong", others)):
            count = sum(score(a, b) >= least for a, b, _ in some)
            ends = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
            assert ends == pytest.approx(wilson(count, len(some))), (row, name)
        witnesses = [each for each in removed.values() if each.tier == row["tier"]]
        gone = sum(each.score >= np.float32(least) for each in witnesses) / len(texts)
        own = {"minhash": 0.6, "embedding": 0.96}[row["tier"]]
        assert row["removed"] == (pytest.approx(gone) if least >= own else None)
        seen.add((row["tier"], round(row["recall"], 3)))
    assert len(seen) > 10  # the thresholds tell the pairs apart


def test_labels_may_be_numbers_and_must_be_labels(spark):
    rows = spark.createDataFrame(
        [("a", "x y z"), ("b", "X  y z"), ("c", "p q r")], "id string, t string"
    )
    how = {"id": "id", "content": "t", "modality": "text", "tiers": ["exact"]}
    pairs = spark.createDataFrame(
        [("a", "b", 1), ("c", "a", 0), ("b", "c", 7)], "left_id string, right_id string, copy int"
    )
    told = ember.dedup(rows, pairs=pairs, **how).facts["pairs"]
    assert (told["recall"], told["wrong"], told["unused"]) == (1.0, 0.0, {"null": 1})
    assert told["thresholds"] == []
    none = ember.dedup(rows, pairs=pairs.limit(0), **how).facts["pairs"]
    assert (none["copies"], none["recall"], none["wrong_high"]) == (0, None, None)
    nothing = ember.dedup(rows.limit(0), pairs=pairs, **{**how, "tiers": ["minhash"]})
    empty = nothing.facts["pairs"]
    assert (empty["copies"], empty["unused"]) == (0, {"null": 1, "rows not read": 2})
    assert empty["thresholds"][-1]["removed"] == 0
    text = pairs.selectExpr("left_id", "right_id", "string(copy) AS copy")
    with pytest.raises(InvalidInput, match="the labels of pairs are string; give a boolean, or 1"):
        ember.dedup(rows, pairs=text, **how)
    numbers = pairs.selectExpr("1 AS left_id", "right_id", "copy")
    with pytest.raises(InvalidInput, match="the ids of the labeled pairs and of the rows are int"):
        ember.dedup(rows, pairs=numbers, **how)
    with pytest.raises(InvalidConfig, match="pairs does not go with against"):
        ember.dedup(rows, pairs=pairs, against=rows, **how)
