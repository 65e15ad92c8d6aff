"""Learning a linear map from pairs: two tables of embeddings, such as images and their texts.

Each task reduces its pairs to the moments of both vectors side by side, which merge in a tree; see
`ember.comparison.projection`, and `ember.worker.vectors.align` for what is made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.comparison.projection import moments_of
from ember.errors import InvalidInput
from ember.settings.limits import MAX_FAILED_FRACTION
from ember.spark.dimensions import dimension_of
from ember.spark.ids import check_can_be_equal
from ember.spark.tables import select_embeddings
from ember.worker.vectors import align
from ember.worker.vectors.align import Penalty
from ember.worker.vectors.projection import Projection

__all__ = ["Pairs", "fit_alignment", "pair"]

Method = Literal["ridge", "procrustes", "cca"]


@dataclass(frozen=True)
class Pairs:
    """Rows of two tables that share an id.

    left, right: the rows of each that have a vector of the table's length, as (id, embedding).
    sizes: the lengths of their vectors.
    """

    left: DataFrame
    right: DataFrame
    sizes: tuple[int, int]

    def fit(
        self,
        method: str = "ridge",
        *,
        dimension: int | None = None,
        penalty: Penalty = "cross_validation",
    ) -> tuple[Projection, Projection | None]:
        """The projection of the left vectors and, where they move, of the right ones.

        See `ember.worker.vectors.align.fit_alignment`. Raises InvalidInput where there are fewer
        than two pairs, and for sizes and methods that cannot be.
        """
        partners = self.right.toDF("id", "other")
        together = self.left.join(partners, "id").select(
            F.concat("embedding", "other").alias("embedding")
        )
        moments = moments_of(together, sum(self.sizes))
        try:
            return align.fit_alignment(
                moments, self.sizes[0], method, dimension=dimension, penalty=penalty
            )
        except ValueError as error:
            raise InvalidInput(str(error)) from None

    def counts(self) -> dict[str, int]:
        """How many pairs there are, and how many rows of each table have no partner."""
        marked = [
            rows.select("id", F.lit(left).alias("left"), F.lit(1 - left).alias("right"))
            for left, rows in ((1, self.left), (0, self.right))
        ]
        each = (
            marked[0]
            .union(marked[1])
            .groupBy("id")
            .agg(F.sum("left").alias("left"), F.sum("right").alias("right"))
        )
        alone = F.col("id").isNull()  # a null is the same as no other
        found = each.agg(
            F.sum(F.when(~alone, F.col("left") * F.col("right"))).alias("pairs"),
            F.sum(F.when(alone | (F.col("right") == 0), F.col("left"))).alias("without_partner"),
            F.sum(F.when(alone | (F.col("left") == 0), F.col("right"))).alias(
                "target_without_partner"
            ),
        )
        return {name: int(count or 0) for name, count in found.collect()[0].asDict().items()}


def pair(
    left: DataFrame, right: DataFrame, max_failed_fraction: float = MAX_FAILED_FRACTION
) -> Pairs:
    """Two tables (id, embedding) to learn from, checked.

    A row without a partner or without a usable vector is left out; an id that occurs more than once
    makes all pairs of its rows.

    Raises InvalidInput for ids that cannot be equal, a table without vectors, or with two lengths.
    """
    kinds = [table.schema["id"].dataType for table in (left, right)]
    check_can_be_equal(kinds[0], kinds[1], "the ids of the left and the right table")
    sizes = [
        dimension_of(table, f"the {name} table", max_failed_fraction)
        for name, table in (("left", left), ("right", right))
    ]
    if not all(sizes):
        raise InvalidInput("a table has no vectors; an alignment is learned from pairs of them")
    usable = [
        table.select("id", "embedding").filter(F.size("embedding") == size)
        for table, size in zip((left, right), sizes, strict=True)
    ]
    return Pairs(usable[0], usable[1], (sizes[0], sizes[1]))


def fit_alignment(
    left: DataFrame,
    right: DataFrame,
    method: Method = "ridge",
    *,
    id: str = "id",
    embedding: str = "embedding",
    dimension: int | None = None,
    penalty: Penalty = "cross_validation",
) -> tuple[Projection, Projection | None]:
    """Linear maps learned from pairs, such as images and their texts, under the same ids.

    A row without a partner or without a usable vector is left out; an id that occurs more than
    once makes all pairs of its rows.

    Args:
        left: an id column and a column array<float> or array<double>, vectors of d numbers.
        right: the same, under the same names; vectors of e numbers.
        method: ridge: left to right by least squares with a penalty. procrustes: left to right by
            the best orthogonal map, scaled. cca: both to common coordinates, by canonical
            correlations.
        id: the name of the id column.
        embedding: the name of the column of the vectors.
        dimension: of the common coordinates of cca; None: the smaller of d and e.
        penalty: for ridge and cca, what is added to the diagonal of the second moments, as a share
            of their mean diagonal; cross_validation chooses it.

    Returns:
        The projection for the left table, and that for the right one; None where it stays as it
        is. Use them in `project`, or save them with `save_projection`.

    Raises:
        InvalidInput: fewer than two pairs, ids that cannot be equal, and sizes and methods that
            cannot be.

    Example:
        >>> rows = [(1, [1.0, 0.0]), (2, [0.0, 1.0]), (3, [-1.0, -1.0])]
        >>> images = spark.createDataFrame(rows, "id int, embedding array<float>")
        >>> turned = [(n, [-y, x]) for n, (x, y) in rows]
        >>> texts = spark.createDataFrame(turned, "id int, embedding array<float>")
        >>> to_texts, stays = ember.fit_alignment(images, texts, "procrustes")
        >>> print(to_texts.facts["pairs"], stays)
        3 None
        >>> [aligned] = ember.project(images, to_texts).table.filter("id = 3").collect()
        >>> [round(value, 3) for value in aligned.embedding]
        [1.0, -1.0]
    """
    rows, others = (
        select_embeddings(table, id, embedding, f"the {name} table")
        for name, table in (("left", left), ("right", right))
    )
    return pair(rows, others).fit(method, dimension=dimension, penalty=penalty)
