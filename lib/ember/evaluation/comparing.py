"""Two runs on the same rows: what differs, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.errors import InvalidInput
from ember.evaluation.joining import issues_of
from ember.evaluation.judgment import worst_rows
from ember.evaluation.result import Evaluation, Figure
from ember.spark.ids import check_can_be_equal

__all__ = ["compare", "compared_figures"]

_SAME = "give both tables the same rows"
_REMEDIES = {
    "classification": _SAME,
    "multilabel": _SAME,
    "retrieval": f"{_SAME}, or name the queries that count in queries or relevance",
    "similarity": f"{_SAME}, with a score each, or leave those ids out of the truth",
}


def compared_figures(names: Sequence[str]) -> list[str]:
    """The figures of a comparison: those of the run, of the baseline, and their differences."""
    return [*names, *(f"{run}_{name}" for run in ("baseline", "difference") for name in names)]


def compare(run: Evaluation, baseline: Evaluation, worst: int = 100) -> Evaluation:
    """Compare two evaluations of one kind, made with the same truth, slices and replicates.

    The bootstrap weights of a row depend on its id only, so that in each replicate both runs are
    judged on the same rows: the interval is that of the paired difference, which is narrower than
    the intervals of the two suggest (Efron & Tibshirani, An Introduction to the Bootstrap, 1993,
    on paired data).

    Figures: each figure of the run, `baseline_` and the figure, `difference_` and run less
    baseline; null where either is.

    Tables: changed (id, truth, baseline, answer, baseline_outcome, outcome; every row whose answer
    or outcome is another; an outcome is 1 or 0 for a class right or wrong, less the number of
    wrong labels, the average precision of a query, the score of a pair), worst (those whose
    outcome fell most).

    What is common to both, the slice of each row and the reading of a truth of integers, has to be
    given to both judgments: see `compared` of `judge_classification`, by which slices come from
    the truth, else from the run, and never from the baseline.

    Args:
        run: the evaluation of the new run.
        baseline: that of the run to compare it with.
        worst: rows of the table of that name.

    Raises:
        InvalidInput: evaluations of different kinds, readings of the truth or ids, or an id that
            has another truth or slice.
    """
    if run.kind != baseline.kind:
        raise InvalidInput(
            f"the run is judged as {run.kind} and the baseline as {baseline.kind}; compare runs of "
            "one kind"
        )
    if run.match != baseline.match:
        raise InvalidInput(
            f"the truth is compared with the {run.match} of the run's predictions and with the "
            f"{baseline.match} of the baseline's; set match: label or match: index for both"
        )
    _check_same_rows(run, baseline)
    changed = _changed(run.rows, baseline.rows)
    fell = changed.filter("outcome < baseline_outcome")
    return Evaluation(
        "compare",
        _figures(run, baseline),
        {
            "changed": changed,
            "worst": worst_rows(fell, F.expr("outcome - baseline_outcome"), worst),
        },
        [
            replace(issue, reason=f"{name}: {issue.reason}")
            for name, each in (("run", run), ("baseline", baseline))
            for issue in each.issues
        ],
        run.rows,
        _named(run.unusable, "run").union(_named(baseline.unusable, "baseline")),
        run.total,
        max(run.failed, baseline.failed),
        (*run.held, *baseline.held),
    )


def _check_same_rows(run: Evaluation, baseline: Evaluation) -> None:
    """Raise InvalidInput unless both judge the same ids, of one truth and in the same slices."""
    ours, theirs = (each.rows.schema["id"].dataType for each in (run, baseline))
    check_can_be_equal(ours, theirs, "the ids of the run and the baseline")
    other = baseline.rows.select(
        F.col("id").alias("_id"),
        F.col("truth").alias("_truth"),
        F.col("slices").alias("_slices"),
        F.lit(True).alias("_there"),
    )
    own = run.rows.select("id", "truth", "slices", F.lit(True).alias("there"))
    both = own.join(other, F.col("id").eqNullSafe(F.col("_id")), "full_outer")
    reason = (
        F.when(F.col("_there").isNull(), "only the run is judged on")
        .when(F.col("there").isNull(), "only the baseline is judged on")
        .when(~F.col("truth").eqNullSafe(F.col("_truth")), "have two truths")
        .when(F.col("slices") != F.col("_slices"), "are in two slices")
    )
    found = F.when(F.col("there").isNull(), F.col("_id")).otherwise(F.col("id"))
    amiss = issues_of(
        both.select(found.alias("id"), reason.alias("reason")).dropna(subset="reason")
    )
    if amiss:
        what = "queries" if run.kind == "retrieval" else "rows"
        named = "; ".join(f"{i.rows} {what} {i.reason} (such as {', '.join(i.ids)})" for i in amiss)
        raise InvalidInput(
            f"the run and the baseline are not judged alike: {named}; {_REMEDIES[run.kind]}"
        )


def _figures(run: Evaluation, baseline: Evaluation) -> list[Figure]:
    figures = []
    for name in dict.fromkeys(each.slice for each in run.figures):
        ours = [each for each in run.figures if each.slice == name]
        theirs = [baseline.figure(each.metric, name) for each in ours]
        figures += ours
        figures += [replace(each, metric=f"baseline_{each.metric}") for each in theirs]
        for one, other in zip(ours, theirs, strict=True):
            values = one.values - other.values
            least, most = one.within
            figures.append(
                replace(
                    one,
                    metric=f"difference_{one.metric}",
                    values=values,
                    within=(least - most, most - least),
                )
            )
    return figures


def _changed(rows: DataFrame, before: DataFrame) -> DataFrame:
    earlier = before.select(
        F.col("id").alias("_id"),
        F.col("answer").alias("baseline"),
        F.col("outcome").alias("baseline_outcome"),
    )
    both = rows.join(earlier, F.col("id").eqNullSafe(F.col("_id")))
    same = F.col("answer").eqNullSafe(F.col("baseline"))
    same &= F.col("outcome").eqNullSafe(F.col("baseline_outcome"))
    columns = ("id", "truth", "baseline", "answer", "baseline_outcome", "outcome")
    return both.filter(~same).select(*columns)


def _named(rows: DataFrame, name: str) -> DataFrame:
    return rows.select("id", F.concat(F.lit(f"{name}: "), "reason").alias("reason"))
