"""What is published beside the tables that a page shows, and read again for a pipeline's page."""

from __future__ import annotations

import json
import posixpath
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pyspark.sql import SparkSession

from ember.errors import InvalidInput
from ember.report.collect import check_content
from ember.report.map_data import MapPage
from ember.report.report import KEPT, Report, Step, from_json, to_json
from ember.settings.report import ContentConfig
from ember.spark.publish import MANIFEST, Output, read_manifest
from ember.spark.storage import Storage

__all__ = ["HIDDEN_PAGE", "MAP", "PAGE", "PICTURES", "add_map", "add_page", "check_map_packages"]
__all__ += ["check_packages", "check_page", "map_link", "read_step"]

# An evaluation is a folder of tables. Where the output itself is a table, Spark and pyarrow skip
# files whose name begins with an underscore.
PAGE, HIDDEN_PAGE, PICTURES = "report.html", "_report.html", "_pictures"
MAP = "map.html"
# Scheme and authority, and the path, of a qualified URI.
_FILE_SYSTEM = re.compile(r"([^/]*(?://[^/]*)?)(/.*)", re.DOTALL)


def check_packages() -> None:
    """Raise InvalidInput if the driver lacks the packages that make the page."""
    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise InvalidInput(
            f"the report page needs {' and '.join(missing)}, which the driver lacks; install the "
            "extra with pip install 'ember-spark[report]', or leave the page out (evaluate and "
            "dedup: set report to false; search and join: null)"
        )


def check_map_packages() -> None:
    """Raise InvalidInput if the driver lacks what makes the page of a map."""
    if find_spec("jinja2") is None:
        raise InvalidInput(
            "the page of a map needs jinja2, which the driver lacks; install the extra with pip "
            "install 'ember-spark[map]'"
        )


def check_page(spark: SparkSession, *contents: ContentConfig | None) -> None:
    """Raise InvalidInput if a page cannot be made for lack of packages or contents."""
    check_packages()
    for content in contents:
        if content is not None:
            check_content(spark, content)


def add_page(
    output: Output, report: Report, manifest: Mapping[str, Any], page: str = PAGE, map: str = ""
) -> None:
    """Stage the page of `report`, its pictures as PNG files, and the report itself.

    map: a link for the page, from `map_link`.
    """
    from ember.report.page import chapter_of, picture_files, render_page

    chapter = replace(chapter_of(report, manifest), map=map)
    made = {page: render_page(manifest, chapter).encode()}
    made[KEPT] = to_json(report).encode()
    pictures = picture_files(chapter.sections)
    made |= {f"{PICTURES}/{name}": data for name, data in pictures.items()}
    with tempfile.TemporaryDirectory(prefix="ember-report-") as local:
        Path(local, PICTURES).mkdir()
        for name, data in made.items():
            Path(local, name).write_bytes(data)
            output.add(str(Path(local, name)), name)


def map_link(output: Output, folder: str | None) -> str:
    """The way from the page of `output` to that of a map; "" without a map.

    Raises InvalidInput where the job map has not written the folder, or no link leads there.
    """
    if folder is None:
        return ""
    if (read_manifest(output.storage, folder) or {}).get("job") != "map":
        raise InvalidInput(f"map: there is no output of the job map at {folder}")
    # Names of files as they are: a `#` begins nothing in them.
    (system, here), (other, there) = (
        _FILE_SYSTEM.fullmatch(each).groups()  # type: ignore[union-attr]
        for each in (output.path, output.storage.resolve(folder))
    )
    if system != other:
        raise InvalidInput(
            f"map: no link leads from {output.path} to {folder}, in another file system; give a "
            "map beside the output, or null"
        )
    return quote(f"{posixpath.relpath(there, here)}/{MAP}")


def add_map(output: Output, page: MapPage, manifest: Mapping[str, Any]) -> None:
    """Stage the page of a map."""
    from ember.report.map_page import render_map

    with tempfile.TemporaryDirectory(prefix="ember-report-") as local:
        file = Path(local, MAP)
        file.write_text(render_map(page, manifest), "utf-8")
        output.add(str(file), MAP)


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
