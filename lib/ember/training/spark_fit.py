"""Fitting a head on rows that no single worker holds: sums over blocks, L-BFGS on the driver.

The problem is the one of ember.worker.heads.objective, and so is its minimum. Each step is one pass
over cached blocks; only parameters and gradients travel.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import RDD, StorageLevel
from pyspark.sql import DataFrame

from ember.spark import classic
from ember.spark.together import together
from ember.worker.heads.fit import Recipe, fit, fold_loss, fold_of, problem_of, targets_of, to_head
from ember.worker.heads.head import Float32, Head, standardize
from ember.worker.heads.objective import Layers, minimize
from ember.worker.heads.rows import ColumnMoments, Float64, check_scale, read_rows, scaling
from ember.worker.heads.weighting import fit_weighted

__all__ = ["fit_on_cluster"]

_BLOCK_BYTES = 16 << 20
_LINEAR_ITERATIONS = 500

# (n, features) on one scale, targets, the fold of each row
_Block = tuple[Float32, Any, Any]


def fit_on_cluster(rows: DataFrame, recipe: Recipe, label_rows: Float64, count: int) -> Head:
    """A head fitted on training rows (id, part, draw, labels, f0, …); not calibrated yet.

    label_rows: (c,) training rows of each label. count: training rows.
    Which rows are in a block depends on their ids and number only, so that the result does not
    depend on partitions but for the order of floating-point sums.
    """
    blocks = max(1, -(-count * 4 * sum(recipe.parts) // _BLOCK_BYTES))
    packed = together(rows, "id", partitions=blocks).sortWithinPartitions("id").drop("id")
    raw = classic.binary_rows(packed.mapInArrow(_packer(recipe), "block binary"))
    raw.persist(StorageLevel.MEMORY_AND_DISK)

    def attempt(recipe: Recipe, scale: Float32) -> tuple[Layers, dict[str, Any]]:
        scaled = raw.map(_scaler(recipe, mean, scale)).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            return fit(recipe, _OnCluster(scaled, recipe, label_rows, count))
        finally:
            scaled.unpersist()

    try:
        moments = raw.map(lambda block: ColumnMoments.of(pickle.loads(block).matrix)).treeReduce(
            ColumnMoments.merge
        )
        mean, scale = scaling(moments, list(recipe.parts), recipe.scaling)
        layers, scale, notes = fit_weighted(recipe, scale, attempt)
    finally:
        raw.unpersist()
    return to_head(recipe, layers, mean, scale, notes)


def _packer(recipe: Recipe) -> Callable[..., Iterator[pa.RecordBatch]]:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = read_rows(batches, recipe.labels, recipe.multilabel, list(recipe.parts))
        if not recipe.multilabel:
            rows = rows.take(rows.targets >= 0)
        if len(rows):
            yield pa.RecordBatch.from_pydict({"block": pa.array([pickle.dumps(rows)], pa.binary())})

    return run


def _scaler(recipe: Recipe, mean: Float32, scale: Float32) -> Callable[[bytes], _Block]:
    def run(packed: bytes) -> _Block:
        rows = pickle.loads(packed)
        check_scale(rows.matrix, recipe.parts, scale)
        matrix = standardize(rows.matrix, recipe.parts, recipe.indicators, mean, scale)
        return matrix, targets_of(rows, recipe), fold_of(rows.draw, recipe.folds)

    return run


class _OnCluster:
    """Blocks of training rows; see `ember.worker.heads.fit.Fitter`."""

    def __init__(
        self, blocks: RDD[_Block], recipe: Recipe, label_rows: Float64, count: int
    ) -> None:
        self._blocks = blocks
        self._recipe = recipe
        self._count = count
        self._problem = problem_of(recipe, label_rows, count)
        self._iterations = recipe.iterations if recipe.kind == "mlp" else _LINEAR_ITERATIONS

    def fit(self, penalty: float, without: int | None) -> Layers:
        problem = self._problem
        count = self._count
        if without is not None:
            count = self._blocks.map(lambda block: int((block[2] != without).sum())).sum()

        def total(flat: Float64) -> Float64:
            def of(block: _Block) -> Float64:
                matrix, targets, folds = block
                chosen = folds != without
                return problem.value(sent.value, matrix[chosen], targets[chosen])

            sent = self._blocks.context.broadcast(flat)
            try:
                return self._blocks.map(of).treeReduce(np.add)
            finally:
                sent.destroy()

        flat = minimize(
            problem,
            total,
            rows=count,
            penalty=penalty,
            start=problem.start(self._recipe.seed),
            iterations=self._iterations,
        )
        return problem.layers(flat)

    def loss(self, layers: Layers, fold: int) -> tuple[float, int]:
        problem = self._problem

        def of(block: _Block) -> tuple[float, int]:
            matrix, targets, folds = block
            chosen = folds == fold
            return fold_loss(problem, layers, matrix[chosen], targets[chosen])

        return self._blocks.map(of).reduce(
            lambda one, other: (one[0] + other[0], one[1] + other[1])
        )
