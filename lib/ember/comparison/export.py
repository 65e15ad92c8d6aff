"""A corpus table as a faiss index, for those who want to serve it."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, DoubleType, StructField, StructType

from ember.comparison import blocks, comparison, vector_files
from ember.comparison.blocks import Packed, TableVectors
from ember.errors import InvalidInput
from ember.settings.comparison import Metric
from ember.settings.limits import MAX_FAILED_FRACTION
from ember.spark import places
from ember.spark.older_versions import arrow_schema
from ember.spark.origins import files
from ember.spark.publish import Output
from ember.spark.storage import Storage
from ember.spark.tables import select_embeddings
from ember.worker.vectors.block_cache import from_ipc, stored_rows
from ember.worker.vectors.faiss_file import FlatIndexFile, check_format

__all__ = ["check_faiss", "export", "stage_index"]


def export(
    table: DataFrame,
    path: str,
    *,
    metric: Metric = "cosine",
    id: str = "id",
    embedding: str = "embedding",
    mode: Literal["fail", "overwrite"] = "fail",
    max_failed_fraction: float = MAX_FAILED_FRACTION,
) -> dict[str, Any]:
    """Write a table of embeddings as a flat faiss index, published whole or not at all.

    The folder has `index.faiss`; `ids.parquet` with `position` (int64, the number that faiss
    returns) and `id`; and `_manifest.json`. Doubles are rounded to float32, which is what faiss
    computes in; its own distances far from the origin are rounded by more.

    Args:
        table: an id column of any atomic type, and a column array<float> or array<double>.
        path: the folder to write.
        metric: cosine and inner_product give an IndexFlatIP, euclidean an IndexFlatL2. For cosine
            the rows are scaled to length 1; scale the queries, too.
        id: the name of the id column.
        embedding: the name of the column of the vectors.
        mode: fail where there is something at `path`, or overwrite what an export wrote.
        max_failed_fraction: share of the rows that may have no usable vector; they are kept, with
            their reasons, in `<path>.rejected`.

    Returns:
        What the manifest says of the index: its kind, the dimension, counts.

    Raises:
        InvalidInput: a table that holds no embeddings, a place that is taken, or faiss is not
            installed.
        TooManyFailures: more rows than `max_failed_fraction` have no usable vector; nothing is
            published.

    Example:
        >>> rows = [("a", [1.0, 0.0]), ("b", [0.8, 0.6])]
        >>> table = spark.createDataFrame(rows, "id string, embedding array<float>")
        >>> ember.export(table, f"{folder}/index", metric="inner_product")["counts"]
        {'rows': 2, 'rejected': 0}
    """
    comparison.check_metric(metric)
    check_faiss()
    rows = select_embeddings(table, id, embedding, "the table")
    spark = table.sparkSession
    places.check_apart(Storage(spark), {"path": path}, {"the table": files(table)})
    output = Output(spark, path, mode, {"job": "export"}, job="export")
    output.check()
    with output.attempt():
        facts = stage_index(rows, metric, output, max_failed_fraction)
        output.publish(facts)
    return facts


def check_faiss() -> None:
    """Raise InvalidInput when there is no faiss here, or one with another format."""
    try:
        check_format()
    except ImportError:
        raise InvalidInput(
            "faiss is not installed here; install it with pip install 'ember-spark[faiss]'"
        ) from None
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def stage_index(
    rows: DataFrame, metric: str, output: Output, max_failed_fraction: float
) -> dict[str, Any]:
    """Write (id, embedding) as an index and its ids for `output` to publish; for the manifest.

    Raises TooManyFailures when more than `max_failed_fraction` of the rows have no usable vector.
    """
    spark = rows.sparkSession
    # faiss takes float32.
    doubles = rows.schema["embedding"].dataType == ArrayType(DoubleType())
    made = vector_files.write(rows, metric, f"{output.scratch}/runs", exact=False)
    dimension = made.dimension("the table", max_failed_fraction)
    if not dimension:
        raise InvalidInput("the table has no vectors to make an index of")
    vectors, size = TableVectors.of(spark, made, dimension), vector_files.block_rows(dimension)
    packed = blocks.pack(spark, made, vectors, f"{output.scratch}/blocks", size)
    bad, total = partial(packed.rejected_rows, spark), packed.rows + packed.rejected
    output.refuse_rejected(bad, packed.rejected, total, max_failed_fraction)
    with tempfile.TemporaryDirectory(prefix="ember-faiss-") as folder:
        _write(packed, metric, Path(folder))
        for name in ("index.faiss", "ids.parquet"):
            output.add(f"{folder}/{name}", name)
    return {
        "index": {
            "kind": "IndexFlatL2" if metric == "euclidean" else "IndexFlatIP",
            "metric": metric,
            "scaled_to_length_1": metric == "cosine",
        },
        "dimension": dimension,
        # What a value may be off by, relatively, where the table has doubles.
        "rounding": 2.0**-24 if doubles else 0.0,
        "counts": {"rows": packed.rows, "rejected": packed.rejected},
    }


def _write(packed: Packed, metric: str, folder: Path) -> None:
    """Vectors go where their ids are, which are sorted: run by run, each row to its position."""
    positions = np.empty(packed.rows, np.int64)
    ids_only = StructType([StructField("id", packed.id_type)])
    id_field = arrow_schema(ids_only).field("id")
    schema = pa.schema([pa.field("position", pa.int64()), id_field])
    with pq.ParquetWriter(f"{folder}/ids.parquet", schema) as writer:
        first = 0
        for file in packed.files_here():
            for block in stored_rows(file):
                ids, places = (block.column(name)[0].as_buffer() for name in ("ids", "places"))
                ids = from_ipc(ids)
                mine = np.arange(first, first + len(ids), dtype=np.int64)
                positions[np.frombuffer(places, np.int64)] = mine
                columns = [pa.array(mine), ids.cast(id_field.type)]
                writer.write_table(pa.table(columns, schema=schema))
                first += len(ids)
    vectors = packed.vectors.here()
    with FlatIndexFile(f"{folder}/index.faiss", metric, packed.dimension, packed.rows) as index:
        for number, first in enumerate(vectors.firsts):
            rows = vectors.run(number)
            index.put(positions[first : first + len(rows)], rows)
