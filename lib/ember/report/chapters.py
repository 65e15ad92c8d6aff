"""Which chapter a run gets, alone on its page or as a step of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ember.report.cells import Head, View, cell
from ember.report.comparing import join_chapter, search_chapter
from ember.report.content import Report
from ember.report.evaluation import evaluation_chapter
from ember.report.layout import Chapter, Section
from ember.report.runs import plain_section, run_section

if TYPE_CHECKING:
    from ember.report.combined import Step

__all__ = ["chapter_of", "overview", "step_chapter"]


def chapter_of(report: Report, manifest: Mapping[str, Any]) -> Chapter:
    """What a page says of a run that has a report."""
    kinds = {"search": search_chapter, "join": join_chapter}
    chapter = kinds.get(report.kind, evaluation_chapter)(report, manifest)
    sections = [*chapter.sections, run_section(manifest)]
    return Chapter(chapter.title, chapter.lead, sections, chapter.warnings)


def step_chapter(step: Step) -> Chapter:
    """What a page says of a step: its report, else what its manifest tells, else its outcome."""
    if step.manifest is None:
        chapter = Chapter("", "", [])
    elif step.report is not None:
        chapter = chapter_of(step.report, step.manifest)
    else:
        chapter = Chapter("", "", [plain_section(step.manifest), run_section(step.manifest)])
    took = "" if step.seconds is None else f" in {step.seconds:.1f} s"
    told = f"{step.job}, {step.outcome}{took}."
    lead = " ".join(filter(None, (told, step.message, chapter.lead)))
    return Chapter(step.name, lead, chapter.sections, chapter.warnings)


def overview(steps: Sequence[Step]) -> Section:
    """The table of the steps."""
    heads = [Head(name) for name in ("step", "job", "outcome")]
    heads += [Head("seconds", True), Head("rows", True), Head("output"), Head("message")]
    rows = []
    for step in steps:
        count = (step.manifest or {}).get("counts", {}).get("rows")
        texts = (cell(text) for text in (step.name, step.job, step.outcome))
        numbers = (cell(step.seconds, True), cell(count, True))
        rows.append([*texts, *numbers, cell(step.path), cell(step.message)])
    return Section("steps", "Steps", (), [View("steps", "What each step did", heads, rows)])
