"""What --help and --print-config say of the keys, and that both follow from the configuration."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from ember.errors import InvalidConfig
from ember.jobs.pipeline import JOBS
from ember.settings.config import Config, load, parse
from ember.settings.config_keys import keys_of, walk
from ember.settings.config_text import as_help, as_yaml, type_name
from ember.settings.names import LocalFile, ModelName, Paths, Target
from ember.settings.pipeline import PipelineConfig, StepConfig

KINDS: dict[str, type[Config]] = {name: kind for name, (kind, _) in JOBS.items()}
KINDS["pipeline"] = PipelineConfig
REQUIRED = re.compile(r"^([ #]*\w+:)  # required; (?![\[{])(.*)$", re.MULTILINE)


def filled(template: str) -> str:
    """A template with a value for each required key, the first that its type names."""
    values = {"number": "0.5", "text": "word", "path": "some/path"}

    def fill(found: re.Match[str]) -> str:
        first = found[2].split(" | ")[0]
        return f"{found[1]} {values.get(first, first)}"

    return REQUIRED.sub(fill, template)


def minimal(keys: Any) -> dict[str, Any]:
    """The required keys alone, with the values that `filled` gives them."""
    found = {}
    for key in keys:
        if key.required and key.keys:
            inner = minimal(key.keys)
            found[key.last] = {"section": inner, "list": [inner], "mapping": {"NAME": inner}}[
                key.form
            ]
        elif key.required:
            first = type_name(key.annotation).split(" | ")[0]
            found[key.last] = {"number": 0.5, "text": "word", "path": "some/path"}.get(first, first)
    return found


def with_all_sections(template: str) -> str:
    """A template in which what is left out by default is there."""
    while re.search(r"^ *#(?! \S)", template, re.MULTILINE):
        template = re.sub(r"^( *)(\w+): .*\n\1#\2:", r"\1#\2:", template, flags=re.MULTILINE)
        template = re.sub(r"^( *)#(?! \S)", r"\1", template, flags=re.MULTILINE)
    return template


def plain(config: Config) -> dict[str, Any]:
    """The values of a configuration; those of a step as its own class has them."""
    values = config.model_dump()
    if isinstance(config, PipelineConfig):
        steps = config.steps.items()
        values["steps"] = {n: parse(StepConfig, step, "step").model_dump() for n, step in steps}
    return values


@pytest.mark.parametrize("job", KINDS)
def test_every_key_of_a_job_is_described_in_one_plain_line(job):
    for key in walk(keys_of(KINDS[job])):
        assert re.fullmatch(r"[A-Z0-9][ -_a-z{|}~]{8,118}[A-Za-z0-9)}]\.", key.description), (
            key.name
        )
        assert "  " not in key.description, key.name


@pytest.mark.parametrize("job", KINDS)
def test_the_help_has_every_key_with_its_type_and_default(job):
    told = as_help(KINDS[job], 10_000).splitlines()
    keys = list(walk(keys_of(KINDS[job])))
    heads = [line.strip() for line in told if re.match(r"  \S", line)]
    assert [head.split(" ")[0] for head in heads] == [key.name for key in keys]
    for key, head in zip(keys, heads, strict=True):
        assert head.startswith(f"{key.name} ({type_name(key.annotation)}")
        assert ("; required" in head) == key.required
        assert key.required or key.form == "section" or "; default: " in head
        assert f"      {key.description}" in told


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("job", KINDS)
def test_the_help_fits_a_terminal_of_any_letters(job, width):
    told = as_help(KINDS[job], width)
    assert told.isascii()
    assert max(map(len, told.splitlines())) <= width


@pytest.mark.parametrize("job", KINDS)
def test_a_printed_configuration_has_the_defaults_once_the_required_keys_have_values(job, tmp_path):
    file = tmp_path / "c.yaml"
    template = as_yaml(KINDS[job], ["A heading."])
    assert template.isascii()
    assert max(map(len, template.splitlines())) <= 100
    file.write_text(filled(template))
    expected = parse(KINDS[job], minimal(keys_of(KINDS[job])), "test")
    assert plain(load(KINDS[job], str(file), [])) == plain(expected)


@pytest.mark.parametrize("job", KINDS)
def test_a_printed_configuration_holds_every_key_also_of_sections_left_out(job, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(with_all_sections(filled(as_yaml(KINDS[job], []))))
    values = load(KINDS[job], str(file), []).model_dump()

    def names(value: Any, at: str = "") -> set[str]:
        if isinstance(value, list):
            return {at}.union(*(names(each, f"{at}[]") for each in value))
        if isinstance(value, dict):
            return {at}.union(*(names(value[key], f"{at}.{key}") for key in value))
        return {at}

    wanted = {f".{key.name}" for key in walk(keys_of(KINDS[job]))}
    assert wanted - names(values) == set()


@pytest.mark.parametrize("job", KINDS)
def test_a_printed_configuration_that_nobody_filled_in_names_the_keys_to_fill(job, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(as_yaml(KINDS[job], []))
    with pytest.raises(InvalidConfig, match=r"output\.path is empty; give it in the file or with"):
        load(KINDS[job], str(file), [])


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (bool, "true | false"),
        (float | None, "number | null"),
        (None | Literal["a", "b"] | int, "a | b | integer | null"),
        (Literal["auto"] | Annotated[int, Field(ge=1)], "auto | integer >= 1"),
        (Annotated[float, Field(ge=0, le=1)], "number 0 to 1"),
        (Annotated[float, Field(gt=0, lt=1)], "number > 0 and < 1"),
        (Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)], "[integer >= 1, ...]"),
        (dict[str, float], "{NAME: number, ...}"),
        (dict[str, Any], "{NAME: value, ...}"),
        (list[Config] | None, "[section, ...] | null"),
        (Config, "section"),
        (Paths, "path | [path, ...]"),
        (Target | None, "path | null"),
        (LocalFile, "path"),
        (ModelName, "text"),
    ],
)
def test_a_type_is_told_as_a_user_writes_it(annotation, name):
    assert type_name(annotation) == name


class Inner(Config):
    a: int = Field(default=1, description="A.")
    b: str = Field(default="x: y", description="B.")


class Outer(Config):
    inner: Inner = Field(default=Inner(a=2), description="Of its own default.")
    words: list[str] = Field(default=["yes", "3"], description="Words.")
    no: str = Field(default="null", description="Looks like nothing.")
    empty: str = Field(default="", description="Nothing.")


def test_the_defaults_of_a_section_are_those_that_its_owner_gives_it():
    assert "inner.a (integer; default: 2)" in as_help(Outer)


def test_defaults_that_yaml_would_take_for_something_else_are_quoted(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(as_yaml(Outer, ["Keys: all of them."]))
    assert load(Outer, str(file), []) == Outer()
    assert 'words: ["yes", "3"]' in file.read_text()
