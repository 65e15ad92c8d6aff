"""Tables that are computed once and read several times.

In a session that goes on, Spark answers a query from every cached one that is equal, and two reads
of one path are equal also when its files were rewritten in between. So each table that is kept here
is equal to no other, and none stays behind where its user fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

__all__ = ["kept"]


@contextmanager
def kept(rows: DataFrame) -> Iterator[DataFrame]:
    """`rows`, computed once: in memory where they fit, on disk where not.

    Freed when the block raises; else whoever is handed the table calls its `unpersist`.
    """
    # True for every row, which Spark finds only after it has looked for cached queries.
    alone = rows.filter(F.lit(uuid4().hex).isNotNull())
    alone.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        yield alone
    except BaseException:
        alone.unpersist()
        raise
