"""What a pipeline leaves of itself: a manifest of its steps, and the page of them all."""

from __future__ import annotations

import json

from pyspark.sql import SparkSession

from ember.publish import MANIFEST, Output
from ember.storage import Storage

__all__ = ["own_output"]


def own_output(spark: SparkSession, path: str) -> Output:
    """Where a pipeline's manifest goes; that of an earlier run of a pipeline is replaced.

    Raises InvalidInput where anything else is there.
    """
    storage, file = Storage(spark), f"{path}/{MANIFEST}"
    replaced = storage.exists(file) and _is_pipeline(storage.read_text(file))
    output = Output(spark, path, "overwrite" if replaced else "fail", {"job": "pipeline"})
    output.check()
    return output


def _is_pipeline(text: str) -> bool:
    try:
        return bool(json.loads(text).get("job") == "pipeline")
    except (ValueError, AttributeError):
        return False
