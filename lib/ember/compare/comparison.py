"""Two tables of embeddings made ready for comparison, block against block.

Each side is sorted and packed into blocks (ember.compare.blocks); tasks take pairs of blocks,
read them from their node, and only ids and scores travel on. The scores and the order of
ties do not depend on blocks, partitions or retries (see ember.similarity).
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

from pyspark import inheritable_thread_target
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructField, StructType

from ember import tables
from ember.compare import blocks
from ember.compare.blocks import Packed
from ember.compare.census import census
from ember.errors import InvalidInput
from ember.publish import Output
from ember.settings.comparison import ComparisonLimits, JoinConfig, SearchConfig
from ember.similarity.block import Block
from ember.similarity.node import Shelf, own_numbers
from ember.similarity.projection import METRICS
from ember.storage import Storage

__all__ = ["Comparison", "identity", "prepare", "refuse_rejected", "scratch_folder", "sides"]

_FILE = "comparison.json"
# Smaller blocks cost more to send than to compare.
_LEAST_ROWS = 256
_LIMITS = ComparisonLimits()


@dataclass(frozen=True)
class Comparison:
    """Two packed tables, or one with itself (right is left), and the basis they share.

    ungrouped: rows of each table that belong to no group, where groups are asked for.
    """

    left: Packed
    right: Packed
    metric: str
    basis: bytes
    ungrouped: Mapping[str, int]

    @property
    def itself(self) -> bool:
        return self.right is self.left

    @property
    def grouped(self) -> bool:
        """Are only rows of one group compared?"""
        return self.left.spans is not None and self.right.spans is not None

    @property
    def rejected(self) -> dict[str, int]:
        """How many rows of each table cannot be compared."""
        return {name: packed.rejected for name, packed in self.sides().items()}

    def sides(self) -> dict[str, Packed]:
        """The tables by name: left and, where it is another one, right."""
        return {"left": self.left} if self.itself else {"left": self.left, "right": self.right}

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        tables = {
            name: {"rows": packed.rows, "blocks": len(packed.files), "rejected": packed.rejected}
            for name, packed in self.sides().items()
        }
        for name, count in self.ungrouped.items():
            tables[name]["without_group"] = count
        return {"dimension": self.left.dimension, "tables": tables}

    def shelves(self, threads: int) -> tuple[Shelf, Shelf]:
        """On a worker: the blocks of both tables."""
        left = self.left.shelf(self.basis, threads)
        return left, left if self.itself else self.right.shelf(self.basis, threads)

    def queries(self, number: int, left: Shelf, right: Shelf, *, exclude_self: bool) -> Block:
        """On a worker: a left block; to leave out a query's own row, under that row's number."""
        block = left.block(number)
        if exclude_self and not self.itself:
            return replace(block, ids=own_numbers(left.ids(number), right))
        return block

    def partners(self, number: int) -> list[int]:
        """The right blocks that a left block is compared with: those that share a group with it."""
        others = range(len(self.right.files))
        if self.left.spans is None or self.right.spans is None:
            return list(others)
        first, last = self.left.spans[number]
        return [
            o for o in others if first <= self.right.spans[o][1] and self.right.spans[o][0] <= last
        ]

    def save(self, storage: Storage, folder: str) -> None:
        """Note in `folder` what was packed, for a run that is resumed."""
        right = None if self.itself else _noted(self.right)
        facts = {
            "left": _noted(self.left),
            "right": right,
            "metric": self.metric,
            "basis": base64.b64encode(self.basis).decode("ascii"),
            "ungrouped": dict(self.ungrouped),
        }
        storage.write_text(f"{folder}/{_FILE}", json.dumps(facts))

    @classmethod
    def load(cls, storage: Storage, folder: str) -> Comparison | None:
        """What `save` noted; None where nothing was."""
        if not storage.exists(f"{folder}/{_FILE}"):
            return None
        facts = json.loads(storage.read_text(f"{folder}/{_FILE}"))
        left = _restored(facts["left"])
        right = left if facts["right"] is None else _restored(facts["right"])
        basis = base64.b64decode(facts["basis"])
        return cls(left, right, facts["metric"], basis, facts["ungrouped"])


def prepare(
    left: DataFrame,
    right: DataFrame | None,
    metric: str,
    folder: str,
    *,
    left_blocks: int = 1,
    limits: ComparisonLimits = _LIMITS,
) -> Comparison:
    """Pack tables (id, embedding), or (id, embedding, group), into blocks under `folder`.

    What an earlier attempt packed there is taken up. right: None compares the left table with
    itself. left_blocks: pack the left table into at least so many blocks.

    Raises InvalidInput when the vectors of the two have different lengths.
    """
    storage = Storage(left.sparkSession)
    compared = Comparison.load(storage, folder)
    if compared is None:
        compared = _pack(left, right, metric, folder, left_blocks=left_blocks, limits=limits)
        compared.save(storage, folder)
    else:
        for packed in compared.sides().values():
            packed.send(left.sparkSession)
    return compared


def _pack(
    left: DataFrame,
    right: DataFrame | None,
    metric: str,
    folder: str,
    *,
    left_blocks: int,
    limits: ComparisonLimits,
) -> Comparison:
    given = {"left": left} if right is None else {"left": left, "right": right}
    counts = census(
        {f"the {name} table": rows for name, rows in given.items()}, limits.max_failed_fraction
    )
    known = [each.dimension for each in counts if each.dimension]
    if len(set(known)) > 1:
        raise InvalidInput(
            f"the left vectors have {known[0]} dimensions and the right ones {known[1]}; embed "
            "both with one model, or project them to one size"
        )
    dimension = known[0] if known else 1
    ungrouped = {}
    if "group" in left.columns:
        ungrouped = {name: each.ungrouped for name, each in zip(given, counts, strict=True)}
        given = {name: rows.filter("group is not null") for name, rows in given.items()}
    most = (
        blocks.block_rows(dimension) if limits.rows_per_block == "auto" else limits.rows_per_block
    )
    grouped = [each.rows - each.ungrouped for each in counts]
    # Blocks of the left table become tasks of their own.
    size = {"left": min(most, max(_LEAST_ROWS, -(-grouped[0] // left_blocks))), "right": most}

    def pack(name: str, rows: DataFrame, count: int) -> Packed:
        where = f"{folder}/{name}"
        return blocks.pack(rows, metric, dimension, where, size=size[name], count=count)

    # At once, since the smaller side alone would leave most cores waiting.
    with ThreadPoolExecutor(len(given)) as pool:
        work = inheritable_thread_target(left.sparkSession)(pack)
        packed = list(pool.map(work, given.keys(), given.values(), grouped))
    for each in packed:
        each.send(left.sparkSession)
    basis = blocks.fit(left.sparkSession, packed[-1], metric)
    return Comparison(packed[0], packed[-1], metric, basis, ungrouped)


def sides(
    left: DataFrame,
    right: DataFrame | None,
    metric: str,
    *,
    id: str,
    embedding: str,
    within: Sequence[str],
) -> tuple[DataFrame, DataFrame | None]:
    """Two tables as `prepare` takes them. Raises InvalidInput for what holds no embeddings."""
    if metric not in METRICS:
        raise InvalidInput(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}")
    rows = tables.select_embeddings(left, id, embedding, "the left table", within)
    if right is None:
        return rows, None
    return rows, tables.select_embeddings(right, id, embedding, "the right table", within)


def identity(
    config: SearchConfig | JoinConfig, left: DataFrame, right: DataFrame | None
) -> dict[str, Any]:
    """What the rows of the output depend on; see `publish.Output`."""
    settings = config.model_dump(mode="json", exclude={"output", "report"})
    storage = Storage(left.sparkSession)
    files = tables.files(left) + (tables.files(right) if right else [])
    return {**settings, "input": storage.fingerprint(files)}


def refuse_rejected(
    spark: SparkSession, compared: Comparison, output: Output, max_failed_fraction: float
) -> None:
    """Keep the rows that cannot be compared beside the output; raise when they are too many.

    Raises TooManyFailures when they are more than `max_failed_fraction` of a table's rows.
    """
    for name, packed in compared.sides().items():
        bad = blocks.rejected_rows(spark, packed.folder, packed.id_type)
        total = packed.rows + packed.rejected
        output.refuse_rejected(bad, packed.rejected, total, max_failed_fraction, name)


def scratch_folder() -> str:
    """A temporary folder of this machine, for blocks in local mode."""
    return f"file://{tempfile.mkdtemp(prefix='ember-blocks-')}"


def _noted(packed: Packed) -> dict[str, Any]:
    facts = {field.name: getattr(packed, field.name) for field in fields(packed)}
    return {**facts, "id_type": StructType([StructField("id", packed.id_type)]).jsonValue()}


def _restored(facts: dict[str, Any]) -> Packed:
    spans = facts["spans"]
    return Packed(
        **{
            **facts,
            "files": tuple(facts["files"]),
            "firsts": tuple(facts["firsts"]),
            "spans": None if spans is None else tuple((first, last) for first, last in spans),
            "id_type": StructType.fromJson(facts["id_type"])["id"].dataType,
        }
    )
