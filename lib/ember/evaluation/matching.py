"""Whether the truth is compared with the label or the index of a prediction.

A prediction names a class twice, by a label and by an index. A truth that is a string, a boolean or
a date is a label. One that is an integer may be either: a head that was trained on the labels
1, 2, 3 has them as labels "1", "2", "3", and as indices 0, 1, 2. Then the labels of the predictions
decide: where they are integers, so is the truth's label; where they are names, the truth is an
index; where both could be meant, the user has to say.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, IntegralType, StructType

from ember.errors import InvalidInput
from ember.evaluation.result import Issue
from ember.spark.ids import text_of
from ember.spark.older_versions import try_cast
from ember.spark.tables import column

__all__ = [
    "MOST_CLASSES",
    "Match",
    "Matching",
    "as_labels",
    "classes_listed",
    "decide",
    "doubts",
    "match_integers",
]

_log = logging.getLogger(__name__)
Match = Literal["auto", "label", "index"]
# What predictions name: (index, label), None where one is not there.
Classes = Collection[tuple[int | None, str | None]]
MOST_CLASSES = 100_000
# 1, -2, 01 and 1.0 are integers, as a column of integers, strings or doubles would say them.
_INTEGER = r"^\s*([+-]?[0-9]{1,18})(?:\.0*)?\s*$"
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_SHOWN = 5


@dataclass(frozen=True)
class Matching:
    """The field of a prediction that is compared, and whether labels are compared as integers."""

    field: Literal["label", "index"]
    integers: bool = False

    def of_prediction(self, entry: Column) -> Column:
        """The value to compare of one prediction: string, or bigint."""
        if self.field == "index":
            return entry["index"].cast("bigint")
        label = entry["label"].cast("string")
        if not self.integers:
            return label
        whole = try_cast(F.regexp_extract(label, _INTEGER, 1), "bigint").cast("string")
        return F.coalesce(whole, label)

    def of_predictions(self, entries: Column) -> Column:
        """The same of each prediction of an array; without a lambda, Spark compiles it."""
        if self.integers:
            return F.transform(entries, self.of_prediction)
        kind = "bigint" if self.field == "index" else "string"
        return entries[self.field].cast(f"array<{kind}>")

    def of_truth(self, value: Column, kind: DataType) -> Column:
        """The value to compare of one label of the truth, whose type is `kind`."""
        return value.cast("bigint") if self.field == "index" else text_of(value, kind)


def match_integers(
    runs: Sequence[DataFrame], predicted: str, truths: DataFrame, wanted: Match
) -> Matching:
    """Decide what integers in the truth are compared with. Runs Spark jobs over distinct values.

    runs: the predictions; or those of all runs that are compared, for which it is decided once, by
        what all of them name, since one truth means the same for each.
    truths: one column, of every true label. wanted: what the configuration's `match` says.

    Raises:
        InvalidInput: label and index could both be meant, or the predictions lack what is wanted.
    """
    there = set.intersection(*(_fields(run, predicted) for run in runs))
    if wanted == "auto" and not {"label", "index"} <= set(there):
        wanted = "label" if "label" in there else "index"
    if wanted == "index" or "label" not in there:  # what is not there is refused elsewhere
        return Matching(wanted if wanted != "auto" else "index")
    first, *others = (classes_listed(run, predicted) for run in runs)
    return decide(first, lambda: _values(truths), wanted, others)


def _fields(predictions: DataFrame, predicted: str) -> set[str]:
    kind = predictions.select(column(predictions, predicted)).schema[0].dataType
    entry = kind.elementType if isinstance(kind, ArrayType) else None
    return set(entry.names) if isinstance(entry, StructType) else set()


def decide(
    classes: Classes,
    truths: Callable[[], set[int]],
    wanted: Match,
    others: Sequence[Classes] = (),
) -> Matching:
    """Like `match_integers`, from the classes (index, label) that the predictions name.

    truths: gives the different true labels. others: the classes of the runs that are compared.
    """
    runs = (classes, *others)
    classes = set().union(*runs)
    names = _labels(classes)
    values = _integers(names)
    if wanted == "label":
        _check_distinct(runs)
        return Matching("label", integers=True)
    indices = {index for index, _ in classes if index is not None}
    if not any(map(_NUMBER.fullmatch, names)):
        _check_indices(classes, indices, truths())
        return Matching("index")
    if len(values) < len(names):
        odd = sorted(names - values.keys())
        raise _ambiguous(f"the predictions have labels that are integers and others ({_few(odd)})")
    if all(values[label] == index for index, label in classes if label is not None):
        return Matching("index")
    _check_distinct(runs)
    known = truths()
    strange = known - set(values.values())
    # An integer below 0, or above every index, is a label; others may be.
    if strange and known <= set(range(max(indices, default=-1) + 1)):
        raise _ambiguous(
            f"the truth has {_few(sorted(strange))}, the predictions have the labels "
            f"{_few(sorted(values.values()))} and the indices {_few(sorted(indices))}"
        )
    return Matching("label", integers=True)


def as_labels(
    classes: Collection[str] | Collection[int] | None, kind: DataType
) -> list[str] | None:
    """A class list as text. Raises InvalidInput where its values are not of type `kind`."""
    if classes is None:
        return None
    wanted = int if isinstance(kind, IntegralType) else str
    if not all(isinstance(each, wanted) for each in classes):
        raise InvalidInput(
            f"classes: the truth has labels of type {kind.simpleString()}; list such"
        )
    return [str(each) for each in classes]


def classes_listed(predictions: DataFrame, predicted: str) -> set[tuple[int | None, str | None]]:
    """The classes that predictions name: (index, label), None where one is not there."""
    each = predictions.select(F.explode(column(predictions, predicted)).alias("each"))
    kind = each.schema["each"].dataType
    names = kind.names if isinstance(kind, StructType) else []
    fields = [F.col("each")[name].alias(name) for name in ("index", "label") if name in names]
    rows = each.select(*fields).distinct().limit(MOST_CLASSES + 1).collect()
    if len(rows) > MOST_CLASSES:
        raise InvalidInput(f"the predictions name more than {MOST_CLASSES} classes")
    named = [row.asDict() for row in rows]
    return {(found.get("index"), found.get("label")) for found in named}


def doubts(names: Sequence[Any], classes: Mapping[int, NDArray[Any]]) -> list[Issue]:
    """Signs that truth and answers do not mean the same labels; each is logged as well.

    classes: of each name, by its position, what begins with tp, support and predicted.
    """
    found = []
    none = np.zeros(3)
    counts = [(name, *classes.get(code, none)[:3]) for code, name in enumerate(names)]
    truths = [name for name, _, support, _ in counts if support]
    answers = [name for name, _, _, predicted in counts if predicted]
    if truths and answers and not set(truths) & set(answers):
        reason = (
            f"with a label that no answer has: the truth has {_few(truths)}, the answers are "
            f"{_few(answers)}; are they labels of one model?"
        )
        found.append(Issue(reason, int(sum(support for _, _, support, _ in counts))))
    alike: dict[str, list[tuple[str, float]]] = {}
    for name, _, support, _ in counts:
        if isinstance(name, str):
            plain = unicodedata.normalize("NFC", name).strip()
            alike.setdefault(plain, []).append((name, support))
    for group in alike.values():
        if len(group) > 1:
            named = ", ".join(ascii(name) for name, _ in group)
            reason = f"with one of the labels {named}, which count as different"
            found.append(Issue(reason, int(sum(support for _, support in group))))
    for issue in found:
        _log.warning("%d rows %s", issue.rows, issue.reason)
    return found


def _values(truths: DataFrame) -> set[int]:
    return {row[0] for row in truths.distinct().dropna().limit(MOST_CLASSES + 1).collect()}


def _check_indices(classes: Classes, indices: set[int], known: set[int]) -> None:
    """Refuse integers in the truth that are no indices, and an index with two labels."""
    named: dict[int, str] = {}
    whole = [(i, label) for i, label in classes if i is not None and label is not None]
    for index, label in sorted(whole):
        if named.setdefault(index, label) != label:
            raise InvalidInput(
                f"the predictions give index {index} the labels {named[index]} and {label}, and "
                "the truth is integers; judge predictions of one model, give labels as the truth, "
                "or set match: index where the labels are two names of one class"
            )
    # With all indices in sight, 0 to n - 1, another one is of no class.
    strange = sorted(known - indices)
    gapless = indices == set(range(len(indices)))
    if indices and strange and (strange[0] < 0 or gapless):
        raise _ambiguous(
            f"the truth has {_few(strange)}, which no prediction has as index; the predictions "
            f"have the labels {_few(sorted(named.values()))} for the indices "
            f"{_few(sorted(indices))}"
        )


def _labels(classes: Classes) -> set[str]:
    return {label for _, label in classes if label is not None}


def _integers(labels: Collection[str]) -> dict[str, int]:
    """The values of those labels that are integers."""
    return {label: int(found[1]) for label in labels if (found := re.match(_INTEGER, label))}


def _check_distinct(runs: Sequence[Classes]) -> None:
    """Refuse two labels of one run for the same integer; two runs may write it differently."""
    for run in runs:
        _check_integers(_integers(_labels(run)))


def _check_integers(values: Mapping[str, int]) -> None:
    first: dict[int, str] = {}
    for label, value in sorted(values.items()):
        if first.setdefault(value, label) != label:
            raise InvalidInput(
                f"the truth is integers, and the predictions have the labels {first[value]!r} and "
                f"{label!r}, which are one integer; give the truth as strings"
            )


def _ambiguous(found: str) -> InvalidInput:
    return InvalidInput(
        f"the truth is integers, and {found}: set match: label where the integers are labels, "
        "match: index where they are places in the model's list of classes, from 0"
    )


def _few(values: Collection[object]) -> str:
    shown = [str(each) for each in values][:_SHOWN]
    return ", ".join(shown) + ", …" * (len(values) > _SHOWN)
