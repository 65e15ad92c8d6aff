"""What has changed in a table of embeddings since the run before, row by row.

Of each row a hash of its vector and its group is kept (`Kept`). A row is new, changed or gone by
that hash and its id alone: files that were renamed, merged or sorted anew change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DoubleType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
)

from ember.spark.checkpoints import stored
from ember.spark.dimensions import common_length
from ember.spark.kept import Kept, without
from ember.worker.vectors.vectors import NO_LENGTH, NULL

__all__ = ["Changes", "Side", "changes_of", "made_of", "side"]

# Keys of a comparison that decide which rows there are, or nothing; each change of a row is seen.
_SEEN = {
    "job": "each job reads its own output alone",
    "input": "the files: rows are compared, whichever file they are in",
    "left": "rows",
    "right": "rows",
    "queries": "rows",
    "corpus": "rows",
    "limits": "checks, made by every run; how rows are divided",
    "groups": "made of all pairs, by every run",
    "mode": "the exact search, either way",
    "recall": "the exact search, either way",
    "time_zone": "rows that a where chooses",
}


@dataclass(frozen=True)
class Side:
    """A table of a comparison: its rows as `select_embeddings` gives them, and their states.

    states: see `row_states`, in a file. lengths: how many vectors there are of each length.
    failing: how many rows cannot be compared, by length, whatever the dimension is. apart: of each
    length, how many rows are of no group. dimension: that of the vectors; 0 where there are none.
    """

    name: str
    rows: DataFrame
    states: DataFrame
    lengths: Mapping[int, int]
    failing: Mapping[int, int]
    apart: Mapping[int, int]
    dimension: int

    @property
    def total(self) -> int:
        return sum(self.lengths.values())

    @property
    def rejected(self) -> int:
        """How many rows cannot be compared."""
        other = (n for length, n in self.lengths.items() if length != self.dimension)
        apart = (n for length, n in self.apart.items() if length != self.dimension)
        return sum(other) - sum(apart) + self.failing.get(self.dimension, 0)

    @property
    def usable(self) -> int:
        """How many rows can be compared."""
        return self.total - self.rejected - sum(self.apart.values())

    def bad(self) -> DataFrame:
        """The rows that cannot be compared: (id, reason)."""
        length = F.col("length")
        other = ~length.isin(self.dimension, NO_LENGTH) & (F.coalesce("reason", F.lit("")) != NULL)
        told = F.concat(F.lit("wrong length: "), length, F.lit(f" instead of {self.dimension}"))
        reason = F.when(other, told).otherwise(F.col("reason")).alias("reason")
        rows = self.states.filter("NOT apart")
        return rows.select("id", reason).filter("reason IS NOT NULL")

    def fitting(self, ids: DataFrame | None = None, how: str = "left_semi") -> DataFrame:
        """The rows of the dimension, whose ids are, or with left_anti are not, those given."""
        rows = self.rows.filter(F.size("embedding") == self.dimension)
        return rows if ids is None else rows.join(ids.select("id"), "id", how)

    def describe(self) -> dict[str, int]:
        """For the manifest."""
        told = {"rows": self.usable, "rejected": self.rejected}
        return told | ({"without_group": sum(self.apart.values())} if self.grouped else {})

    @property
    def grouped(self) -> bool:
        return "group" in self.rows.columns


def side(name: str, rows: DataFrame, metric: str, kept: Kept, max_failed_fraction: float) -> Side:
    """A table whose rows are read and hashed once; their states are to be kept.

    Raises InvalidInput where the table mixes vectors of several lengths.
    """
    vector = rows.schema["embedding"].dataType
    exact = isinstance(vector, ArrayType) and isinstance(vector.elementType, DoubleType)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from ember.worker.vectors.row_states import row_states

        return row_states(batches, metric, exact=exact)

    schema = StructType(
        [
            StructField("id", rows.schema["id"].dataType),
            StructField("high", LongType()),
            StructField("low", LongType()),
            StructField("length", IntegerType()),
            StructField("reason", StringType()),
            StructField("apart", BooleanType()),
        ]
    )
    states = kept.made(rows.mapInArrow(run, schema), name)
    facts = {"rows": F.count("*"), "bad": F.count("reason"), "apart": F.count_if("apart")}
    counted = states.groupBy("length").agg(*(each.alias(key) for key, each in facts.items()))
    found = {row["length"]: row for row in counted.collect()}
    lengths, failing, apart = (
        {length: int(row[key]) for length, row in found.items()} for key in facts
    )
    known = {length: count for length, count in lengths.items() if length != NO_LENGTH}
    dimension = common_length(known, f"the {name} table", max_failed_fraction)
    return Side(name, rows, states, lengths, failing, apart, dimension)


def made_of(
    identity: Mapping[str, Any], sides: Sequence[DataFrame], version: str | None
) -> dict[str, Any]:
    """What pairs and neighbors depend on beside the rows: settings, types, Ember's version."""
    settings = without(identity, _SEEN)
    kinds = [json.loads(rows.select("id", "embedding").schema.json())["fields"] for rows in sides]
    types = [[field["type"] for field in fields] for fields in kinds]
    return {**settings, "types": types, "ember-spark": version}


@dataclass(frozen=True)
class Changes:
    """What has changed on a side.

    ids: (id, was, now), of each row that is new (not was), gone (not now) or changed (both).
    """

    ids: DataFrame
    new: int
    changed: int
    gone: int
    repeated: bool

    @property
    def now(self) -> int:
        """How many rows there are that must be compared."""
        return self.new + self.changed

    @property
    def was(self) -> int:
        """How many rows are no longer what they were."""
        return self.gone + self.changed

    def describe(self) -> dict[str, int]:
        """For the manifest."""
        return {"new": self.new, "changed": self.changed, "gone": self.gone}


def changes_of(each: Side, kept: Kept) -> Changes:
    """The rows of a side whose states are not those that the run before kept."""
    hashes = ("high", "low")
    nothing = [F.lit(None).cast("long") for _ in hashes]

    def tagged(states: DataFrame, *, old: bool) -> DataFrame:
        own = [F.col(name) for name in hashes]
        was, now = (own, nothing) if old else (nothing, own)
        columns = [*was, *now]
        return states.select("id", *(c.alias(f"h{n}") for n, c in enumerate(columns)))

    both = tagged(kept.table(each.name), old=True).union(tagged(each.states, old=False))
    facts = [F.count("h0").alias("n_was"), F.count("h2").alias("n_now")]
    facts += [F.max(f"h{n}").alias(f"h{n}") for n in range(4)]
    same = "n_was = 1 AND n_now = 1 AND h0 = h2 AND h1 = h3"
    found = both.groupBy("id").agg(*facts).filter(f"id IS NULL OR NOT ({same})")
    found = found.select(
        "id",
        (F.col("n_was") > 0).alias("was"),
        (F.col("n_now") > 0).alias("now"),
        F.expr("id IS NULL OR n_was > 1 OR n_now > 1").alias("repeated"),
    )
    ids = stored(found, f"{kept.scratch}/changes/{each.name}")
    counts = {"repeated": F.count_if("repeated")}
    counts |= {
        "new": F.count_if(F.expr("now AND NOT was")),
        "changed": F.count_if(F.expr("now AND was")),
        "gone": F.count_if(F.expr("was AND NOT now")),
    }
    row = ids.agg(*(count.alias(name) for name, count in counts.items())).collect()[0]
    return Changes(ids, row["new"], row["changed"], row["gone"], bool(row["repeated"]))
