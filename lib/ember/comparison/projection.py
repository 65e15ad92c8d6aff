"""Projecting a table of embeddings to fewer dimensions: fitted on the cluster, or loaded.

Fitting reads the table once; each task reduces its rows to their moments
(ember.worker.vectors.pca), which merge in a tree. A task holds a few matrices of d x d float64 (of
n x d, while its rows are fewer) and so does the driver, where the last ones merge: 32 MiB each at
2048 dimensions, 128 MiB at 4096, and no more than `ember.worker.vectors.pca.MOST_BYTES`.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType, StringType, StructField, StructType

from ember.errors import InvalidConfig, InvalidInput, find_in_text
from ember.settings.limits import MAX_FAILED_FRACTION
from ember.spark import classic
from ember.spark.classic import Broadcast
from ember.spark.dimensions import dimension_of
from ember.spark.heads import load_head
from ember.spark.publish import Output
from ember.spark.storage import Storage
from ember.spark.tables import column, select_embeddings
from ember.worker.heads.head import DESCRIPTION
from ember.worker.vectors.arrays import Stored
from ember.worker.vectors.pca import Moments, fit_pca
from ember.worker.vectors.projection import Projection, project_column
from ember.worker.vectors.vectors import read_vectors

__all__ = [
    "TARGET",
    "TOLERANCE",
    "check_choice",
    "check_length",
    "fit_projection",
    "load_projection",
    "moments_of",
    "output_dimension",
    "projected",
    "projection_output",
    "rejected_rows",
    "save_projection",
    "stage_projection",
]

# Of all partial moments together, which is what the tree moves about.
_PARTIAL_BYTES = 8 << 30
TARGET = "target"
"""The folder in that of an alignment which holds the projection of the other table."""
TOLERANCE = 1e-6
"""Between two runs of one projection, relative to a vector's largest value: a bit of float32."""


def fit_projection(
    table: DataFrame,
    *,
    dimension: int | None = None,
    explained: float | None = None,
    center: bool = True,
    whiten: bool = False,
    embedding: str = "embedding",
    max_failed_fraction: float = MAX_FAILED_FRACTION,
) -> Projection:
    """Principal components of the vectors in a column of `table`; one of the two sizes is given.

    Rows without a usable vector (null, another length, not finite) are left out.
    The result does not depend on the partitioning, up to the rounding of float64; directions of
    equal variance are any orthonormal basis of their span. In each component, the first of the
    largest coordinates by absolute value is positive.

    Args:
        table: a column array<float> or array<double> of vectors of d numbers.
        dimension: how many components, 1 to d.
        explained: instead, the fewest that explain this share of the variance, above 0 up to 1.
        center: subtract the mean; without it, inner products are kept best.
        whiten: scale each component to variance 1.
        embedding: the name of the column.
        max_failed_fraction: share of the vectors that may be of another length than most.

    Returns:
        The map, from d to so many dimensions, for `project`; `apply` takes a matrix (n, d).

    Raises:
        InvalidInput: a table without usable vectors or with two lengths of them, and a size that
            cannot be.
        InvalidConfig: not one size is given, but none or two.

    Example:
        >>> rows = [([3.0, 4.0],), ([6.0, 8.0],), ([-3.0, -4.0],)]
        >>> table = spark.createDataFrame(rows, "embedding array<float>")
        >>> fitted = ember.fit_projection(table, explained=0.99)
        >>> fitted.input_dimension, fitted.output_dimension
        (2, 1)
        >>> fitted.components.ravel().round(3).tolist()
        [0.6, 0.8]
    """
    check_choice(dimension=dimension, explained=explained)
    vectors = _vectors(table, embedding)
    length = dimension_of(vectors, "the table", max_failed_fraction)
    if not length:
        raise InvalidInput("the table has no vectors to fit principal components on")
    if dimension is not None and not 1 <= dimension <= length:
        raise InvalidInput(f"cannot project {length} dimensions to {dimension}; give 1 to {length}")
    try:
        return fit_pca(
            moments_of(vectors, length),
            dimension=dimension,
            explained=explained,
            center=center,
            whiten=whiten,
        )
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def projected(table: DataFrame, projection: Projection, embedding: str) -> DataFrame:
    """`table` less the rows that cannot be projected, the others with their new vectors."""
    place = table.columns.index(embedding)
    # Under plain names meanwhile: mapInArrow takes no column with a dot or a backtick in its name.
    plain = table.toDF(*(f"c{number}" for number in range(len(table.columns))))
    fields = list(plain.schema.fields)
    fields[place] = StructField(fields[place].name, ArrayType(FloatType()))
    sent = classic.broadcast(table.sparkSession, projection)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            vectors, reasons = project_column(batch.column(place), sent.value)
            columns = [*batch.columns[:place], vectors, *batch.columns[place + 1 :]]
            names = batch.schema.names
            yield pa.RecordBatch.from_arrays(columns, names=names).filter(reasons.is_null())

    return plain.mapInArrow(run, StructType(fields)).toDF(*table.columns)


def rejected_rows(table: DataFrame, projection: Projection, id: str, embedding: str) -> DataFrame:
    """The rows that cannot be projected, as (id, reason)."""
    rows = select_embeddings(table, id, embedding, "the table")
    schema = StructType(
        [StructField("id", rows.schema["id"].dataType), StructField("reason", StringType())]
    )
    return rows.mapInArrow(_rejecter(classic.broadcast(table.sparkSession, projection)), schema)


def _rejecter(
    sent: Broadcast[Projection],
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            _, reasons = project_column(batch.column(1), sent.value)
            bad = pa.RecordBatch.from_arrays([batch.column(0), reasons], names=["id", "reason"])
            yield bad.filter(reasons.is_valid())

    return run


def check_choice(**ways: object) -> None:
    """Raise InvalidConfig unless exactly one of the ways is given."""
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        known, found = ", ".join(ways), " and ".join(given) or "none of them"
        raise InvalidConfig(f"give one of {known}; there is {found}")


def output_dimension(table: DataFrame, embedding: str, shown: str) -> int:
    """The length of the vectors of a table. Raises InvalidInput where there are none."""
    length = dimension_of(_vectors(table, embedding), f"the table {shown}", 0.01)
    if not length:
        raise InvalidInput(f"the table {shown} has no vectors to take the dimension from")
    return length


def check_length(
    table: DataFrame,
    embedding: str,
    projection: Projection,
    max_failed_fraction: float = MAX_FAILED_FRACTION,
) -> None:
    """Raise InvalidInput when the projection takes vectors of another length than the table's."""
    length = dimension_of(_vectors(table, embedding), "the table", max_failed_fraction)
    if length and length != projection.input_dimension:
        raise InvalidInput(
            f"the table's vectors have {length} dimensions and the projection takes "
            f"{projection.input_dimension}; fit one on vectors of the same model"
        )


def projection_output(
    spark: SparkSession, folder: str, mode: str, run_id: str | None = None
) -> Output:
    """Where a projection is saved, checked; see `Output.check` for what is refused."""
    output = Output(
        spark,
        folder,
        mode,
        {"job": "project"},
        job="project",
        run_id=run_id,
        holds="projection",
    )
    output.check()
    return output


def stage_projection(
    output: Output, projection: Projection, target: Projection | None = None
) -> None:
    """Stage the files of a projection.

    target: of an alignment by cca, the projection of the other table; goes to `TARGET`.
    """
    with tempfile.TemporaryDirectory() as local:
        projection.save(Path(local))
        if target is not None:
            target.save(Path(local, TARGET))
        for each in Path(local).iterdir():
            output.add(str(each), each.name)


def save_projection(
    spark: SparkSession,
    projection: Projection,
    folder: str,
    target: Projection | None = None,
    *,
    mode: Literal["fail", "overwrite"] = "overwrite",
) -> None:
    """Write a projection as a folder, wherever Spark can write, whole or not at all.

    Args:
        spark: the session.
        projection: what `fit_projection` or `fit_alignment` fitted.
        folder: where to; `project` takes it in place of the projection.
        target: of an alignment by cca, the projection of the other table; goes to
            `folder`/target.
        mode: overwrite replaces a projection that is there, fail refuses it.

    Returns:
        Nothing.

    Raises:
        InvalidInput: `folder` holds anything else.

    Example:
        >>> table = spark.createDataFrame([([1.0, 2.0],), ([3.0, 5.0],)], "embedding array<float>")
        >>> fitted = ember.fit_projection(table, dimension=1)
        >>> ember.save_projection(spark, fitted, f"{folder}/pca")
        >>> ember.load_projection(spark, f"{folder}/pca").fingerprint == fitted.fingerprint
        True
    """
    output = projection_output(spark, folder, mode)
    with output.attempt():
        stage_projection(output, projection, target)
        output.publish(projection.summary())


def load_projection(spark: SparkSession, folder: str) -> Projection:
    """The projection in a folder.

    Args:
        spark: the session.
        folder: what `save_projection` or the job `project` wrote, or a head that `train` wrote
            with `head="similarity"`.

    Returns:
        The map, as it was fitted.

    Raises:
        InvalidInput: there is no usable projection.

    Example:
        >>> table = spark.createDataFrame([([1.0, 2.0],), ([3.0, 5.0],)], "embedding array<float>")
        >>> ember.save_projection(spark, ember.fit_projection(table, dimension=2), f"{folder}/pca")
        >>> ember.load_projection(spark, f"{folder}/pca").output_dimension
        2
    """
    storage = Storage(spark)
    if not storage.exists(folder):
        raise InvalidInput(f"there is no projection at {folder}")
    if storage.exists(f"{folder}/{DESCRIPTION}"):
        return load_head(spark, folder).as_projection()
    with tempfile.TemporaryDirectory() as local:
        storage.download(folder, f"{local}/projection")
        try:
            return Projection.load(f"{local}/projection")
        except ValueError as error:
            raise InvalidInput(f"{folder}: {error}") from None


def _vectors(table: DataFrame, embedding: str) -> DataFrame:
    """The column as (id, embedding), for the checks that all tables of embeddings pass."""
    if embedding not in table.columns:
        column(table, embedding)  # says which columns there are
        raise InvalidInput(f"{embedding} lies within another column; select it into one of its own")
    with_id = table.select(F.lit(0).alias("id"), column(table, embedding).alias("embedding"))
    return select_embeddings(with_id, "id", "embedding", "the table")


def moments_of(vectors: DataFrame, dimension: int) -> Moments:
    """The moments of the usable vectors in the column `embedding`, reduced by all tasks."""
    packed = vectors.select("embedding")
    bound = max(1, _PARTIAL_BYTES // (8 * dimension * dimension))
    cores = classic.cores(vectors.sparkSession)
    partials = packed.coalesce(min(bound, cores)).mapInArrow(_reducer(dimension), "moments binary")
    depth = max(2, math.ceil(math.log2(max(2, min(bound, cores))) / 2))
    try:
        read = partial(Moments.unpack, dimension=dimension)
        merged = classic.tree_merged(partials, read, _merge, depth)
    except Exception as error:  # of Spark, with what a worker said in its text
        raise find_in_text(str(error)) or error from None
    return Moments.empty(dimension) if merged is None else merged


def _merge(one: Moments | None, other: Moments | None) -> Moments | None:
    if one is None or other is None:
        return other if one is None else one
    with _said():
        return one.merge(other)


def _moments(rows: Stored) -> Moments:
    with _said():
        return Moments.of(rows)


@contextmanager
def _said() -> Iterator[None]:
    """Too many rows and dimensions are the input's fault, also on a worker."""
    try:
        yield
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def _reducer(dimension: int) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        moments: Moments | None = None
        for batch in batches:
            rows = read_vectors(batch.column(0), None, dimension, exact=True).matrix
            moments = _merge(moments, _moments(rows))
        if moments and moments.count:
            packed = pa.array([moments.pack()], pa.binary())
            yield pa.RecordBatch.from_arrays([packed], names=["moments"])

    return run
