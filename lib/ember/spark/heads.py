"""Heads in any folder that Spark reaches: loaded for the workers, and staged for publishing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pyspark.sql import SparkSession

from ember.errors import InvalidInput
from ember.spark.publish import Output
from ember.spark.storage import Storage
from ember.worker.heads.head import DESCRIPTION, WEIGHTS, Head

__all__ = ["load_head", "place_head"]


def load_head(spark: SparkSession, folder: str) -> Head:
    """The head in `folder`, any path or URI that Spark takes. It pickles: hand it to tasks.

    Raises:
        InvalidInput: there is none or it is damaged; see `Head.load`.
    """
    storage = Storage(spark)
    if not storage.exists(folder):
        raise InvalidInput(f"there is nothing at {folder}; give a folder that train wrote")
    with tempfile.TemporaryDirectory(prefix="ember-head-") as local:
        for name in (DESCRIPTION, WEIGHTS):
            if storage.exists(f"{folder}/{name}"):
                storage.download(f"{folder}/{name}", f"{local}/{name}")
        try:
            return Head.load(local)
        except InvalidInput as error:
            raise InvalidInput(str(error).replace(local, folder)) from None


def place_head(head: Head, output: Output) -> None:
    """Stage the head's files in `output`."""
    with tempfile.TemporaryDirectory(prefix="ember-head-") as local:
        head.save(local)
        for file in sorted(Path(local).iterdir()):
            output.add(str(file), file.name)
