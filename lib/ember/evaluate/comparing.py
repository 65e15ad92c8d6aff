"""Two runs on the same rows: what differs, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.errors import InvalidInput
from ember.evaluate.report import Evaluation, Figure

__all__ = ["compare", "compared_figures"]


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

    Raises InvalidInput for evaluations that are not of the same rows.
    """
    if (run.kind, run.total) != (baseline.kind, baseline.total):
        raise InvalidInput(
            f"the run is judged on {run.total} rows ({run.kind}) and the baseline on "
            f"{baseline.total} ({baseline.kind}); compare runs on the same rows"
        )
    changed = _changed(run.rows, baseline.rows)
    fell = changed.filter("outcome < baseline_outcome")
    order = (F.expr("outcome - baseline_outcome"), F.col("id"))
    return Evaluation(
        "compare",
        _figures(run, baseline),
        {"changed": changed, "worst": fell.orderBy(*order).limit(worst).coalesce(1)},
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


def _figures(run: Evaluation, baseline: Evaluation) -> list[Figure]:
    figures = []
    for name in dict.fromkeys(each.slice for each in run.figures):
        ours = [each for each in run.figures if each.slice == name]
        theirs = [baseline.figure(each.metric, name) for each in ours]
        figures += ours
        figures += [replace(each, metric=f"baseline_{each.metric}") for each in theirs]
        for one, other in zip(ours, theirs, strict=True):
            values = one.values - other.values
            figures.append(Figure(f"difference_{one.metric}", name, values, one.n))
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
