"""The page of a run, and the page of all steps of a pipeline: one HTML file each.

Nothing on the page comes from elsewhere: style and script are inline, named by their hashes in a
Content-Security-Policy that allows no others; charts are SVG elements, thumbnails are data: URIs.
Every text is escaped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from ember.report.copies_chapter import copies_chapter
from ember.report.drift_chapter import drift_chapter
from ember.report.evaluation import evaluation_chapter, headlines
from ember.report.galleries import collage
from ember.report.inline import inline, templates
from ember.report.layout import Chapter, Headline, Section
from ember.report.manifest_section import count_section, measured, row_counts, run_section, seconds
from ember.report.match_chapters import join_chapter, search_chapter
from ember.report.report import Report, Step
from ember.report.table_view import Cell, Head, View, cell

__all__ = ["chapter_of", "picture_files", "render", "render_page", "render_steps"]

_MOST_FIGURES = 2  # of a step, among the headlines of a pipeline
_OLD = "The seconds of a step that was up to date are those of the run that made its output."


def render(report: Report, manifest: Mapping[str, Any]) -> str:
    """The page of one run as text, to be written in UTF-8; `manifest` as the run publishes it."""
    return render_page(manifest, chapter_of(report, manifest))


def chapter_of(report: Report, manifest: Mapping[str, Any]) -> Chapter:
    """What a page says of a run that has a report."""
    kinds = {"search": search_chapter, "join": join_chapter, "dedup": copies_chapter}
    kinds |= {"drift": drift_chapter}
    chapter = kinds.get(report.kind, evaluation_chapter)(report, manifest)
    return replace(chapter, sections=[*chapter.sections, run_section(manifest)])


def render_steps(steps: Sequence[Step], manifest: Mapping[str, Any]) -> str:
    """The page of a pipeline as text; `manifest` is that of the pipeline's own run.

    What ran, what failed and the main figures come first, then a chapter for each step.
    """
    counted = Counter(step.outcome for step in steps)
    told = ", ".join(f"{count} {outcome}" for outcome, count in counted.items())
    took = seconds(manifest)
    spent = "" if took is None else f" This run took {took:.1f} s."
    lead = f"{len(steps)} steps: {told}.{spent}" if steps else ""
    failed = {f"{s.name} failed": [s.message] for s in steps if s.outcome == "failed"}
    first = Chapter("Pipeline", lead, [_overview(steps), run_section(manifest)], failed)
    return render_page(manifest, first, [_chapter(step) for step in steps])


def _overview(steps: Sequence[Step]) -> Section:
    """The main figures, and a table of the steps."""
    heads = [Head(name) for name in ("step", "job", "outcome")]
    heads += [Head(name, True) for name in ("seconds", "rows in", "rows out")]
    rows = []
    for step in steps:
        texts = (cell(text) for text in (step.name, step.job, step.outcome))
        took = _seconds(step)
        time = cell(took, True) if took is None else Cell(f"{took:.1f}", repr(took))
        counts = (cell(count, True) for count in row_counts(step.manifest or {}))
        rows.append([*texts, time, *counts, cell(step.path)])
    old = any(step.outcome == "up to date" for step in steps)
    view = View("steps", "What each step did", [*heads, Head("output")], rows, _OLD if old else "")
    figures = [each for step in steps for each in _main_figures(step)]
    return Section("steps", "Steps", None, [view], headlines=figures)


def _seconds(step: Step) -> float | None:
    """What a step took: in this run, or in the earlier one that made its output."""
    return step.seconds if step.outcome != "up to date" else seconds(step.manifest or {})


def _main_figures(step: Step) -> list[Headline]:
    found = [*(headlines(step.report) if step.report else ()), *measured(step.manifest or {})]
    named = [replace(each, name=f"{step.name}: {each.name}") for each in found]
    return named[:_MOST_FIGURES]


def _chapter(step: Step) -> Chapter:
    """What a page says of a step: its report, else what its manifest tells, else its outcome."""
    chapter = Chapter("", "", [])
    if step.manifest is not None and step.report is not None:
        chapter = chapter_of(step.report, step.manifest)
    elif step.manifest is not None:
        sections = [count_section(step.manifest), run_section(step.manifest, whole=True)]
        chapter = Chapter("", "", sections)
    took = _seconds(step)
    time = "" if took is None else f" in {took:.1f} s"
    if step.outcome == "up to date" and step.manifest:
        time = f", made{time} by run {step.manifest.get('run_id')}"
    why = f"{' because' if step.outcome == 'ran' else ':'} {step.message}" if step.message else ""
    lead = f"{step.job}, {step.outcome}{time}{why}. {chapter.lead}".strip()
    return replace(chapter, title=step.name, lead=lead)


def render_page(manifest: Mapping[str, Any], first: Chapter, steps: Sequence[Chapter] = ()) -> str:
    """A page of the chapter `first` and those of steps; `manifest` is of the run that makes it."""
    style, script = inline("page.css"), inline("page.js")
    return (
        templates()
        .get_template("page.html")
        .render(
            style=Markup(style.text),
            script=Markup(script.text),
            style_hash=style.hash,
            script_hash=script.hash,
            manifest=manifest,
            first=first,
            steps=steps,
        )
    )


def picture_files(sections: Sequence[Section]) -> dict[str, bytes]:
    """The charts and collages of the sections as PNG files in light colors, by name."""
    found = {}
    for section in sections:
        for gallery in section.galleries:
            # Pairs and single rows are seen as well on the page.
            if not gallery.flow and (picture := collage(gallery)):
                found[f"{gallery.key}.png"] = picture.png()
        if section.picture:
            found[f"{section.key}.png"] = section.picture.png()
    return found
