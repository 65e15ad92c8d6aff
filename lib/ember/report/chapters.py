"""Which chapter a run gets, alone on its page or as a step of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ember.report.cells import Cell, Head, View, cell
from ember.report.comparing import join_chapter, search_chapter
from ember.report.content import Report
from ember.report.evaluation import evaluation_chapter
from ember.report.layout import Chapter, Section
from ember.report.runs import count_section, run_section

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
        sections = [count_section(step.manifest), run_section(step.manifest, whole=True)]
        chapter = Chapter("", "", sections)
    took = "" if step.seconds is None else f" in {step.seconds:.1f} s"
    why = f": {step.message}" if step.message else ""
    lead = f"{step.job}, {step.outcome}{took}{why}. {chapter.lead}".strip()
    return Chapter(step.name, lead, chapter.sections, chapter.warnings)


def overview(steps: Sequence[Step]) -> Section:
    """The table of the steps."""
    heads = [Head(name) for name in ("step", "job", "outcome")]
    heads += [Head("seconds", True), Head("rows", True), Head("output")]
    rows = []
    for step in steps:
        count = (step.manifest or {}).get("counts", {}).get("rows")
        texts = (cell(text) for text in (step.name, step.job, step.outcome))
        seconds = cell(step.seconds, True)
        if step.seconds is not None:
            seconds = Cell(f"{step.seconds:.1f}", seconds.value)
        rows.append([*texts, seconds, cell(count, True), cell(step.path)])
    return Section("steps", "Steps", (), [View("steps", "What each step did", heads, rows)])
