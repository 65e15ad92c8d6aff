from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ember.config import load, parse
from ember.errors import InvalidConfig
from ember.settings.embedding import EmbedConfig

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
        "layer": None,
        "runtime": "auto",
        "precision": "float32",
        "batch_size": "auto",
        "normalize": False,
    }


def test_overrides_win_over_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("input: {path: x, id: i, modality: text}\nmodel: {name: 'hf:m'}\noutput:\n")
    config = load(EmbedConfig, str(file), ["input.path=[y, z]", "output.path=o"])
    assert config.input.path == ["y", "z"]
    assert config.output.path == "o"


def test_an_unknown_key_is_named_with_the_known_ones_and_a_guess():
    text = problem("model.wieghts=random")
    assert "model.wieghts" in text
    assert "did you mean weights?" in text
    assert "precision" in text


def test_an_unknown_section_lists_the_sections():
    assert "input, model, output, limits" in problem("modle.name=x")


def test_every_problem_is_reported_at_once():
    text = problem("output.mode=replace", "limits.max_failed_fraction=2", "model.batch_size=0")
    assert "output.mode" in text
    assert "'fail', 'overwrite' or 'resume'" in text
    assert "limits.max_failed_fraction" in text
    assert "model.batch_size" in text


def test_a_missing_key_is_named():
    with pytest.raises(InvalidConfig, match=r"output is missing"):
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
