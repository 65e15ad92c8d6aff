"""What a join would take: time, memory, disk and pairs, told from a join of samples.

`scripts/bench/forecast.py` holds it against runs; docs/similarity.md has the figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.comparison.packing import check_lengths
from ember.comparison.vector_files import block_rows
from ember.spark import classic, footers
from ember.spark.dimensions import dimension
from ember.spark.tasks import task_resources

if TYPE_CHECKING:
    from ember.worker.vectors.sampled_join import SampledJoin

__all__ = ["Forecast", "forecast_join"]

# Beside the comparison, in a new session: what Spark's jobs take whatever they move, and bytes of
# vectors that a core reads, hands to Python and writes in a second.
_START_SECONDS, _PACKED_BYTES = 12.0, 40e6
# A worker beside the blocks that it maps: Python, Arrow and the compiled loops.
_WORKER_BYTES = 380 << 20
_BLOCKS = 3
# Of a pair that is found, beside its ids: a score, and what Parquet adds.
_SCORE_BYTES = 6
_HASHES = 1 << 40


@dataclass(frozen=True)
class Forecast:
    """Of a join of tables of `rows` and `others` rows; with itself these are one number.

    compared: pairs of rows. pairs, least, most: of them, those found, and a 95% interval. seconds:
    on `cores`, without the session's start. scratch: bytes beside the output while it is made.
    node: bytes on the local disk of each node. memory: bytes of a worker, mapped files included.
    """

    rows: int
    others: int
    compared: int
    pairs: int
    least: int
    most: int
    cores: int
    seconds: float
    scratch: int
    node: int
    memory: int

    def told(self) -> str:
        """In a sentence."""
        return (
            f"{self.rows:,} x {self.others:,} rows are {self.compared:.3g} pairs to compare, of "
            f"which about {self.pairs:,} reach the threshold ({self.least:,} to {self.most:,}); "
            f"that takes about {_duration(self.seconds)} on {self.cores} cores, "
            f"{_size(self.memory)} of memory for a worker, {_size(self.scratch)} of disk beside "
            f"the output and {_size(self.node)} on each node"
        )


def forecast_join(
    left: DataFrame, right: DataFrame | None, metric: str, threshold: float
) -> Forecast | None:
    """What a join of tables (id, embedding) would take; None where a sample has no pair of rows.

    Each table is read once, for the rows with the smallest hashes of ids, which a task joins.

    Raises InvalidInput where the vectors of a table, or of the two, have different lengths.
    """
    from ember.worker.vectors.sampled_join import SAMPLE_VALUES

    tables = [left] if right is None else [left, right]
    counts = [_rows(table) for table in tables]
    lengths = [length for table in tables if (length := dimension(table))]
    if len(lengths) < len(tables):
        return None
    length = check_lengths(lengths)
    shares = [min(1.0, SAMPLE_VALUES / length / max(1, count)) for count in counts]
    found = _joined(
        [_drawn(*each) for each in zip(tables, shares, strict=True)],
        shares,
        length,
        metric,
        threshold,
    )
    if found is None:
        return None
    cost, id_bytes = found
    rows, others, stored = counts[0], counts[-1], sum(counts)
    compared = rows * (rows - 1) // 2 if right is None else rows * others
    vectors = stored * length * 4
    cores = classic.cores(left.sparkSession)
    work = compared * cost.pair_seconds + stored * cost.row_seconds + vectors / _PACKED_BYTES
    pairs = cost.share * compared
    return Forecast(
        rows=rows,
        others=others,
        compared=compared,
        pairs=round(pairs),
        least=round(cost.low * compared),
        most=round(cost.high * compared),
        cores=cores,
        seconds=_START_SECONDS + work / cores,
        scratch=round(vectors + stored * id_bytes + pairs * (2 * id_bytes + _SCORE_BYTES)),
        node=round(stored * (cost.row_bytes + id_bytes)),
        memory=round(_WORKER_BYTES + _BLOCKS * min(stored, block_rows(length)) * cost.row_bytes),
    )


def _rows(table: DataFrame) -> int:
    known = footers.partition_rows(table)
    return table.count() if known is None else sum(known)


def _drawn(table: DataFrame, share: float) -> DataFrame:
    """(hash, size, embedding) of about a share of the rows, whatever the partitions."""
    hashed = F.pmod(F.xxhash64("id"), F.lit(_HASHES))
    size = F.octet_length(F.col("id").cast("string"))
    rows = table.select(hashed.alias("hash"), size.alias("size"), "embedding")
    return rows if share == 1 else rows.where(F.col("hash") < int(share * _HASHES))


def _joined(
    samples: Sequence[DataFrame],
    shares: Sequence[float],
    length: int,
    metric: str,
    threshold: float,
) -> tuple[SampledJoin, float] | None:
    """What a task finds that joins the samples, and the mean bytes of an id; None of no pair."""
    sides = [sample.withColumn("side", F.lit(side)) for side, sample in enumerate(samples)]
    # In an order of their own: what is found does not depend on the partitions.
    rows = reduce(DataFrame.unionByName, sides).repartition(1).sortWithinPartitions("hash")

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from ember.worker.vectors.sampled_join import sample_join
        from ember.worker.vectors.vectors import read_vectors

        if not (given := list(batches)):
            return
        table = pa.Table.from_batches(given)
        sampled = [table.filter(pc.equal(table["side"], side)) for side in range(len(shares))]
        vectors = [read_vectors(each["embedding"], metric, length).matrix for each in sampled]
        if min(map(len, vectors)) < 2:
            return
        _, threads = task_resources()
        how: dict[str, Any] = {"drawn": (shares[0], shares[-1]), "threads": threads}
        right = None if len(vectors) == 1 else vectors[1]
        cost = sample_join(vectors[0], right, metric, threshold, **how)
        ids = pc.mean(table["size"]).as_py() or 0.0
        yield pa.RecordBatch.from_pydict({"told": pa.array([json.dumps([asdict(cost), ids])])})

    from ember.worker.vectors.sampled_join import SampledJoin

    told = rows.mapInArrow(run, "told string").collect()
    if not told:
        return None
    cost, id_bytes = json.loads(told[0]["told"])
    return SampledJoin(**cost), id_bytes


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    if count < 1 << 30:
        return f"{max(1, round(count / (1 << 20)))} MiB"
    return f"{count / (1 << 30):.1f} GiB"
