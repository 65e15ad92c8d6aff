"""Whether two tables, or two runs on the same rows, have drifted apart."""

from __future__ import annotations

from contextlib import ExitStack

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ember.errors import InvalidInput
from ember.evaluation.drift_rows import Pair, pair_of, side_name
from ember.evaluation.drift_shifts import scores_and_labels
from ember.evaluation.drift_tests import TEST_COLUMNS, Found, test_rows
from ember.evaluation.drift_vectors import embeddings, overlap
from ember.evaluation.joining import issues_of
from ember.evaluation.judgment import answers_of
from ember.evaluation.result import Evaluation, table
from ember.settings.evaluation import OverlapConfig
from ember.settings.limits import MAX_FAILED_FRACTION
from ember.spark.persisted import kept

__all__ = ["drift_figures", "judge_drift"]

_FIGURES = {
    "embedding": ("embedding_mmd2",),
    "overlap": ("neighbor_overlap",),
    "score": ("score_ks", "score_wasserstein", "score_psi"),
    "label": ("label_total_variation", "label_jensen_shannon"),
}
_TABLES: dict[str, dict[str, type]] = {
    "scores": {"score": float, "reference": int, "current": int},
    "labels": {
        "label": str,
        "reference": int,
        "current": int,
        "reference_share": float,
        "current_share": float,
        "difference": float,
    },
}


def drift_figures(embedding: bool, score: bool, label: bool, overlap: bool) -> list[str]:
    """The figures of a judgment of tables that have these parts."""
    parts = {"embedding": embedding and not overlap, "overlap": overlap}
    parts |= {"score": score, "label": label}
    return [name for part, there in parts.items() if there for name in _FIGURES[part]]


def judge_drift(
    reference: DataFrame,
    current: DataFrame,
    *,
    overlap_of: OverlapConfig | None = None,
    false_alarms: float = 0.05,
    bootstrap: int = 1000,
    max_failed_fraction: float = MAX_FAILED_FRACTION,
) -> Evaluation:
    """Hold two tables against each other, in what both of them have.

    Rows are taken for independent draws, so that where both tables have the same rows, tests find
    drift less often than they say. A row is left out of a part whose value it lacks; rows that lack
    any are counted, and named in `issues`.

    Figures (0 where the tables are alike, but for the last, which is 1):
        embedding_mmd2     the squared distance of the means of the vectors in the space of a
                           Gaussian kernel, see ember.worker.drift.kernel
        score_ks, score_wasserstein, score_psi, label_total_variation, label_jensen_shannon
                           see ember.worker.drift.shifts
        neighbor_overlap   the share of a row's nearest neighbors that both tables agree on
    n is the number of rows of the smaller table, or the sampled ones.

    Tables: tests (test, method, statistic, p_value, adjusted_p_value, drift, reference_rows,
    current_rows), labels (label, reference, current, reference_share, current_share, difference),
    scores (score, reference, current: rows with each score, or near it).

    Args:
        reference: `id`, and of `embedding`, `score` and `label` what is to be compared.
        current: the same.
        overlap_of: compare neighbors of rows that both tables have, in place of the distributions
            of their vectors, which may then be of two models. None: do not.
        false_alarms: the probability with which any of the tests finds drift where there is none.
        bootstrap: replicates for the 95% intervals; 0 gives none.
        max_failed_fraction: share of the vectors of a table that may be of another length than
            most.

    Raises:
        InvalidInput: tables that do not fit each other, or ids that occur twice.
    """
    pair = pair_of(
        reference,
        current,
        paired=overlap_of is not None,
        max_failed_fraction=max_failed_fraction,
    )
    if overlap_of and not pair.sides:
        raise InvalidInput(
            "overlap compares neighbors of vectors: name the embedding of both tables"
        )
    with ExitStack() as failed:
        faults = failed.enter_context(kept(pair.faults()))
        found = [scores_and_labels(pair, bootstrap)]
        if pair.sides and overlap_of:
            unusable = faults.filter(F.col("part") == "embedding").select("id", "side")
            found.append(overlap(pair, pair.sides, unusable, overlap_of, bootstrap))
        elif pair.sides:
            found.append(embeddings(pair, pair.sides, bootstrap))
        report = _evaluation(pair, faults, found, false_alarms)
        failed.pop_all()
    return report


def _evaluation(
    pair: Pair, faults: DataFrame, found: list[Found], false_alarms: float
) -> Evaluation:
    spark = pair.rows.sparkSession
    tests = test_rows([test for each in found for test in each.tests], false_alarms)
    tables = {
        name: table(spark, rows, **_TABLES[name])
        for each in found
        for name, rows in each.tables.items()
    }
    none = F.lit(None)
    unusable = faults.select("id", F.concat(side_name(), F.lit(": "), "reason").alias("reason"))
    return Evaluation(
        "drift",
        [figure for each in found for figure in each.figures],
        {"tests": table(spark, tests, **TEST_COLUMNS), **tables},
        [*issues_of(unusable), *(issue for each in found for issue in each.issues)],
        answers_of(pair.rows, none, none, none),
        unusable,
        total=pair.rows.count(),
        failed=faults.select("id", "side").distinct().count(),
        held=(faults,),
        tests=tests,
    )
