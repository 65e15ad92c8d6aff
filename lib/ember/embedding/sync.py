"""A table of results that follows its input: only content that is new goes through the model.

    hashes of the input → `content_plan` → rows for the model → rows that take the result of others
                                        → rows that stay as they are published

What runs through the model is staged first, so that a run that is killed has lost little: the next
one finds its rows by their content.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.embedding import content_hashes
from ember.embedding.model_work import ModelWork
from ember.embedding.row_work import HASH, RowWork
from ember.errors import InvalidConfig
from ember.settings.outputs import RowsOutputConfig
from ember.spark.checkpoints import stored
from ember.spark.content_plan import CONTENT_HASH, NEW, Changes, changes, content_plan
from ember.spark.publish import Output
from ember.spark.tables import column

__all__ = ["Sync", "check"]

_log = logging.getLogger(__name__)
# Rows of ids and hashes, of some 200 bytes, that every executor may have a copy of.
_FEW = 200_000
_ORIGIN, _KEY = "_ember_origin", "_ember_key"
_ID, _TIMES = "_ember_id", "_ember_times"


def check(given: RowsOutputConfig, work: RowWork) -> None:
    """Raise InvalidConfig where a table of this work cannot follow its input."""
    if given.mode != "sync":
        if not given.retry_failed:
            raise InvalidConfig("output.retry_failed is for output.mode sync; leave it out")
        return
    if given.merge_into:
        raise InvalidConfig(
            "output.mode sync drops rows and keeps a hash beside each, so it needs a table of its "
            "own; give output.path or output.table in place of output.merge_into"
        )
    if not isinstance(work, ModelWork):
        raise InvalidConfig(
            "output.mode sync is for rows that a model runs on; a head labels embeddings as fast "
            "as they are read: set output.mode to overwrite"
        )
    if work.spec.calibration:
        raise InvalidConfig(
            "output.mode sync does not go with model.precision int8, which is calibrated on rows "
            "of the corpus: with other rows it is another model; give another precision"
        )


@dataclass
class Sync:
    """One run that follows its input, within the attempt of its output.

    again: why rows that are published are done all the same; nothing where they are not.
    """

    output: Output
    work: ModelWork
    retry_failed: bool
    changes: Changes = field(init=False)
    again: str = field(init=False)

    def plan(self) -> tuple[DataFrame, int]:
        """The rows for the model, as `Output.write` takes them, and how many there are."""
        output, work = self.output, self.work
        self._published, self.again = output.comparable()
        if self.again:
            _log.warning("all rows of %s are done again: %s", output.shown, self.again)
        self._staged = [output.rows.read([each]) for each in output.staging.claimed()]
        wanted = stored(content_hashes.wanted(work), f"{output.scratch}/wanted")
        rows = (wanted, self._published, self._staged)
        plan = content_plan(*rows, work.id, work.part, retry_failed=self.retry_failed)
        self._plan = stored(plan, f"{output.scratch}/plan")
        self.changes = changes(self._plan)
        _log.info("%s", ", ".join(f"{n} {name}" for name, n in self.changes.told().items()))
        return self._to_run()

    def _to_run(self) -> tuple[DataFrame, int]:
        work, told = self.work, self.changes
        if told.run == told.rows and not work.paths:
            return work.spread(content_hashes.with_hashes(work))
        chosen = self._plan.filter("run").select("id", "hash", "places")
        rows = content_hashes.to_run(work, _small(chosen, told.run), repeated=told.repeated > 0)
        return work.spread(rows, told.run)

    @property
    def nothing_to_do(self) -> bool:
        """Is what is published, if anything is, what the input asks for?"""
        return self._published is not None and self.changes.up_to_date

    def model_work(self) -> ModelWork:
        """The work to be done on the rows for the model."""
        return content_hashes.pinned(self.work)

    def fill(self) -> None:
        """Stage the rows that need no model, once those that did are staged."""
        if self.changes.copied:
            self.output.write(self._copies())
        if self.changes.kept and self._published is not None:
            self.output.done.keep(self._kept(self._published), self.work.id)

    def _copies(self) -> DataFrame:
        """Rows with the results of equal content."""
        times = F.col("wanted") - F.col("run").cast("int")
        plan = self._plan.filter("source IS NOT NULL").withColumn(_TIMES, times)
        copies = plan.filter(F.col(_TIMES) > 0).select(
            F.col("source.origin").alias(_ORIGIN),
            F.col("source.id").alias(_KEY),
            F.col("hash").alias(HASH),
            F.col("id").alias(_ID),
            _TIMES,
        )
        key, told = self.work.id, self.changes
        found = reduce(DataFrame.unionByName, self._sources())
        same = (
            (found[_ORIGIN] == copies[_ORIGIN])
            & (found[CONTENT_HASH] == copies[HASH])
            & column(found, key).eqNullSafe(copies[_KEY])
        )
        if told.twins:  # of rows with one id and content any has the result
            found = found.join(_small(copies, told.copied), same, "left_semi")
            part = [self.work.part] if self.work.part else []
            found = found.dropDuplicates([_ORIGIN, key, CONTENT_HASH, *part])
        joined = found.join(_small(copies, told.copied), same)
        joined = joined.withColumn(_TIMES, F.explode(F.sequence(F.lit(1), _TIMES)))
        others = [F.col(name) for name in found.columns if name not in (key, _ORIGIN)]
        return joined.select(F.col(_ID).alias(key), *others)

    def _sources(self) -> list[DataFrame]:
        tables = dict(enumerate(self._staged, 1))
        if self._published is not None:
            tables[0] = self._published
        if self.changes.run:
            tables[NEW] = self.output.rows.read([self.output.staging.new])
        return [each.withColumn(_ORIGIN, F.lit(n)) for n, each in tables.items()]

    def _kept(self, published: DataFrame) -> DataFrame:
        """The published rows that stay as they are."""
        if not self.changes.dropped:
            return published
        gone = self._plan.filter("published > 0 AND NOT stays").select(F.col("id").alias(_KEY))
        few = _small(gone, self.changes.dropped)
        same = column(published, self.work.id).eqNullSafe(F.col(_KEY))
        return published.join(few, same, "left_anti")

    def told(self) -> dict[str, Any]:
        """For the manifest."""
        return {"everything_again": self.again} if self.again else {}


def _small(table: DataFrame, rows: int) -> DataFrame:
    """A table to be joined: sent to all executors where it is small, so that nothing is shuffled.

    Spark knows the size of a table's files, not of what a filter leaves of it.
    """
    return F.broadcast(table) if rows <= _FEW else table
