"""From chapters to one HTML file.

Nothing on the page comes from elsewhere: styles and script are inline and named by their hashes in
a Content-Security-Policy that allows nothing else, pictures are data. Jinja2 escapes every text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ember.report.chapters import chapter_of
from ember.report.collage import collage
from ember.report.content import Report
from ember.report.layout import Chapter, Section

__all__ = ["picture_files", "render", "render_chapter", "render_page"]


def render(report: Report, manifest: Mapping[str, Any]) -> str:
    """The page of one run, as text to be written in UTF-8.

    manifest: as the run publishes it: run_id, finished, config, counts, versions, input_files.
    """
    return render_chapter(chapter_of(report, manifest), manifest)


def render_chapter(chapter: Chapter, manifest: Mapping[str, Any]) -> str:
    """The page of one run, whose chapter is made already."""
    return render_page(chapter.title, manifest, chapter, [])


def render_page(
    title: str, manifest: Mapping[str, Any], first: Chapter, steps: Sequence[tuple[str, Chapter]]
) -> str:
    """A page of the chapter `first`, and of further ones under their names.

    manifest: of the run that made the page.
    """
    style, script = (_template(name) for name in ("page.css", "page.js"))
    environment = Environment(
        loader=PackageLoader("ember.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        title=title,
        manifest=manifest,
        first=first,
        steps=steps,
    )


def picture_files(sections: Sequence[Section]) -> dict[str, bytes]:
    """The pictures and collages of the sections in light colors, by the names of PNG files."""
    found = {}
    for section in sections:
        for gallery in section.galleries:
            # Pairs and single rows are seen as well in the page.
            if not gallery.flow and (data := collage(gallery)):
                found[f"{gallery.key}.png"] = data
        for number, picture in enumerate(section.pictures, 1):
            name = section.key if len(section.pictures) == 1 else f"{section.key}-{number}"
            found[f"{name}.png"] = base64.b64decode(picture.light.partition(",")[2])
    return found


def _template(name: str) -> str:
    return (files("ember.report") / "templates" / name).read_text("utf-8")


def _hash(text: str) -> str:
    """The source expression that allows exactly this inline text (W3C CSP Level 3)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
