"""A page beside the tables that it shows, published together with them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from ember.errors import InvalidInput
from ember.report.content import KEPT, Report, to_json
from ember.report.fetching import check_content
from ember.settings.report import ContentConfig
from ember.spark.publish import Output

__all__ = ["HIDDEN_PAGE", "PAGE", "PICTURES", "add_page", "check_packages", "check_page"]

# Evaluations are folders of tables. Where the output itself is a table, Spark and pyarrow read all
# of its files but those with a leading underscore.
PAGE, HIDDEN_PAGE, PICTURES = "report.html", "_report.html", "_pictures"


def check_packages() -> None:
    """Raise InvalidInput when what makes the page is not installed where the driver runs."""
    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise InvalidInput(
            f"the report page needs {' and '.join(missing)}, which the driver lacks; install the "
            "extra with pip install 'ember-spark[report]', or leave the page out (evaluate: set "
            "report to false; search and join: null)"
        )


def check_page(spark: SparkSession, *contents: ContentConfig | None) -> None:
    """Raise InvalidInput when a page cannot be made: packages or contents are lacking."""
    check_packages()
    for content in contents:
        if content is not None:
            check_content(spark, content)


def add_page(output: Output, report: Report, manifest: Mapping[str, Any], page: str = PAGE) -> None:
    """Stage the page of `report`, its pictures as PNG files, and what a pipeline's page needs."""
    from ember.report.chapters import chapter_of
    from ember.report.page import picture_files, render_chapter

    chapter = chapter_of(report, manifest)
    with tempfile.TemporaryDirectory(prefix="ember-report-") as local:
        made = {page: render_chapter(chapter, manifest).encode(), KEPT: to_json(report).encode()}
        pictures = picture_files(chapter.sections)
        made |= {f"{PICTURES}/{name}": data for name, data in pictures.items()}
        Path(local, PICTURES).mkdir()
        for name, data in made.items():
            Path(local, name).write_bytes(data)
            output.add(str(Path(local, name)), name)
