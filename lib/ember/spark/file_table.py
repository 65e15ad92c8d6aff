"""A Parquet table of the session catalog over a folder that staging publishes whole."""

from __future__ import annotations

import logging

from pyspark.sql import SparkSession

from ember.errors import InvalidInput
from ember.spark import catalog

__all__ = ["FileTable"]

_log = logging.getLogger(__name__)
_CATALOG = "spark.sql.catalogImplementation"


class FileTable:
    """The name of a folder of Parquet: an external table, so that dropping it deletes no rows.

    name: as SQL takes it. shown: as messages have it.
    """

    def __init__(self, spark: SparkSession, name: str, shown: str) -> None:
        self._spark = spark
        self._name = name
        self.shown = shown

    def location(self) -> str | None:
        """The folder that it lies in; None where it is not there.

        Raises:
            InvalidInput: it is a view, or a table of another format.
        """
        if not catalog.exists(self._spark, self._name):
            return None
        found = catalog.sources(self._spark.table(self._name))
        if catalog.is_view(self._spark, self._name):
            raise InvalidInput(f"{self.shown} exists and is a view; give another output.table")
        if len(found) != 1 or found[0].format != "parquet" or len(found[0].locations) != 1:
            formats = " and ".join(each.format for each in found) or "another"
            raise InvalidInput(
                f"{self.shown} exists and is {formats}, not a table of Parquet; set output.format, "
                "or give another output.table"
            )
        return found[0].locations[0]

    def check(self, path: str) -> None:
        """Raise InvalidInput where the name is that of something else than the folder `path`."""
        location = self.location()
        if location not in (None, path):
            raise InvalidInput(f"{self.shown} lies in {location}, not in {path}; drop it yourself")

    def register(self, path: str) -> None:
        """Have the catalog name the folder, with the columns that it has now."""
        spark = self._spark
        if catalog.exists(spark, self._name):
            spark.catalog.refreshTable(self._name)
            if spark.table(self._name).schema == spark.read.parquet(path).schema:
                return
            spark.sql(f"DROP TABLE {self._name}")  # of an external table, the name alone
        place = path.replace("\\", "\\\\").replace("'", "\\'")
        spark.sql(f"CREATE TABLE {self._name} USING parquet LOCATION '{place}'")
        if spark.conf.get(_CATALOG) == "in-memory":
            _log.warning(
                "Spark's catalog is in memory: %s is known to this session alone, and its rows are "
                "at %s; set %s to hive to keep the name",
                *(self.shown, path, _CATALOG),
            )
