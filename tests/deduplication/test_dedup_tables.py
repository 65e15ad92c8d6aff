"""Deduplication of tables against brute force on all pairs, in any order of the rows."""

from __future__ import annotations

import random
from itertools import combinations

import pyarrow as pa
import pytest

import ember
from ember.deduplication.tiers import chosen_keep, chosen_tiers
from ember.errors import InvalidConfig, InvalidInput

WORDS = [f"w{number}" for number in range(400)]
THRESHOLD = 0.6


def corpus(seed: int, count: int) -> dict[str, str | None]:
    """Texts by id: some as they are, some in capitals, some with words changed, twice over."""
    drawn = random.Random(seed)
    texts: dict[str, str | None] = {}
    for number in range(count):
        words = drawn.choices(WORDS, k=drawn.randint(2, 30))
        texts[f"t{number:03}"] = " ".join(words)
        if number % 3 == 0:
            texts[f"c{number:03}"] = "  ".join(words).upper()
        for copy in range(drawn.choice([0, 0, 1, 3])):  # each one word further from the first
            words[drawn.randrange(len(words))] = drawn.choice(WORDS)
            texts[f"e{number:03}-{copy}"] = " ".join(words)
    return {**texts, "n1": None, "n2": None, "n3": " "}


def shingled(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    size = min(3, len(words))
    return {tuple(words[n : n + size]) for n in range(len(words) - size + 1)}


def alike(one: str, other: str) -> float:
    left, right = shingled(one), shingled(other)
    return len(left & right) / len(left | right)


def exactly(one: str, other: str) -> float:
    return float(one.lower().split() == other.lower().split())


def brute_force(texts: dict[str, str | None]) -> dict[str, tuple[str, str, str]]:
    """By removed id: kept_id, group_id, tier; of all pairs, the longest text kept."""
    left = {key: text for key, text in texts.items() if text and text.strip()}
    end = {key: key for key in left}
    tiers = {}
    for tier, score, least in (("exact", exactly, 1.0), ("minhash", alike, THRESHOLD)):
        group = {key: key for key in left}
        for one, other in combinations(left, 2):
            if score(left[one], left[other]) >= least:
                old, new = group[one], group[other]
                group = {key: new if each == old else each for key, each in group.items()}
        for key in list(left):
            members = [each for each in group if group[each] == group[key]]
            best = min(members, key=lambda each: (-len(texts[each] or ""), each))
            if best != key:
                tiers[key] = tier
                end = {each: best if last == key else last for each, last in end.items()}
        left = {key: text for key, text in left.items() if key not in tiers}
    return {
        key: (end[key], min(each for each in end if end[each] == end[key]), tier)
        for key, tier in tiers.items()
    }


def frame(spark, texts, partitions: int = 1):
    table = pa.table({"id": list(texts), "text": list(texts.values())})
    return spark.createDataFrame(table.to_pandas()).repartition(partitions)


OPTIONS = {"id": "id", "content": "text", "modality": "text", "max_failed_fraction": 0.1}


def test_the_result_is_that_of_all_pairs_whatever_the_order_and_each_row_is_kept_or_removed(spark):
    texts = corpus(1, 40)
    expected = brute_force(texts)
    assert {tier for _, _, tier in expected.values()} == {"exact", "minhash"}
    shuffled = list(texts.items())
    random.Random(2).shuffle(shuffled)
    tables = []
    for given, partitions in ((texts, 1), (dict(shuffled), 5)):
        found = ember.dedup(
            frame(spark, given, partitions),
            tiers=["exact", {"minhash": THRESHOLD}],
            **OPTIONS,
        )
        removed = {row.id: row for row in found.removed.collect()}
        assert {k: (r.kept_id, r.group_id, r.tier) for k, r in removed.items()} == expected
        tables.append(removed)
    assert tables[0] == tables[1]
    kept = {row.id: row.text for row in found.kept.collect()}
    assert kept == {key: text for key, text in texts.items() if key not in expected}
    assert sorted(row.id for row in found.unread.collect()) == ["n1", "n2", "n3"]
    for key, row in removed.items():
        score = exactly if row.tier == "exact" else alike
        assert row.score == pytest.approx(score(texts[key], texts[row.neighbor_id]), abs=1e-6)
        steps = [row]  # the witnesses lead to the row that stays
        while steps[-1].neighbor_id != row.kept_id:
            steps.append(removed[steps[-1].neighbor_id])
            assert len(steps) < 10
    counts = found.facts["counts"]
    assert counts["by_tier"]["exact"] + counts["by_tier"]["minhash"] == len(expected)
    sizes = counts["groups_by_size"]
    assert sum(int(size) * number for size, number in sizes.items()) == counts["groups"]["rows"]
    assert counts["groups"]["rows"] == len(expected) + len({end for end, _, _ in expected.values()})


def test_against_another_table_exactly_the_rows_with_a_copy_there_go(spark):
    train, test = corpus(3, 25), corpus(4, 15)
    train = {number: text for number, text in enumerate(train.values()) if text and text.strip()}
    some = list(train.values())
    test |= {"p1": some[0].upper(), "p2": some[3] + " more", "p3": some[3] + " more", "p4": some[5]}
    found = ember.dedup(
        frame(spark, test),
        against=frame(spark, train),
        tiers=["exact", {"minhash": THRESHOLD}],
        **OPTIONS,
    )
    expected = {}
    for key, text in test.items():
        for tier, score, least in (("exact", exactly, 1.0), ("minhash", alike, THRESHOLD)):
            near = [(-score(text, each), n) for n, each in train.items() if text and text.strip()]
            if key not in expected and near and min(near)[0] <= -least:
                expected[key] = (min(near)[1], tier)
    assert {"p1", "p2", "p3", "p4"} <= set(expected)
    removed = {row.id: (row.kept_id, row.tier) for row in found.removed.collect()}
    assert removed == expected
    assert {row.id for row in found.kept.collect()} == set(test) - set(expected)


@pytest.mark.parametrize(
    ("tiers", "modality", "vectors", "message"),
    [
        (["exact", "exact"], "text", False, "names exact 2 times"),
        (["perceptual"], "text", False, "is for images"),
        (["minhash"], "image", False, "is for texts"),
        ([{"perceptual": 2.5}], "image", False, "give a number of bits, 0 to 16"),
        ([{"minhash": 0.0}], "text", False, "0.1 to 1"),
        ([{"embedding": 0.9}], "text", False, "no input.embedding"),
        (["exact"], "text", True, "no tier reads it"),
        ([{"minhash": 0.5, "embedding": 0.9}], "text", True, "each as an entry of its own"),
    ],
)
def test_tiers_that_do_not_fit_are_refused(tiers, modality, vectors, message):
    with pytest.raises(InvalidConfig, match=message):
        chosen_tiers(tiers, modality, vectors=vectors)


@pytest.mark.parametrize(
    ("keep", "time", "against", "message"),
    [
        ("largest", None, False, "is for images"),
        ("oldest", None, False, "needs input.time"),
        (None, "at", False, "is for keep: oldest or newest"),
        ("longest", None, True, "does not go with against"),
    ],
)
def test_policies_that_do_not_fit_are_refused(keep, time, against, message):
    with pytest.raises(InvalidConfig, match=message):
        chosen_keep(keep, "text", time=time, against=against)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("nothing", "no value of its rows"),
        ("rand()", "another value another time"),
        ("current_date()", "another value another time"),
        ("max(text)", "looks beyond the row"),
        ("row_number() over (order by id)", "looks beyond the row"),
        ("(select 1)", "looks beyond the row"),
        ("array(id)", "one value with an order"),
    ],
)
def test_what_is_no_value_of_a_row_decides_no_order(spark, expression, message):
    table = frame(spark, {"a": "x"})
    with pytest.raises(InvalidInput, match=message):
        ember.dedup(table, keep={"first_by": expression}, **OPTIONS)
