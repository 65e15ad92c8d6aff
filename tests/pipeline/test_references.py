"""References between steps; no Spark."""

from __future__ import annotations

import pytest

from ember.errors import InvalidConfig
from ember.pipeline.references import References
from ember.settings.comparison import JoinConfig

JOIN = JoinConfig.model_validate(
    {
        "left": {"path": "e", "id": "i"},
        "threshold": 0.5,
        "groups": {"path": "out/groups"},
        "output": {"path": "out/pairs"},
    }
)


@pytest.fixture
def known() -> References:
    return References({"out": "s3a://b/x", "k": 5, "fast": True}, {"pairs": JOIN}, later=("last",))


def test_a_reference_within_a_text_becomes_text_and_one_alone_keeps_its_type(known):
    given = {
        "path": "$out/a",
        "list": ["${out}_2", "$pairs/part", "${pairs.groups.path}"],
        "k": "$k",
        "threshold": "${pairs.threshold}",
        "fast": "$fast",
        "price": "$$5, and $${out}",
        "none": None,
        "number": 7,
        "projection": "$pairs.projection",
    }
    assert known.resolve(given, "steps.x") == {
        "path": "s3a://b/x/a",
        "list": ["s3a://b/x_2", "out/pairs/part", "out/groups"],
        "k": 5,
        "threshold": 0.5,
        "fast": True,
        "price": "$5, and ${out}",
        "none": None,
        "number": 7,
        "projection": "out/pairs.projection",
    }
    assert known.used == {"pairs"}


def test_what_is_substituted_is_not_looked_through_again():
    assert References({"a": "$$b $b", "b": "x"}).resolve("$a-$a", "k") == "$$b $b-$$b $b"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$pears/x", "did you mean pairs?"),
        ("$pears/x", "variables: out, k, fast; steps above: pairs"),
        ("$last", "step last comes below; a step refers to those above it"),
        ("${pairs.groups.paths}", "step pairs has no key groups.paths"),
        ("${pairs.groups}", "not a single value"),
        ("${pairs.right}", "is None, not a single value"),
        ("${out.path}", "out is a variable, which has no keys"),
        ("5 $", "and $$ for a dollar itself"),
        ("${out", "and $$ for a dollar itself"),
        ("$-", "and $$ for a dollar itself"),
    ],
)
def test_a_reference_that_leads_nowhere_is_explained_with_its_place(known, text, words):
    with pytest.raises(InvalidConfig) as caught:
        known.resolve({"input": [{"path": text}]}, "steps.x")
    assert str(caught.value).startswith("steps.x.input.0.path: ")
    assert words in str(caught.value)
