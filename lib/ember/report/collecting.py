"""From an evaluation on Spark to the plain rows of its page."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, NumericType, StructField

from ember.errors import InvalidInput
from ember.evaluate.report import Evaluation
from ember.evaluate.sums import ALL
from ember.publish import Output
from ember.report.content import MOST_CELLS, MOST_CLASSES, Report, Table

__all__ = ["PAGE", "add_page", "check_packages", "collect"]

PAGE = "report.html"

# How many rows of a table a page takes; a browser sorts and filters these at once.
_ROWS = {"per_class": 1000, "per_label": 1000, "reliability": 1000, "most_confused": 100}
_ROWS |= {"worst": 200}


def check_packages() -> None:
    """Raise InvalidInput when what makes the page is not installed where the driver runs."""
    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise InvalidInput(
            f"report.html needs {' and '.join(missing)}, which the driver lacks; install the extra "
            "with pip install 'ember-spark[report]', or set report to false"
        )


def add_page(output: Output, evaluation: Evaluation, manifest: Mapping[str, Any]) -> None:
    """Stage the page of `evaluation` beside its tables, as report.html."""
    from ember.report.page import render

    text = render(collect(evaluation), manifest)
    with tempfile.TemporaryDirectory(prefix="ember-report-") as local:
        page = Path(local) / PAGE
        page.write_text(text, "utf-8")
        output.add(str(page), PAGE)


def collect(evaluation: Evaluation) -> Report:
    """The rows that the page of `evaluation` shows: a few small Spark jobs."""
    found: dict[str, Table] = {}
    for name, most in _ROWS.items():
        if name in evaluation.tables:
            frame = evaluation.tables[name]
            if name == "reliability":
                frame = frame.filter(F.col("slice") == ALL).drop("slice")
            found[name] = _rows(frame, most)
    classes = found.get("per_class")
    if classes and len(classes.rows) <= MOST_CLASSES and "confusion" in evaluation.tables:
        found["confusion"] = _rows(evaluation.tables["confusion"], MOST_CELLS)
    return Report(
        evaluation.kind,
        [figure.as_row() for figure in evaluation.figures],
        [{"reason": i.reason, "rows": i.rows, "ids": list(i.ids)} for i in evaluation.issues],
        found,
    )


def _rows(frame: DataFrame, most: int) -> Table:
    shown = frame.select(*(_plain(field) for field in frame.schema.fields)).limit(most + 1)
    rows = shown.toArrow().to_pylist()
    return Table(frame.columns, rows[:most], len(rows) > most)


def _plain(field: StructField) -> Column:
    """A column as numbers, lists of texts, or text: ids may be of any type."""
    column = F.col(f"`{field.name}`")
    if isinstance(field.dataType, BinaryType):
        column = F.hex(column)
    elif isinstance(field.dataType, ArrayType):
        column = column.cast("array<string>")
    elif not isinstance(field.dataType, NumericType):
        column = column.cast("string")
    return column.alias(field.name)
