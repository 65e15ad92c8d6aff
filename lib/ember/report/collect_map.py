"""From the points of a map on Spark to what its page holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.maps.sources import Content
from ember.report.collect import as_text, plain
from ember.report.map_content import fetch
from ember.report.map_data import MapPage, color_of
from ember.spark.older_versions import as_arrow

__all__ = ["collect_map"]


def collect_map(points: DataFrame, colors: Sequence[str], content: Content | None) -> MapPage:
    """The page of `points`: id, position, x, y, and for each of `colors` a column c0, c1, …"""
    key = as_text(F.col("id"), points.schema["id"].dataType).alias("id")
    shades = [plain(points, f"c{number}") for number in range(len(colors))]
    rows = as_arrow(points.select(key, "position", "x", "y", *shades).orderBy("position"))
    x, y = (rows[name].to_numpy().astype(np.float32) for name in ("x", "y"))
    return MapPage(
        rows["id"].to_pylist(),
        x,
        y,
        [color_of(name, rows[f"c{number}"]) for number, name in enumerate(colors)],
        fetch(points, len(rows), content),
    )
