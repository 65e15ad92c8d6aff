"""Tables of embeddings made ready for comparison: packed into runs, then put into blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from ember.comparison import blocks, vector_files
from ember.comparison.blocks import Fitter, TableVectors
from ember.comparison.comparison import Comparison
from ember.comparison.index_files import Index
from ember.comparison.vector_files import Runs
from ember.errors import InvalidInput
from ember.settings.comparison import ComparisonLimits
from ember.spark.classic import cores
from ember.spark.older_versions import inheriting
from ember.spark.storage import Storage
from ember.worker.vectors.basis import fit_basis

__all__ = ["check_lengths", "prepare"]

# Smaller blocks cost more to send than to compare.
_LEAST_ROWS = 256
_LIMITS = ComparisonLimits()
# Of the neighbors of one block of queries in a worker, and what each of them takes meanwhile.
_NEIGHBOR_BYTES, _BYTES_EACH = 1 << 30, 96


def prepare(
    left: DataFrame,
    right: DataFrame | None,
    metric: str,
    folder: str,
    *,
    left_blocks: int = 1,
    k: int | None = None,
    fitter: Fitter | None = None,
    index: Index | None = None,
    limits: ComparisonLimits = _LIMITS,
) -> Comparison:
    """Pack tables (id, embedding), or (id, embedding, group), into blocks under `folder`.

    What an earlier attempt packed there is taken up. right: None compares the left table with
    itself. left_blocks: pack the left table into at least so many blocks. k: neighbors of each
    left row, of which a worker holds those of a block. fitter: makes the basis
    on a worker; by default `fit_basis`. index: in place of a right table, with its own basis.

    Raises InvalidInput when the vectors of the two have different lengths, where the neighbors
    of one row take too much memory, and where an earlier attempt had an index and this one has not.
    """
    spark = left.sparkSession
    storage = Storage(spark)
    compared = Comparison.load(storage, folder)
    if compared is None:
        fitter = fitter or partial(fit_basis, metric=metric)
        compared = _pack(
            left,
            right,
            metric,
            folder,
            left_blocks=left_blocks,
            k=k,
            fitter=fitter,
            index=index,
            limits=limits,
        )
        compared.save(storage, folder)
    elif compared.indexed and index is None:
        raise InvalidInput(
            "the run that is to be resumed searched with index.path; give it again, or set "
            "output.mode to overwrite"
        )
    else:
        for packed in compared.sides().values():
            packed.send(spark)
    return replace(compared, right=index, basis=index.basis, indexed=True) if index else compared


def _pack(
    left: DataFrame,
    right: DataFrame | None,
    metric: str,
    folder: str,
    *,
    left_blocks: int,
    k: int | None,
    fitter: Fitter,
    index: Index | None,
    limits: ComparisonLimits,
) -> Comparison:
    spark = left.sparkSession
    given = {"left": left} if right is None else {"left": left, "right": right}
    last = list(given)[-1]
    writing = {
        name: partial(vector_files.write, rows, metric, f"{folder}/{name}/runs")
        for name, rows in given.items()
    }
    made = _at_once(spark, writing)
    dimension = _dimension(made, limits.max_failed_fraction, index)
    vectors = {name: TableVectors.of(spark, each, dimension) for name, each in made.items()}
    sizes = {
        name: vector_files.block_rows(dimension, each.kind)
        if limits.rows_per_block == "auto"
        else limits.rows_per_block
        for name, each in made.items()
    }
    # Blocks of the left table become tasks of their own.
    fewest = max(_LEAST_ROWS, -(-vectors["left"].rows // left_blocks))
    others = index.rows if index else vectors[last].rows
    sizes["left"] = min(sizes["left"], fewest, _affordable(k, others))
    sorting = {
        name: partial(
            blocks.pack, spark, made[name], vectors[name], f"{folder}/{name}/blocks", sizes[name]
        )
        for name in given
    }
    basis = (lambda: index.basis) if index else partial(blocks.fit, spark, vectors[last], fitter)
    packed = _at_once(spark, {**sorting, "basis": basis})
    sides, indexed = (packed["left"], packed[last]), index is not None
    return Comparison(*sides, metric, packed["basis"], cores(spark), indexed)


def _affordable(k: int | None, rows: int) -> int:
    """Of how many queries a worker can hold k neighbors each, among so many rows."""
    each = min(k or 1, max(1, rows)) * _BYTES_EACH
    if each > _NEIGHBOR_BYTES:
        raise InvalidInput(
            f"k is {k}, and the neighbors of one query among {rows} rows take more than "
            f"{_NEIGHBOR_BYTES >> 20} MiB; ask for at most {_NEIGHBOR_BYTES // _BYTES_EACH}, or "
            "join with a threshold"
        )
    return _NEIGHBOR_BYTES // each


def _dimension(made: Mapping[str, Runs], max_failed_fraction: float, index: Index | None) -> int:
    """The length of the vectors of all tables; 1 where none has any."""
    lengths = [
        each.dimension(f"the {name} table", max_failed_fraction) for name, each in made.items()
    ]
    lengths += [index.dimension] if index and index.rows else []
    return check_lengths([length for length in lengths if length])


def check_lengths(known: Sequence[int]) -> int:
    """The length that the vectors of all tables have; 1 where none has any.

    Raises InvalidInput where they differ.
    """
    if len(set(known)) > 1:
        raise InvalidInput(
            f"the left vectors have {known[0]} dimensions and the right ones {known[1]}; embed "
            "both with one model, or project them to one size"
        )
    return known[0] if known else 1


def _at_once(spark: SparkSession, work: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Results by name; a small table's jobs alone would leave most cores waiting."""
    with ThreadPoolExecutor(len(work)) as pool:
        call = inheriting(spark, lambda each: each())
        return dict(zip(work, pool.map(call, work.values()), strict=True))
