"""What the documentation says holds together: the examples under conf/, the tests it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ember import config
from ember.jobs.pipeline import JOBS
from ember.pipeline.planning import plan
from ember.settings.pipeline import PipelineConfig

CONF = Path(__file__).parent.parent / "conf"
EXAMPLES = sorted((CONF / "examples").glob("*.yaml"))
KINDS = {name: kind for name, (kind, _) in JOBS.items()}


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
