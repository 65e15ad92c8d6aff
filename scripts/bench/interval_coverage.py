"""How often intervals hold the truth: samples are drawn from populations whose figures are known.

.venv/bin/python scripts/bench/interval_coverage.py --out coverage.json

Prints, for each figure, the share of 95% intervals that hold the population's figure, and the
shares that lie above and below it: Ember's, and for comparison the percentiles of the replicates
and BCa. The figures are Ember's own functions, on the weights that rows of a table would have.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from ember.worker.metrics.classes import averages, bin_of, calibration_error, contributions, ratio
from ember.worker.metrics.curves import correlations, rank_against
from ember.worker.metrics.intervals import interval
from ember.worker.metrics.weights import GROUPS, column_weights

POPULATION = 2_000_000
Rows = tuple[np.ndarray, ...]
Ends = tuple[float, float]


@dataclass(frozen=True)
class Case:
    """A figure, n rows of a sample, how rows are drawn, and the figure of rows with keys.

    figure: (rows, keys, replicates, groups) to (1 + replicates + groups,).
    """

    name: str
    n: int
    draw: Callable[[np.random.Generator, int], Rows]
    figure: Callable[[Rows, np.ndarray, int, int], np.ndarray]


def answers(rng: np.random.Generator, n: int) -> Rows:
    """Truth and answer among eight classes of 30% to 3% of the rows, 90% to 50% of them right."""
    share = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.07, 0.05, 0.03])
    truth = rng.choice(8, n, p=share)
    right = rng.random(n) < np.linspace(0.9, 0.5, 8)[truth]
    return truth, np.where(right, truth, rng.choice(8, n, p=share))


def sums(values: np.ndarray, keys: np.ndarray, replicates: int, groups: int) -> np.ndarray:
    """Sums of the columns of (n, K) over weighted rows: (K, 1 + replicates + groups) float64."""
    columns = range(1 + replicates + groups)
    total = np.zeros((values.shape[1], len(columns)))
    for start in range(0, len(keys), 4096):
        part = slice(start, start + 4096)
        total += values[part].T @ column_weights(keys[part], columns, replicates).astype(float)
    return total


def accuracy(rows: Rows, *columns: Any) -> np.ndarray:
    hits = rows[0] == rows[1]
    right, n = sums(np.stack([hits, np.ones(len(hits))], axis=1), *columns)
    return ratio(right, n)


def macro_f1(rows: Rows, *columns: Any) -> np.ndarray:
    truth, answer = (each[:, None] == np.arange(8) for each in rows)
    tp, support, predicted = (
        sums(each.astype(float), *columns) for each in (truth & answer, truth, answer)
    )
    counts = np.stack([tp, support, predicted], axis=1).astype(np.int64)
    return averages(sum(contributions(each) for each in counts))["macro_f1"]


def scores_of_answers(shift: float) -> Callable[[np.random.Generator, int], Rows]:
    """Scores and whether they are right; shift: how far they are overconfident."""

    def draw(rng: np.random.Generator, n: int) -> Rows:
        scores = rng.beta(5, 2, n)
        return scores, rng.random(n) < np.clip(scores - shift * (0.5 + scores), 0, 1)

    return draw


def ece(rows: Rows, *columns: Any) -> np.ndarray:
    scores, hits = rows
    inside = (bin_of(scores, 15)[:, None] == np.arange(15)).astype(float)
    parts = (inside, inside * hits[:, None], inside * scores[:, None])
    return calibration_error(*(sums(part, *columns) for part in parts))


LABELS = (0.2, 0.08, 0.03)


def labels(rng: np.random.Generator, n: int) -> Rows:
    """Scores (n, 3) of labels that 20%, 8% and 3% of the rows have, and whether they have them."""
    positive = rng.random((n, len(LABELS))) < LABELS
    return rng.normal(size=positive.shape) + positive, positive


def mean_average_precision(
    rows: Rows, keys: np.ndarray, replicates: int, groups: int
) -> np.ndarray:
    ranked = [
        rank_against(scores, positive, keys, replicates, groups=groups).average_precision
        for scores, positive in zip(rows[0].T, rows[1].T, strict=True)
    ]
    defined = ~np.isnan(ranked)
    return ratio(np.where(defined, ranked, 0).sum(axis=0), defined.sum(axis=0))


def pairs(rng: np.random.Generator, n: int) -> Rows:
    scores = rng.normal(size=n)
    return scores, np.exp(0.8 * scores + 0.6 * rng.normal(size=n))


def spearman(rows: Rows, *columns: Any) -> np.ndarray:
    return correlations(*rows, *columns)["spearman"]


CASES = (
    Case("accuracy", 500, answers, accuracy),
    Case("macro F1", 500, answers, macro_f1),
    Case("mean average precision", 490, labels, mean_average_precision),
    Case("Spearman", 300, pairs, spearman),
    Case("ECE", 1000, scores_of_answers(0.08), ece),
    Case("ECE, nearly calibrated", 1000, scores_of_answers(0.02), ece),
)


def percentiles(values: np.ndarray) -> Ends:
    return interval(values[:-GROUPS])


def bca(values: np.ndarray) -> Ends:
    """Efron, "Better bootstrap confidence intervals", JASA 82, 1987, with the grouped jackknife."""
    replicates, left = values[1:-GROUPS], values[-GROUPS:]
    below = ((replicates < values[0]).mean() + (replicates <= values[0]).mean()) / 2
    bias = ndtri(np.clip(below, 0.5 / len(replicates), 1 - 0.5 / len(replicates)))
    apart = left.mean() - left
    spread = (apart**2).sum() ** 1.5
    acceleration = (apart**3).sum() / (6 * spread) if spread else 0.0
    normal = bias + ndtri([0.025, 0.975])
    low, high = np.quantile(replicates, ndtr(bias + normal / (1 - acceleration * normal)))
    return float(low), float(high)


def ember(values: np.ndarray) -> Ends:
    return interval(values, GROUPS, within=(-1.0, 1.0))


METHODS: dict[str, Callable[[np.ndarray], Ends]] = {
    "ember": ember,
    "percentiles": percentiles,
    "bca": bca,
}


def coverage(case: Case, samples: int, replicates: int, seed: int = 0) -> dict[str, Any]:
    """Of each method the shares of intervals that hold the truth, and that lie on either side."""
    rows = case.draw(np.random.default_rng(seed), POPULATION)
    truth = float(case.figure(rows, np.zeros(POPULATION, np.int64), 0, 0)[0])
    found: dict[str, list[Ends]] = {name: [] for name in METHODS}
    points = []
    for sample in range(samples):
        rng = np.random.default_rng([seed, sample])
        keys = rng.integers(-(2**63), 2**63 - 1, case.n)
        values = case.figure(case.draw(rng, case.n), keys, replicates, GROUPS)
        points.append(values[0])
        for name, method in METHODS.items():
            found[name].append(method(values))
    result: dict[str, Any] = {"figure": case.name, "rows": case.n, "truth": truth}
    result |= {"samples": samples, "replicates": replicates, "mean": float(np.mean(points))}
    for name, ends in found.items():
        low, high = np.array(ends).T
        above, below = float((truth < low).mean()), float((truth > high).mean())
        width = float((high - low).mean())
        result[name] = {"holds": 1 - above - below, "above": above, "below": below, "width": width}
    return result


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| figure | rows | population | mean of samples | interval holds it | "
        "lies above, below it | percentiles hold it | BCa holds it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in results:
        own = each["ember"]
        lines.append(
            f"| {each['figure']} | {each['rows']:,} | {each['truth']:.3f} | {each['mean']:.3f} | "
            f"{own['holds']:.2%} | {own['above']:.2%}, {own['below']:.2%} | "
            f"{each['percentiles']['holds']:.2%} | {each['bca']['holds']:.2%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--figures", nargs="*", help="names; by default all")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    cases = [each for each in CASES if not given.figures or each.name in given.figures]
    results = [coverage(each, given.samples, given.replicates) for each in cases]
    if given.out:
        given.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
