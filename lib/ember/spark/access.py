"""What the content column of a corpus holds, and where on the executors its rows may read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql.types import StringType, StructField

from ember.errors import InvalidConfig, InvalidInput
from ember.settings.tables import ContentIs
from ember.spark.storage import Storage
from ember.worker.row_paths import PathRules

__all__ = ["default_roots", "path_rules"]

_HAS_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_ANY_HOST = re.compile(r"https?:/*$", re.IGNORECASE)
_WHOLE = re.compile(r"file:/*|(hdfs|viewfs|s?webhdfs|ofs)://[^/]*")
_GLOB = re.compile(r"[*?\[{]")


def path_rules(
    spark: SparkSession,
    column: StructField,
    modality: str,
    content_is: ContentIs | None,
    roots: str | Sequence[str] | None,
) -> PathRules | None:
    """Where the rows of a content column may read; None where they name no files.

    Raises:
        InvalidConfig: paths of texts, or paths without a root.
        InvalidInput: images in a string column of which nobody has said that they are paths: a
            corpus cannot have files opened by the type of a column.
    """
    if modality != "image":
        if content_is == "paths":
            raise InvalidConfig("content_is: paths is for images; give texts in the column itself")
        return None
    if content_is is None and isinstance(column.dataType, StringType):
        raise InvalidInput(
            f"the content column {column.name} is string, and images are binary. Where it holds "
            "paths, set input.content_is to paths, and input.root to the folder of the files; "
            "where it holds the encoded images themselves, set it to bytes"
        )
    if content_is != "paths":
        return None
    given = [roots] if isinstance(roots, str) else list(roots or ())
    if not given or not all(given):
        raise InvalidConfig("root is missing; with content_is paths, give the folder of the files")
    for root in given:
        if _ANY_HOST.match(root):
            raise InvalidConfig(f"root {root} names no host; rows could ask any machine")
    storage = Storage(spark)
    return PathRules(tuple(_qualified(storage, root) for root in given))


def _qualified(storage: Storage, root: str) -> str:
    # What executors read through fsspec need not be known to Hadoop.
    return root if _HAS_SCHEME.match(root) else storage.qualify(root)


def default_roots(spark: SparkSession, paths: str | Sequence[str]) -> list[str]:
    """The folders that hold the tables at `paths`; never a whole file system, but a whole bucket.

    Of a table right under the root of a file system, the table itself.
    """
    storage: Any = Storage(spark)
    found = []
    for path in [paths] if isinstance(paths, str) else paths:
        place = storage.qualify(path).rstrip("/")
        glob = _GLOB.search(place)
        folder = place[: glob.start()] if glob else place
        parent = folder.rpartition("/")[0]
        found.append(place if _WHOLE.fullmatch(parent) else parent)
    return list(dict.fromkeys(found))
