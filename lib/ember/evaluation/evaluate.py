"""Judging DataFrames: the verb of the public API, in the words of the job's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal

from pyspark.sql import DataFrame

from ember.errors import InvalidInput
from ember.evaluation.result import Evaluation
from ember.evaluation.running import JUDGED, check_inputs, judge
from ember.settings.config import parse
from ember.settings.evaluation import EvaluateConfig, Kind
from ember.settings.limits import MAX_FAILED_FRACTION

__all__ = ["evaluate"]

# In place of what the job reads or writes: the tables are at hand, and nothing is written.
_AT_HAND = {"path": "a DataFrame"}


def evaluate(
    kind: Kind | Literal["drift"],
    predictions: DataFrame,
    truth: DataFrame | None = None,
    *,
    relevance: DataFrame | None = None,
    queries: DataFrame | None = None,
    baseline: DataFrame | None = None,
    reference: DataFrame | None = None,
    id: str | Sequence[str] = "id",
    truth_id: str | Sequence[str] | None = None,
    label: str = "label",
    predicted: str = "predictions",
    embedding: str = "embedding",
    score: str = "score",
    rank: str | None = "rank",
    grade: str | None = None,
    population: Literal["truth", "predictions"] = "truth",
    slices: Sequence[str] = (),
    classes: Sequence[str] | Sequence[int] | None = None,
    match: Literal["auto", "label", "index"] = "auto",
    top_k: Sequence[int] = (5,),
    at: Sequence[int] = (1, 5, 10),
    threshold: float = 0.5,
    exclude_self: bool = False,
    bins: int = 15,
    bootstrap: int = 1000,
    worst: int = 100,
    overlap: Mapping[str, Any] | None = None,
    false_alarms: float = 0.05,
    max_failed_fraction: float = MAX_FAILED_FRACTION,
) -> Evaluation:
    """Judge predictions, neighbors or scores against the truth: figures with 95% intervals.

    What each kind computes, and what counts as wrong, is said by `judge_classification`,
    `judge_multilabel`, `judge_retrieval` and `judge_similarity` in `ember.evaluation`, and of
    drift, which holds two tables against each other, by `judge_drift`.
    All tables are read at once.

    Args:
        kind: classification or multilabel (predictions as `classify` gives them), retrieval
            (neighbors as `search` gives them: `query_id`, `neighbor_id`, `rank`), similarity
            (an id and a score, such as the pairs of `join`) or drift (an id and, of the columns
            `embedding`, `score` and `label`, those that it and `reference` have).
        predictions: what is judged.
        truth: an id and a label: a string, a number or a boolean; for multilabel a list. For
            retrieval, the label of every document: those with the query's label are relevant.
        relevance: for retrieval in place of truth, `query_id` and `neighbor_id` of relevant
            documents.
        queries: for retrieval by labels, the id and label of each query; None: they are documents.
        baseline: another run on the same rows, in a table with the same columns; the figures are
            then those of both runs and their differences.
        reference: for drift, the table that `predictions` is held against, with the same columns.
        id: the column that names a row; for similarity also several that do so together.
        truth_id: the same in the truth (and the queries); None: as `id`.
        label: the column of the truth.
        predicted: the column of the predictions, best first.
        embedding: for drift, the column of the vectors.
        score: the column of the scores, for drift, similarity, and for retrieval without ranks.
        rank: for retrieval, the column of the ranks, from 1; None: by score, highest first.
        grade: for retrieval, the column of how relevant a document is, relevant above 0; None:
            every row of `relevance` is.
        population: which rows to judge: all of the truth, or those that `predictions` has.
        slices: columns of the truth or the predictions; every figure is also given by their values.
        classes: the classes; rows with another truth are left out. None: any label.
        match: whether a truth of integers is a prediction's label or its index; auto: its label
            where labels are integers.
        top_k: numbers of best labels, for top-k accuracy and precision.
        at: for retrieval, the ranks at which recall, precision, hit rate and ndcg are taken.
        threshold: for multilabel, the score from which a listed label is predicted.
        exclude_self: for retrieval, whether the queries are documents, none a neighbor of itself.
        bins: for classification, the bins of the reliability table.
        bootstrap: replicates behind the intervals; 0: no intervals.
        worst: rows in the table of the worst ones.
        overlap: for drift, compare the neighbors of rows that both tables have: `k`, `sample` and
            `least`, or none of them for their defaults. None: compare distributions.
        false_alarms: for drift, the probability that any test finds some where there is none.
        max_failed_fraction: share of rows that may have no usable prediction; they count as wrong.

    Returns:
        `figure(metric)` with value, low, high and n; `figures`, `tables` by name, `issues`, and
        `unusable`: `id`, `reason` of rows that could not be judged on their merits.
        `unmet({"accuracy": 0.9})` says which figures fall short; of drift `tests` says which test
        found some, and `unmet({"drift": "none"})` in words. `release()` frees what the
        cluster holds for the tables.

    Raises:
        InvalidConfig: options or tables that do not go together.
        InvalidInput: columns that are not there, tables that do not fit each other, ids that occur
            twice.
        TooManyFailures: more rows than `max_failed_fraction` have no usable prediction.

    Example:
        >>> kinds = "id int, predictions array<struct<index int, label string, score float>>"
        >>> rows = [(1, [(0, "cat", 0.9)]), (2, [(1, "dog", 0.8)]), (3, [(0, "cat", 0.6)])]
        >>> predictions = spark.createDataFrame(rows, kinds)
        >>> labels = [(1, "cat"), (2, "dog"), (3, "dog")]
        >>> truth = spark.createDataFrame(labels, "id int, label string")
        >>> report = ember.evaluate("classification", predictions, truth)
        >>> accuracy = report.figure("accuracy")
        >>> print(round(accuracy.value, 3), accuracy.n)
        0.667 3
        >>> report.unmet({"accuracy": 0.5})
        []
        >>> report.release()
    """
    if kind not in JUDGED:
        raise InvalidInput(f"unknown kind {kind!r}; choose one of {', '.join(JUDGED)}")
    name, name_in_truth = _plain(id), _plain(truth_id if truth_id is not None else id)
    sections: dict[str, dict[str, Any]] = {
        "predictions": {"id": name, "predictions": predicted},
        "neighbors": {"rank": rank, "score": score},
        "pairs": {"id": name, "score": score},
        "truth": {"id": name_in_truth, "label": label},
        "queries": {"id": name_in_truth, "label": label},
        "relevance": {"grade": grade},
        "baseline": {},
        "reference": {"id": name},
        "current": {"id": name},
    }
    given = {"truth": truth, "relevance": relevance, "queries": queries, "baseline": baseline}
    given |= {"reference": reference}
    if kind == "drift":
        both = [frame.columns for frame in (predictions, reference) if frame is not None]
        parts = {"embedding": embedding, "score": score, "label": label}
        there = {key: each for key, each in parts.items() if all(each in c for c in both)}
        for key in ("reference", "current"):
            sections[key] |= there
    frames = {JUDGED[kind]: predictions, **{n: f for n, f in given.items() if f is not None}}
    settings = {
        "kind": kind if baseline is None else "compare",
        **({} if kind == "drift" else {"of": kind}),
        **{section: {**_AT_HAND, **sections[section]} for section in frames},
        "population": population,
        "slices": list(slices),
        "classes": None if classes is None else list(classes),
        "match": match,
        "top_k": list(top_k),
        "at": list(at),
        "threshold": threshold,
        "exclude_self": exclude_self,
        "bins": bins,
        "bootstrap": bootstrap,
        "worst": worst,
        "overlap": None if overlap is None else dict(overlap),
        "false_alarms": false_alarms,
        "output": _AT_HAND,
        "limits": {"max_failed_fraction": max_failed_fraction},
    }
    config = parse(EvaluateConfig, settings, "evaluate")
    report = judge(config, check_inputs(config, frames))
    with ExitStack() as failed:
        failed.callback(report.release)
        report.refuse_failures(config.limits.max_failed_fraction)
        failed.pop_all()
    return report


def _plain(id: str | Sequence[str]) -> str | list[str]:
    return id if isinstance(id, str) else list(id)
