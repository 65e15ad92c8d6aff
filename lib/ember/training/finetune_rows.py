"""Labeled rows to fine-tune on: joined, split, their classes, and those that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import NumericType

from ember.errors import InvalidInput
from ember.settings.training import SplitConfig
from ember.spark import failed_rows
from ember.spark.ids import text_of
from ember.spark.tables import Corpus
from ember.training.split import draw_of, part_of
from ember.worker.finetune.rows import PARTS, check_rows
from ember.worker.row_paths import PathRules
from ember.worker.spec import Modality

__all__ = ["classes_of", "count_unlabeled", "labeled_rows", "refuse_failures", "row_checker"]

_NAMED = 5


def labeled_rows(corpus: Corpus, labels: DataFrame, split: SplitConfig) -> DataFrame:
    """Labeled rows of the corpus: key, draw, part, label string, content.

    labels: (id, label, part or null, group or null), see `examples.select_labels`.
    """
    name = text_of(F.col("id"), corpus.id_type)
    key = F.coalesce(F.col("group"), name)
    part = F.col("part") if split.column else part_of(key, split)
    joined = corpus.rows.toDF("id", "content").join(labels, "id").filter("label is not null")
    rows = joined.select(
        name.alias("key"),
        draw_of(name, f"{split.seed}:order").alias("draw"),
        part.alias("part"),
        text_of(F.col("label"), labels.schema["label"].dataType).alias("label"),
        "content",
    )
    return rows.filter("part is not null")


def count_unlabeled(corpus: Corpus, labels: DataFrame) -> int:
    """Rows of the corpus without a label."""
    ids = corpus.rows.toDF("id", "content").select("id")
    return ids.join(labels.filter("label is not null"), "id", "left_anti").count()


def classes_of(
    joined: DataFrame, labels: DataFrame, min_rows: int
) -> tuple[list[str], dict[str, Any]]:
    """The labels of training rows, numbers by size, others by name; and rows by part.

    Raises InvalidInput for parts that there are not, and fewer than two labels.
    """
    found: dict[str, dict[str, int]] = {}
    for row in joined.groupBy("label", "part").count().collect():
        if row["part"] not in PARTS:
            raise InvalidInput(
                f"split.column has the value {row['part']}; write {', '.join(PARTS)}"
            )
        found.setdefault(row["label"], dict.fromkeys(PARTS, 0))[row["part"]] = row["count"]
    usual = {name: parts for name, parts in found.items() if sum(parts.values()) >= min_rows}
    known = {name: parts for name, parts in usual.items() if parts["train"]}
    if len(known) < 2:
        raise InvalidInput(
            f"the training rows have {len(known)} labels ({', '.join(known) or 'none'}): nothing "
            "to learn; check that corpus and labels are of the same rows"
        )
    numeric = isinstance(labels.schema["label"].dataType, NumericType)
    names = sorted(known, key=lambda name: (float(name) if numeric else 0.0, name))
    unseen = {name: parts for name, parts in usual.items() if name not in known}
    counts = {
        "rows": {part: sum(parts[part] for parts in known.values()) for part in PARTS},
        "labels": len(names),
        "rare_labels": len(found) - len(usual),
        "unseen_labels": {
            "rows": sum(sum(parts.values()) for parts in unseen.values()),
            "named": sorted(unseen)[:_NAMED],
        },
    }
    return names, counts


def refuse_failures(
    staged: DataFrame, keep: Callable[[DataFrame], str], limit: float
) -> dict[str, Any]:
    """Count rows that cannot be learnt from; keep them and raise when there are too many.

    keep: keeps the rows and says where.
    """
    reason = F.substring_index("error", ":", 1).alias("reason")
    found = staged.groupBy(reason).count().orderBy(F.desc("count"), "reason").collect()
    reasons = {row["reason"]: row["count"] for row in found if row["reason"]}
    failed, rows = sum(reasons.values()), sum(row["count"] for row in found)
    bad = staged.filter("error is not null").select(F.col("key").alias("id"), "error")
    shown = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    told = f"labeled rows failed ({shown})"
    failed_rows.refuse_failures(failed, rows, limit, told, lambda: keep(bad.coalesce(1)))
    return {"failed": failed, "reasons": reasons}


def row_checker(
    names: Sequence[str],
    modality: Modality,
    max_pixels: int,
    max_bytes: int,
    paths: PathRules | None,
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """`check_rows` as mapInArrow takes it; a label's position in `names` is its target."""
    targets = {name: index for index, name in enumerate(names)}

    def check(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from check_rows(batches, targets, modality, max_pixels, max_bytes, paths=paths)

    return check
