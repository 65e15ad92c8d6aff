from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.settings.yaml_text import Plain, YamlProblem, natural, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e38", 3e38),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("1.", 1.0),
        ("-2", -2),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("-.inf", -math.inf),
        ("true", True),
        ("NULL", None),
        ("", None),
        # What YAML 1.1 takes for booleans, numbers, times and dates.
        *((text, text) for text in ("yes", "off", "1_000", "1:30", "2024-01-01", "0b1", "e5", ".")),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_scalar_is_what_yaml_1_2_has_it_be(text, value):
    found = natural(text)
    assert (type(found), found) == (type(value), value)


@given(st.floats(allow_nan=False) | st.integers() | st.booleans() | st.none())
def test_what_python_writes_of_a_number_is_that_number(value):
    text = {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
    assert natural(text.replace("inf", ".inf")) == value


def test_unquoted_scalars_keep_their_text_and_quoted_ones_are_texts():
    found = parse_yaml("a: 010\nb: '010'\n2024-01-01: [1_0, \"x\", ~]\nc: 3e38")
    assert found == {"a": "010", "b": "010", "2024-01-01": ["1_0", "x", None], "c": "3e38"}
    plain = (found["a"], found["2024-01-01"][0], found["c"])
    assert [type(each) for each in plain] == [Plain] * 3
    assert type(found["b"]) is type(found["2024-01-01"][1]) is str
    assert {type(key) for key in found} == {str}


def test_what_an_alias_names_can_be_changed_in_one_place():
    found = parse_yaml("a: &it {x: [1]}\nb: *it\nc: {<<: *it, y: 2}")
    found["a"]["x"].append("2")
    assert found["b"] == {"x": ["1"]}
    assert found["c"] == {"x": ["1"], "y": "2"}


def test_escapes_of_json_are_read_as_json_has_them():
    assert parse_yaml('["\\ud83d\\ude00", "\\u00e9\\/"]') == ["\U0001f600", "é/"]


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
DEEP_BY_ALIASES = "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "aliases unfold to more than"),
        ("a: &a [*a]", "aliases unfold to more than"),
        ("a: " + "[" * 3000, "nested too deeply"),
        ("a: 1\nb: 2\na: 3", "a is given twice in one place"),
        ("a: *nothing", "undefined alias"),
        ("? [a]\n: b", "unhashable key"),
        ('a: "\\ud800"', "half a character"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        *(
            (f"a: !!{tag}", "could not determine a constructor")
            for tag in ("bool foo", "int ''", "float '-'", "timestamp x", "set {a}", "binary aGk=")
        ),
        ("%TAG ! tag:yaml.org,2002:\n---\n!bool foo: 1", "could not determine a constructor"),
        ("a: !!str {b: 1}", "expected a scalar node"),
        ("a: !!map b", "expected a mapping node"),
        ('"\\UFFFFFFFF"', "too large"),
        ('"\\U00110000"', "not in range"),
        ("a: " + "[" * 51 + "]" * 51, "nested too deeply: more than 50"),
        (DEEP_BY_ALIASES, "nested too deeply: more than 50"),
    ],
)
def test_what_is_no_yaml_or_unfolds_without_end_is_refused(text, words):
    with pytest.raises(YamlProblem, match=words):
        parse_yaml(text)


def test_what_is_wrong_is_told_in_few_words_however_long_it_is():
    with pytest.raises(YamlProblem) as caught:
        parse_yaml(f"{'k' * 1000}: 1\n{'k' * 1000}: 2")
    assert len(str(caught.value)) <= 500


def test_a_tag_that_says_what_a_value_is_anyway_is_fine():
    assert parse_yaml("a: !!str x\nb: !!seq [1]\nc: !!map {d: !!null ~}") == {
        "a": "x",
        "b": ["1"],
        "c": {"d": None},
    }


def test_a_file_is_read_up_to_a_size_and_in_utf_8(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9")
    assert read_yaml(str(file)) == {"a": "é"}
    file.write_bytes(b"a: \xe9")
    with pytest.raises(YamlProblem, match="not in UTF-8"):
        read_yaml(str(file))
    with pytest.raises(YamlProblem, match="larger than 1048576 bytes"):
        read_yaml("/dev/zero")
