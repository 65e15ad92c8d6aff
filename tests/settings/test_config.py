from __future__ import annotations

import json
import re
from typing import get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ember.errors import InvalidConfig
from ember.settings.comparison import JoinConfig, Metric
from ember.settings.config import load, parse
from ember.settings.description import DescribeConfig
from ember.settings.embedding import EmbedConfig, ModelConfig
from ember.settings.evaluation import EvaluateConfig
from ember.settings.training import ClassifyConfig
from ember.settings.yaml_text import NULLS
from ember.worker.vectors.basis import METRICS

MINIMAL = ["input.path=a", "input.id=i", "input.modality=image", "model.name=keras:ResNet50"]
MINIMAL += ["output.path=out"]


def problem(*overrides: str, file: str | None = None) -> str:
    with pytest.raises(InvalidConfig) as caught:
        load(EmbedConfig, file, [*MINIMAL, *overrides])
    return str(caught.value)


def test_overrides_alone_make_a_configuration_with_the_contract_s_defaults():
    config = load(EmbedConfig, None, MINIMAL)
    assert config.output.mode == "fail"
    assert config.limits.max_failed_fraction == 0.01
    assert config.model.model_dump() == {
        "name": "keras:ResNet50",
        "weights": "imagenet",
        "revision": None,
        "layer": "auto",
        "role": None,
        "prompt": None,
        "dimension": None,
        "runtime": "auto",
        "precision": "float32",
        "batch_size": "auto",
        "normalize": False,
    }


def test_the_metrics_of_the_jobs_are_those_of_the_kernels():
    assert get_args(Metric) == METRICS


def test_overrides_win_over_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("input: {path: x, id: i, modality: text}\nmodel: {name: 'hf:m'}\noutput:\n")
    config = load(EmbedConfig, str(file), ["input.path=[y, z]", "output.path=o"])
    assert config.input.path == ["y", "z"]
    assert config.output.path == "o"


def test_a_text_that_is_not_unicode_is_refused_with_its_key():
    with pytest.raises(InvalidConfig, match=r"embed: prompt: give text that is Unicode, not '.ud8"):
        parse(ModelConfig, {"name": "hf:m", "prompt": "\ud800: "}, "embed")
    values = {"path": ["a", "\udcff"], "id": "i", "modality": "text"}
    with pytest.raises(InvalidConfig, match=r"input\.path: give text that is Unicode"):
        parse(EmbedConfig, {"input": values}, "embed")


def test_an_unknown_key_is_named_with_the_known_ones_and_a_guess():
    text = problem("model.wieghts=random")
    assert "model.wieghts" in text
    assert "did you mean weights?" in text
    assert "precision" in text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batch_size=3", "unknown key batch_size (did you mean model.batch_size?)"),
        ("output.layr=fc1", "unknown key output.layr (did you mean model.layer?)"),
        ("path=x", "unknown key path (did you mean input.path or output.path?)"),
        ("zzz=x", "unknown key zzz; known keys here: input, model, output, limits, chunk"),
    ],
)
def test_an_unknown_key_that_another_section_has_is_found_there(override, words):
    assert words in problem(override)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (
            ClassifyConfig,
            "features: [{path: a, id: i}, {path: a, idd: b}]",
            [
                "features.1.id is missing; give it in the file",
                "unknown key features.1.idd (did you mean id?); known keys here: path, table, ",
            ],
        ),
        (
            DescribeConfig,
            "prompt: {template: x, tables: {t: {pth: a}}}",
            [
                "prompt.tables.t.id is missing; give it in the file or with --set prompt.tables.",
                "unknown key prompt.tables.t.pth (did you mean path?); known keys here: path, ",
            ],
        ),
        (ClassifyConfig, "model: 3", ["model: input should be a section, not 3"]),
    ],
)
def test_a_key_inside_a_list_or_a_mapping_is_named_by_its_place(tmp_path, kind, text, words):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(InvalidConfig) as caught:
        load(kind, str(file), [])
    lines = str(caught.value).splitlines()
    assert all(any(each in line for line in lines) for each in words), lines


@pytest.mark.parametrize("text", ["output:", "output: {path: }", "output: {path: ''}"])
def test_a_required_key_left_empty_is_said_to_be_empty(tmp_path, text):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(InvalidConfig, match=r"is empty; give it .* with --set output\.path="):
        load(EmbedConfig, str(file), MINIMAL[:-1])


def test_an_unknown_section_lists_the_sections():
    assert "input, model, output, limits" in problem("modle.name=x")


def test_every_problem_is_reported_at_once():
    text = problem("output.mode=replace", "limits.max_failed_fraction=2", "model.batch_size=0")
    assert "output.mode" in text
    assert "'fail', 'overwrite', 'resume' or 'sync'" in text
    assert "limits.max_failed_fraction" in text
    assert "model.batch_size" in text


def test_of_many_problems_a_reader_gets_the_first_and_how_many_more(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("".join(f"k{n}: 1\n" for n in range(500)))
    lines = problem(file=str(file)).splitlines()
    assert len(lines) == 21
    assert "unknown key k19" in lines[19]
    assert lines[20] == "… and 480 more"
    file.write_text("".join(f"{'k' * 1000}{n}: 1\n" for n in range(50)))
    told = problem(file=str(file))
    assert len(told) < 5000
    assert "… (1001 characters)" in told


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("a." * 3000 + "a=1", "nested too deeply"),
        ("input.path=[" + "a," * 200_000 + "]", "longer than 65536 characters"),
        ("x" * 60_000, "write it as dotted.key=value"),
        ("input.path." + "x" * 60_000 + ".y=1", "path is a value"),
        ("x" * 60_000 + "=1", "unknown key xxx"),
    ],
)
def test_an_override_without_measure_is_refused_in_few_words(override, words):
    told = problem(override)
    assert words in told
    assert len(told) < 1000


def test_a_missing_key_is_named():
    with pytest.raises(InvalidConfig, match=r"output is missing; .* --set output\.path=\.\.\."):
        load(EmbedConfig, None, MINIMAL[:-1])


@pytest.mark.parametrize(
    ("content", "words"),
    [("a: [", "is not YAML"), ("- a", "not a list"), ("\x00", "is not YAML")],
)
def test_a_file_that_holds_no_keys_is_refused(tmp_path, content, words):
    file = tmp_path / "c.yaml"
    file.write_text(content)
    assert words in problem(file=str(file))


def test_a_missing_file_is_named():
    assert "there is no configuration file nowhere.yaml" in problem(file="nowhere.yaml")


@pytest.mark.parametrize("override", ["model", "=x", "model..name=x", "model.name.x=1"])
def test_an_override_that_is_no_assignment_is_shown(override):
    assert override in problem(override)


# What a shell can pass on: any text but NUL, and what YAML would make something else of.
ODD = ["out/run #3", "a: b", "010", "1_000", "3e38", "yes", "null", "~", "2024-01-01", "'a'", '"a"']
ODD += [
    "{a}",
    "*x",
    "&x",
    "!x",
    "%x",
    "@x",
    "- a",
    " a ",
    "a\n#b",
    "[",
    "$x",
    "=",
    "a=b",
    "é",
    "<<",
]
TEXTS = st.sampled_from(ODD) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1
)


@given(TEXTS)
def test_a_text_given_by_set_is_that_text(text):
    sets = [f"output.path={text}", f"input.id={text}", f"model.name={text}", *MINIMAL[0:3:2]]
    config = load(EmbedConfig, None, sets)
    assert (config.output.path, config.input.id, config.model.name) == (text, text, text)
    described = ["prompt.template=x", f"prompt.separator={text}", f"prompt.columns.a={text}"]
    prompt = load(DescribeConfig, None, [*MINIMAL, *described]).prompt
    assert (prompt.separator, prompt.columns) == (text, {"a": text})


@given(TEXTS)
def test_a_text_in_a_file_is_that_text_however_it_is_quoted(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("yaml") / "c.yaml"
    for width in (20, 2000):
        written = yaml.safe_dump({"output": {"path": text}}, width=width)
        file.write_bytes(written.encode())
        assert load(EmbedConfig, str(file), MINIMAL[:-1]).output.path == text


@given(TEXTS.filter(lambda text: text not in NULLS and not text.startswith("[")))
def test_a_path_or_a_list_of_them_is_told_by_its_brackets(text):
    assert load(EmbedConfig, None, [*MINIMAL, f"input.path={text}"]).input.path == text
    quoted = json.dumps(["010", text])
    assert load(EmbedConfig, None, [*MINIMAL, f"input.path={quoted}"]).input.path == ["010", text]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("threshold", "3e38", 3e38),
        ("threshold", "1e-3", 0.001),
        ("threshold", "2", 2.0),
        ("left.where", "null", None),
        ("left.where", "", None),
        ("left.where", "a = 'null' #", "a = 'null' #"),
        ("left.path", "[a, 010, 2024-01-01]", ["a", "010", "2024-01-01"]),
        ("left.path", "[a]b", "[a]b"),
        ("left.path", "part-[0-9]*", "part-[0-9]*"),
        ("left.path", "[a, b", "[a, b"),
        ("right", "null", None),
        ("right", "{path: 010, id: no}", {"path": "010", "id": "no"}),
        ("within", "[day, 010]", ["day", "010"]),
        ("within", "[]", []),
        ("limits.rows_per_block", "auto", "auto"),
        ("limits.rows_per_block", "0x10", 16),
        ("limits", "{max_pairs: 3}", {"max_pairs": 3}),
    ],
)
def test_what_a_value_of_set_is_depends_on_its_key(key, text, value):
    sets = ["left.path=a", "left.id=i", "threshold=0.5", "output.path=o", f"{key}={text}"]
    found = load(JoinConfig, None, sets).model_dump(exclude_unset=True)
    for part in key.split("."):
        found = found[part]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("text", ["yes", "on", "true", "True", "off", "no", "false"])
def test_a_key_that_is_true_or_false_takes_the_words_for_it(text, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(f"model: {{normalize: {text}}}")
    for given_file, sets in ((str(file), []), (None, [f"model.normalize={text}"])):
        config = load(EmbedConfig, given_file, [*MINIMAL, *sets])
        assert config.model.normalize is (text.lower() in ("yes", "on", "true"))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("[0, 1, 2]", [0, 1, 2]),
        ("[cat, 010, yes]", ["cat", "010", "yes"]),
        ('["0", "1"]', ["0", "1"]),
    ],
)
def test_class_names_are_numbers_where_all_of_them_are(tmp_path, written, read):
    file = tmp_path / "c.yaml"
    file.write_text(f"kind: classification\noutput: {{path: o}}\nclasses: {written}")
    assert load(EvaluateConfig, str(file), []).classes == read
    assert load(EvaluateConfig, str(file), [f"classes={written}"]).classes == read


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.batch_size=1_000", "'auto' or a valid integer|valid integer, not '1_000'"),
        ("limits.max_failed_fraction=2024-01-01", "valid number, not '2024-01-01'"),
        ("limits.max_pixels=" + "9" * 5000, r"not '9{199}… \(5002 characters\)"),
        ("limits.max_failed_fraction=[1", r"valid number, not '\[1'"),
        ("model.normalize=maybe", "valid boolean, not 'maybe'"),
    ],
)
def test_what_is_no_value_of_its_key_is_shown_as_it_was_written(override, words):
    assert re.search(words, problem(override))


def test_an_override_changes_one_place_of_what_two_aliases_name(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("left: &t {path: a, id: i}\nright: *t\nthreshold: 3e38\noutput: {path: o}")
    config = load(JoinConfig, str(file), ["right.path=b"])
    assert (config.left.path, config.right.path, config.threshold) == ("a", "b", 3e38)


@given(st.text(min_size=1).filter(str.strip), st.floats(0, 1), st.integers(1, 65536))
def test_values_survive_the_way_through_yaml(name, fraction, batch):
    values = {
        "input": {"path": [name], "id": name, "modality": "text"},
        "model": {"name": name, "batch_size": batch},
        "output": {"path": name},
        "limits": {"max_failed_fraction": fraction},
    }
    config = parse(EmbedConfig, yaml.safe_load(yaml.safe_dump(values)), "test")
    assert (config.input.id, config.model.batch_size) == (name, batch)
    assert config.limits.max_failed_fraction == fraction
    assert parse(EmbedConfig, config.model_dump(mode="json"), "again") == config


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.none())))
def test_no_input_raises_anything_but_invalid_config(values):
    with pytest.raises(InvalidConfig):
        parse(EmbedConfig, values, "test")
