"""What is published beside the tables that a page shows, and read again for a pipeline's page."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from ember.errors import InvalidInput
from ember.report.collect import check_content
from ember.report.report import KEPT, Report, Step, from_json, to_json
from ember.settings.report import ContentConfig
from ember.spark.publish import MANIFEST, Output
from ember.spark.storage import Storage

__all__ = ["HIDDEN_PAGE", "PAGE", "PICTURES", "add_page", "check_packages", "check_page"]
__all__ += ["read_step"]

# An evaluation is a folder of tables. Where the output itself is a table, Spark and pyarrow skip
# files whose name begins with an underscore.
PAGE, HIDDEN_PAGE, PICTURES = "report.html", "_report.html", "_pictures"


def check_packages() -> None:
    """Raise InvalidInput if the driver lacks the packages that make the page."""
    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise InvalidInput(
            f"the report page needs {' and '.join(missing)}, which the driver lacks; install the "
            "extra with pip install 'ember-spark[report]', or leave the page out (evaluate and "
            "dedup: set report to false; search and join: null)"
        )


def check_page(spark: SparkSession, *contents: ContentConfig | None) -> None:
    """Raise InvalidInput if a page cannot be made for lack of packages or contents."""
    check_packages()
    for content in contents:
        if content is not None:
            check_content(spark, content)


def add_page(output: Output, report: Report, manifest: Mapping[str, Any], page: str = PAGE) -> None:
    """Stage the page of `report`, its pictures as PNG files, and the report itself."""
    from ember.report.page import chapter_of, picture_files, render_page

    chapter = chapter_of(report, manifest)
    made = {page: render_page(manifest, chapter).encode()}
    made[KEPT] = to_json(report).encode()
    pictures = picture_files(chapter.sections)
    made |= {f"{PICTURES}/{name}": data for name, data in pictures.items()}
    with tempfile.TemporaryDirectory(prefix="ember-report-") as local:
        Path(local, PICTURES).mkdir()
        for name, data in made.items():
            Path(local, name).write_bytes(data)
            output.add(str(Path(local, name)), name)


def read_step(spark: SparkSession, step: Step) -> Step:
    """The step with the manifest and the report that its output holds.

    The report is the one that `add_page` kept, so that a step which was up to date needs no Spark
    job and no second look at its corpus. For a step that failed or did not run nothing is read:
    what stands at `path` is not its work.
    """
    storage, path = Storage(spark), step.path
    if (
        step.outcome in ("failed", "not run")
        or not path
        or not storage.exists(f"{path}/{MANIFEST}")
    ):
        return step
    step = replace(step, manifest=json.loads(storage.read_text(f"{path}/{MANIFEST}")))
    if not storage.exists(f"{path}/{KEPT}"):
        return step
    try:
        return replace(step, report=from_json(storage.read_text(f"{path}/{KEPT}")))
    except InvalidInput as error:
        return replace(step, message="; ".join(filter(None, (step.message, str(error)))))
