"""Some rows of a corpus, for what is made of a model by looking at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.spark.tables import column
from ember.worker.row_paths import PathRules

__all__ = ["Sample"]

Content = bytes | None


@dataclass(frozen=True)
class Sample:
    """Rows to be read when they are asked for.

    rows: of the corpus, the id and the content first; None where there is no corpus at hand.
    paths: where the files may be that the content names; None where it holds the bytes.
    """

    rows: DataFrame | None = None
    paths: PathRules | None = None

    def first(self, count: int) -> Sequence[Content]:
        """The content of some rows, whichever are read soonest."""
        if self.rows is None:
            return []
        return _collected(self.rows.limit(count))

    def drawn(self, count: int) -> Sequence[Content]:
        """The content of at most so many rows that has one, drawn by the hashes of their ids.

        The same ones whatever the partitions, in the order of their hashes. All ids are read for
        it, and then the rows: twice through the corpus, which its embedding does as well.
        """
        if self.rows is None:
            return []
        key, content = (column(self.rows, name) for name in self.rows.columns[:2])
        there = self.rows.where(content.isNotNull()).withColumn("_ember_hash", F.xxhash64(key))
        hashes = there.select("_ember_hash").orderBy("_ember_hash").limit(count).collect()
        if not hashes:
            return []
        wanted = there.where(F.col("_ember_hash") <= hashes[-1][0]).orderBy("_ember_hash")
        return _collected(wanted.limit(count))


def _collected(rows: DataFrame) -> list[Content]:
    content = rows.select(column(rows, rows.columns[1])).collect()
    return [row[0].encode() if isinstance(row[0], str) else row[0] for row in content]
