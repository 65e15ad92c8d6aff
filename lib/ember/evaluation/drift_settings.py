"""From the sections of the configuration for drift to two tables with plain columns."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StructType

from ember.errors import InvalidConfig, InvalidInput
from ember.evaluation.result import Evaluation
from ember.settings.evaluation import DriftTableConfig, EvaluateConfig
from ember.spark.tables import column

__all__ = ["check_parts", "judge_tables", "parts_of"]

_KEYS = ("embedding", "score", "label", "predictions")


def check_parts(config: EvaluateConfig) -> None:
    """Raise InvalidConfig for settings of drift that do not go together."""
    if config.population != "truth":
        raise InvalidConfig("population does not go with kind: drift, which has no truth")
    if config.slices:
        raise InvalidConfig(
            "slices does not go with kind: drift; hold slices against each other by where"
        )
    if config.reference is None or config.current is None:
        return  # what is missing is named elsewhere
    for key in _KEYS:
        given = [bool(getattr(each, key)) for each in (config.reference, config.current)]
        if given[0] != given[1]:
            has, lacks = ("reference", "current") if given[0] else ("current", "reference")
            raise InvalidConfig(f"{lacks}.{key} is missing; {has} names one, and both are compared")
    if config.current.predictions and (config.current.score or config.current.label):
        raise InvalidConfig("predictions has a score and a label; name either it or these")
    if not any(parts_of(config)[:3]):
        raise InvalidConfig(
            f"there is nothing to compare; give reference and current one of {', '.join(_KEYS)}"
        )
    if config.overlap and not config.current.embedding:
        raise InvalidConfig("overlap compares neighbors of vectors; embedding is missing")


def parts_of(config: EvaluateConfig) -> tuple[bool, bool, bool, bool]:
    """Whether embeddings, scores and labels are compared, and whether embeddings by neighbors."""
    given = config.current
    if given is None:
        return False, False, False, False
    first = bool(given.predictions)
    score, label = first or bool(given.score), first or bool(given.label)
    return bool(given.embedding), score, label, config.overlap is not None


def judge_tables(config: EvaluateConfig, reference: DataFrame, current: DataFrame) -> Evaluation:
    """The judgment that is asked for. Raises InvalidInput for tables that do not fit."""
    from ember.evaluation.drift import judge_drift

    sides = ((reference, config.reference), (current, config.current))
    return judge_drift(
        *(_plain(frame, section) for frame, section in sides if section),
        overlap_of=config.overlap,
        false_alarms=config.false_alarms,
        bootstrap=config.bootstrap,
        max_failed_fraction=config.limits.max_failed_fraction,
    )


def _plain(frame: DataFrame, section: DriftTableConfig) -> DataFrame:
    """The columns that a section names, under the names of its keys."""
    names = {key: getattr(section, key) for key in ("id", *_KEYS[:3])}
    columns = {key: column(frame, name) for key, name in names.items() if name}
    if section.predictions:
        columns |= _first(frame, section.predictions)
    return frame.select(*(value.alias(key) for key, value in columns.items()))


def _first(frame: DataFrame, name: str) -> dict[str, Column]:
    """The score and the label of the first prediction of each row."""
    value = column(frame, name)
    kind = frame.select(value).schema[0].dataType
    fields = kind.elementType if isinstance(kind, ArrayType) else None
    if not isinstance(fields, StructType) or not {"label", "score"} <= set(fields.names):
        raise InvalidInput(
            f"the column {name} is {kind.simpleString()}; predictions are "
            "array<struct<index: int, label: string, score: float>>, as classify writes them"
        )
    best = F.get(value, F.lit(0))
    return {key: best[key] for key in ("score", "label")}
