"""Two tables of embeddings for comparison, block against block.

Tasks take pairs of blocks (ember.comparison.blocks), read them from their node, and only ids and
scores travel on. The scores and the order of ties do not depend on blocks, partitions or retries
(see ember.worker.vectors).
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any
from uuid import uuid4

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StringType, StructField, StructType

from ember.comparison.blocks import Packed, TableVectors
from ember.comparison.index_files import Index
from ember.errors import InvalidInput
from ember.spark import classic, origins, tables, within_keys
from ember.spark.ids import check_can_be_equal
from ember.spark.publish import Output
from ember.spark.staged_files import read_json
from ember.spark.storage import Storage
from ember.worker.vectors.basis import METRICS
from ember.worker.vectors.block import Block
from ember.worker.vectors.block_cache import BlockCache, Blocks, own_numbers

__all__ = [
    "Comparison",
    "check_k",
    "check_metric",
    "check_own",
    "check_within",
    "identity",
    "refuse_rejected",
    "scratch_folder",
    "sides",
]

# The number is that of the format: what another version has packed is packed again.
_FILE = "packed-6.json"


@dataclass(frozen=True)
class Comparison:
    """Two packed tables, or one with itself (right is left), and the basis they share.

    indexed: the right table is an index's, which `save` does not note.
    cores: of the application that packed them. Tasks are divided by it, so that a run which is
    resumed with other cores has tasks of the same numbers.
    """

    left: Packed
    right: Packed | Index
    metric: str
    basis: bytes
    cores: int
    indexed: bool = False

    @property
    def itself(self) -> bool:
        return self.right is self.left and not self.indexed

    @property
    def grouped(self) -> bool:
        """Are only rows of one group compared?"""
        return self.left.spans is not None and self.right.spans is not None

    @property
    def rejected(self) -> dict[str, int]:
        """How many rows of each table cannot be compared."""
        return {name: packed.rejected for name, packed in self.sides().items()}

    def sides(self) -> dict[str, Packed | Index]:
        """The tables by name: left and, where it is another one, right."""
        return {"left": self.left} if self.itself else {"left": self.left, "right": self.right}

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        tables = {
            name: {"rows": packed.rows, "blocks": len(packed.blocks), "rejected": packed.rejected}
            for name, packed in self.sides().items()
        }
        for name, packed in self.sides().items():
            if packed.ungrouped is not None:
                tables[name]["without_group"] = packed.ungrouped
        return {"dimension": self.left.dimension, "tables": tables}

    def block_caches(self, threads: int) -> tuple[BlockCache, Blocks]:
        """On a worker: the blocks of both tables."""
        left = self.left.block_cache(self.basis, threads)
        return left, left if self.itself else self.right.block_cache(self.basis, threads)

    def queries(self, number: int, left: BlockCache, right: Blocks, *, exclude_self: bool) -> Block:
        """On a worker: a left block; to leave out rows of a query's own id, with their keys.

        Within groups, keys are those of a pair of blocks: see `search`.
        """
        block = left.block(number)
        if exclude_self and not self.itself and not self.grouped:
            return replace(block, own=own_numbers(left.ids(number), right))
        return block

    def partners(self, number: int) -> list[int]:
        """The right blocks that a left block is compared with: those that share a group with it."""
        others = range(len(self.right.blocks))
        if self.left.spans is None or self.right.spans is None:
            return list(others)
        first, last = self.left.spans[number]
        return [
            o for o in others if first <= self.right.spans[o][1] and self.right.spans[o][0] <= last
        ]

    def save(self, storage: Storage, folder: str) -> None:
        """Note in `folder` what was packed, for a run that is resumed."""
        right = None if isinstance(self.right, Index) or self.itself else _noted(self.right)
        facts = {
            "left": _noted(self.left),
            "right": right,
            "metric": self.metric,
            "basis": base64.b64encode(self.basis).decode("ascii"),
            "cores": self.cores,
            "indexed": self.indexed,
            "folder": storage.qualify(folder),
        }
        storage.write_text(f"{folder}/{_FILE}", json.dumps(facts))

    @classmethod
    def load(cls, storage: Storage, folder: str) -> Comparison | None:
        """What `save` noted; None where nothing was. The folder may have moved since."""
        facts = read_json(storage, f"{folder}/{_FILE}")
        if facts is None:
            return None
        facts = _moved(facts, facts["folder"], storage.qualify(folder))
        left = _restored(facts["left"])
        right = left if facts["right"] is None else _restored(facts["right"])
        basis = base64.b64decode(facts["basis"])
        return cls(left, right, facts["metric"], basis, facts["cores"], facts["indexed"])


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
    check_metric(metric)
    rows = tables.select_embeddings(left, id, embedding, "the left table", within)
    if right is None:
        return rows, None
    others = tables.select_embeddings(right, id, embedding, "the right table", within)
    check_within(rows, others)
    return rows, others


def check_metric(metric: str) -> None:
    """Raise InvalidInput for a metric that is not known."""
    if metric not in METRICS:
        raise InvalidInput(f"unknown metric {metric!r}; choose one of {', '.join(METRICS)}")


def check_k(k: int) -> None:
    """Raise InvalidInput unless at least one neighbor is asked for."""
    if k < 1:
        raise InvalidInput(f"k is {k}; ask for at least one neighbor")


def check_within(left: DataFrame, right: DataFrame | None) -> None:
    """Raise InvalidInput unless the columns of `within` are of one type in both tables."""
    if right is None or "group" not in left.columns:
        return
    kinds, others = (within_keys.group_types(table) for table in (left, right))
    for (name, kind), (_, other) in zip(kinds, others, strict=True):
        if kind != other:
            raise InvalidInput(
                f"the within column {name} is {kind} in the left table and {other} in the right "
                "one; write both as one type, so that rows agree where they are equal"
            )


def check_own(left: DataFrame, right: DataFrame | None) -> None:
    """Raise InvalidInput where it cannot be told whose id is a query's own."""
    kinds = [table.schema["id"].dataType for table in (left, right or left)]
    for kind in kinds:
        if isinstance(kind, StringType) and not within_keys.is_binary_string(kind):
            raise InvalidInput(
                f"the ids are {kind.simpleString()}; exclude_self takes ids that are equal letter "
                "by letter: cast them to string"
            )
    check_can_be_equal(kinds[0], kinds[1], "exclude_self needs ids of one type; they")


def identity(job: str, left: DataFrame, right: DataFrame | None) -> dict[str, Any]:
    """What the rows of the output depend on beside the settings; see `ember.spark.identity`."""
    state = origins.state(left, *([right] if right else []))
    return {"job": job, "input": origins.fingerprint(left.sparkSession, state)}


def refuse_rejected(
    spark: SparkSession, compared: Comparison, output: Output, max_failed_fraction: float
) -> None:
    """Keep the rows that cannot be compared beside the output; raise when they are too many.

    Raises TooManyFailures when they are more than `max_failed_fraction` of a table's rows.
    """
    for name, packed in compared.sides().items():
        bad, total = partial(packed.rejected_rows, spark), packed.rows + packed.rejected
        output.refuse_rejected(bad, packed.rejected, total, max_failed_fraction, name)


def scratch_folder(within: str | None = None) -> str:
    """A new folder for blocks: in `within`, where all executors reach it.

    None: on this machine, which serves local mode; Spark removes it when it stops.
    """
    if within is not None:  # never itself: it may hold blocks of other tables, or anything else
        return f"{within}/ember-packed-{uuid4().hex}"
    return f"file://{tempfile.mkdtemp(prefix='ember-packed-', dir=classic.received_folder())}"


def _noted(packed: Packed) -> dict[str, Any]:
    facts = {field.name: getattr(packed, field.name) for field in fields(packed)}
    id_type = StructType([StructField("id", packed.id_type)]).jsonValue()
    return {**facts, "vectors": asdict(packed.vectors), "id_type": id_type}


def _moved(noted: Any, was: str, now: str) -> Any:
    """What was noted of a folder, with the paths of its files where it is now."""
    if isinstance(noted, str):
        return now + noted.removeprefix(was) if noted.startswith(f"{was}/") else noted
    if isinstance(noted, dict):
        return {key: _moved(each, was, now) for key, each in noted.items()}
    return [_moved(each, was, now) for each in noted] if isinstance(noted, list) else noted


def _restored(facts: dict[str, Any]) -> Packed:
    spans, vectors = facts["spans"], facts["vectors"]
    places = {"files": tuple(vectors["files"]), "firsts": tuple(vectors["firsts"])}
    return Packed(
        **{
            **facts,
            "blocks": tuple((file, row) for file, row in facts["blocks"]),
            "firsts": tuple(facts["firsts"]),
            "spans": None if spans is None else tuple((first, last) for first, last in spans),
            "vectors": TableVectors(**{**vectors, **places}),
            "id_type": StructType.fromJson(facts["id_type"])["id"].dataType,
        }
    )
