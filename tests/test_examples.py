"""The examples under conf/ hold together: every step, against the configuration of its job."""

from __future__ import annotations

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
