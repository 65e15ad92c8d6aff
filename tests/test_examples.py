"""What the documentation says holds together: the examples under conf/, the tests it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ember.jobs.pipeline import JOBS
from ember.pipeline.planning import plan
from ember.settings import config
from ember.settings.config_keys import Key, keys_of, walk
from ember.settings.config_text import type_name
from ember.settings.pipeline import PipelineConfig

CONF = Path(__file__).parent.parent / "conf"
EXAMPLES = sorted((CONF / "examples").glob("*.yaml"))
KINDS = {name: kind for name, (kind, _) in JOBS.items()}
# A file for each job or kind of evaluation, named for the job.
TEMPLATES = [file for file in sorted(CONF.glob("*.yaml")) if file.stem != "pipeline_demo"]


def kind_of(file: Path) -> type[config.Config]:
    return KINDS[file.stem.partition("_")[0]]


def given(node: yaml.MappingNode, keys: tuple[Key, ...], value: Any) -> Iterator[Any]:
    """The keys that a file gives, with their values and the numbers of their lines."""
    known = {key.last: key for key in keys}
    for name, inner in node.value:
        key, own = known[name.value], getattr(value, name.value)
        yield key, own, name.start_mark.line
        if key.form == "section" and isinstance(inner, yaml.MappingNode):
            yield from given(inner, key.keys, own)


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_a_setting_in_conf_that_is_no_default_says_so(file):
    """Tables and columns are the user's own; of all else a reader may take the default for it."""
    text = file.read_text("utf-8")
    loaded = config.load(kind_of(file), str(file), [])
    lines = text.splitlines()
    for key, value, line in given(yaml.compose(text), keys_of(kind_of(file)), loaded):
        own = (
            key.required
            or key.form
            or {"text", "path"} & set(re.findall(r"\b(?:text|path)\b", type_name(key.annotation)))
        )
        if not own and value != key.default:
            told = [lines[line]]
            told += lines[line + 1 : line + 2]
            assert re.search(r"# .*\bdefault: ", "\n".join(told)), f"{file.name}: {key.name}"


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_a_key_in_a_comment_of_conf_is_one_of_its_job(file):
    known = {key.last for key in walk(keys_of(kind_of(file)))}
    names = {"label", "captions"} if file.stem == "describe" else set()  # of tables, by example
    for line in file.read_text("utf-8").splitlines():
        if re.match(r"# +([a-z_]+: |\{)", line):
            code = line[1:].partition("#")[0]
            found = set(re.findall(r"(?:^ *|[{,] *)([a-z_]+): ", code))
            assert found <= known | names, line


def test_every_job_has_a_file_in_conf():
    assert {file.stem.partition("_")[0] for file in TEMPLATES} == set(KINDS)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_step_of_an_example_is_valid(file):
    work = plan(config.load(PipelineConfig, str(file), []), KINDS)
    embedded = {step.name for step in work.steps if step.job == "embed"}
    read = {name for step in work.steps for name in step.needs}
    assert embedded <= read  # nothing is embedded in vain
    text = file.read_text("utf-8")
    assert f"--config conf/examples/{file.name}" in text
    assert all(f"\n  {name}: " in text for name in config.load(PipelineConfig, str(file), []).vars)


def test_there_is_an_example_of_each_system():
    assert [file.stem for file in EXAMPLES] == [
        "classifier_comparison",
        "deduplication",
        "image_search",
        "multi_modal_labels",
        "text_pairs",
        "text_to_image_search",
    ]


def test_every_test_that_the_documentation_names_is_there():
    root = CONF.parent
    tests = "\n".join(file.read_text("utf-8") for file in (root / "tests").rglob("test_*.py"))
    for page in [root / "README.md", *(root / "docs").glob("*.md")]:
        for name in re.findall(r"`(test_\w+)`", page.read_text("utf-8")):
            assert f"def {name}(" in tests, f"{page.name} names {name}"
        for name in re.findall(r"`(?:tests/)?(\w+/test_\w+\.py)`", page.read_text("utf-8")):
            assert (root / "tests" / name).is_file(), f"{page.name} names {name}"
