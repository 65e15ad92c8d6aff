"""Figures of ranked lists, one row of a matrix a list, in numpy.

Retrieval figures follow trec_eval (NIST; its measures of the same names) and so pytrec_eval:
binary figures count a grade above 0 as relevant, and the lists are cut at rank k without regard
to how long they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ember.worker.metrics.classes import ratio

__all__ = ["label_ranking_precision", "precision_at", "retrieval_figures", "retrieval_names"]


def retrieval_names(at: Sequence[int]) -> list[str]:
    """The figures that `retrieval_figures` gives, in order."""
    families = ("recall", "precision", "hit_rate", "ndcg")
    return ["mrr", "map", *(f"{family}@{k}" for family in families for k in at)]


def retrieval_figures(
    gains: np.ndarray, ideal: np.ndarray, relevant: np.ndarray, at: Sequence[int]
) -> np.ndarray:
    """The figures of `retrieval_names` for n queries: (n, F) float64 in [0, 1].

    gains: (n, m), the grade of the document at each rank, 0 where it is not relevant or the list
        has ended. ideal: (n, p), the grades of the query's relevant documents, best first, 0
        where they have ended; p at least max(at) or the most relevant documents of a query.
    relevant: (n,), how many relevant documents there are for the query, at least 1.

    With r_i = 1 where the document at rank i is relevant, R the number of relevant documents:

        mrr          1 / rank of the first relevant document, 0 without one (Voorhees, TREC-8)
        map          (1 / R) sum_i r_i (r_1 + … + r_i) / i over the whole list
        recall@k     (r_1 + … + r_k) / R
        precision@k  (r_1 + … + r_k) / k, also for a list shorter than k
        hit_rate@k   1 where any of r_1 … r_k is 1
        ndcg@k       DCG / DCG of the ideal list, DCG = sum_{i<=k} grade_i / log2(i + 1)
                     (Järvelin & Kekäläinen, ACM TOIS 20, 2002, with linear gains)
    """
    hits = gains > 0
    found = np.cumsum(hits, axis=1)
    ranks = np.arange(1, gains.shape[1] + 1)
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.inf) if hits.size else np.inf
    columns = [
        np.broadcast_to(1.0 / first, len(gains)),
        ratio((hits * found / ranks).sum(axis=1), relevant, 0),
    ]
    within = [hits[:, :k].sum(axis=1) for k in at]
    columns += [ratio(count, relevant, 0) for count in within]
    columns += [count / k for count, k in zip(within, at, strict=True)]
    columns += [(count > 0).astype(np.float64) for count in within]
    # A power of two, which changes no ratio: sums of large grades stay within float64.
    exponent = np.frexp(ideal.max(axis=1, initial=0))[1][:, None]
    gains, ideal = np.ldexp(gains, -exponent), np.ldexp(ideal, -exponent)
    columns += [ratio(_dcg(gains, k), _dcg(ideal, k), 0) for k in at]
    # The ideal is the best there is up to the order of adding.
    figures: np.ndarray = np.minimum(np.stack(columns, axis=1), 1.0)
    return figures


def _dcg(gains: np.ndarray, k: int) -> np.ndarray:
    cut = gains[:, :k]
    return cut @ (1 / np.log2(np.arange(2, cut.shape[1] + 2)))


def label_ranking_precision(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """LRAP of each row: (n,) float64.

    scores: (n, L), -inf for a label that was not scored. truth: (n, L) bool.
    The mean over a row's true labels of: true labels with this score or more / labels with this
    score or more; 1 for a row without a true label or with all of them (Tsoumakas, Katakis &
    Vlahavas, "Mining multi-label data", 2010; scikit-learn,
    label_ranking_average_precision_score).
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    relevant = np.take_along_axis(truth, order, axis=1)
    count = scores.shape[1]
    last = np.ones(scores.shape, bool)
    last[:, :-1] = ordered[:, :-1] != ordered[:, 1:]
    positions = np.where(last, np.arange(count), count)
    end = np.minimum.accumulate(positions[:, ::-1], axis=1)[:, ::-1]
    at_end = np.take_along_axis(np.cumsum(relevant, axis=1), end, axis=1)
    precision = np.where(relevant, at_end / (end + 1), 0).sum(axis=1)
    sizes = truth.sum(axis=1)
    return np.where((sizes == 0) | (sizes == count), 1.0, ratio(precision, sizes, 1))


def precision_at(order: np.ndarray, truth: np.ndarray, k: int) -> np.ndarray:
    """True labels among the first k of each row's list, divided by k: (n,) float64.

    order: (n, m) labels best first, -1 where the list has ended. truth: (n, L) bool.
    """
    first = order[:, :k]
    hits = np.take_along_axis(truth, np.maximum(first, 0), axis=1) & (first >= 0)
    shares: np.ndarray = hits.sum(axis=1) / k
    return shares
