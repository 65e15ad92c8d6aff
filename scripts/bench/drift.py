"""How often the tests of drift in `evaluate` find some: where there is none, and where there is.

.venv/bin/python scripts/bench/drift.py --out drift.json --plot docs/drift.png

Draws pairs of samples from fixed seeds and gives each to the functions that the job gives its sums
to. Without drift 1,000 pairs (`--pairs`), of which a test at the 5% level should find 5%; with
drifts of growing size a tenth as many.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from ember.worker.drift import shifts
from ember.worker.drift.features import fit_features
from ember.worker.drift.kernel import KernelSums, kernel_test
from ember.worker.drift.neighbors import overlap_test
from ember.worker.metrics.many_tests import holm

LEVEL = 0.05
ROWS = (500, 400)
DIMENSION = 64
_CENTERS = np.random.default_rng(1).normal(size=(10, DIMENSION))
_SPREADS = np.linspace(0.3, 1.7, DIMENSION)
Test = Callable[[np.random.Generator, float], float]


def vectors(rng: np.random.Generator, n: int, shift=0.0, scale=1.0, moved=0.0) -> np.ndarray:
    """Unit vectors in ten clusters, of directions that spread more and less.

    shift: of one coordinate of middling spread, in its deviations. scale: of the spread within
    clusters. moved: the share of rows that are in the first cluster instead of the second.
    """
    shares = np.full(10, 0.1)
    shares[:2] += moved, -moved
    noise = rng.normal(size=(n, DIMENSION)) * _SPREADS
    noise[:, DIMENSION // 2] += shift * _SPREADS[DIMENSION // 2]
    rows = _CENTERS[rng.choice(10, n, p=shares)] + scale * noise
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def embeddings(rng: np.random.Generator, size: float, kind: str = "shift") -> float:
    base = {"scale": 1.0}.get(kind, 0.0)
    drift = {kind: base + size}
    tables = [vectors(rng, ROWS[0]), vectors(rng, ROWS[1], **drift)]
    features = fit_features(np.concatenate([each[:500] for each in tables]))
    sums = KernelSums.empty(ROWS[0] / sum(ROWS), features.count)
    for side, table in enumerate(tables):
        sums.add(features, table, rng.integers(-(2**62), 2**62, len(table)), side)
    return kernel_test(sums, replicates=1).p_value


def counted(tables: list[np.ndarray], values: np.ndarray) -> list[np.ndarray]:
    return [np.bincount(np.searchsorted(values, each), minlength=len(values)) for each in tables]


def scores(rng: np.random.Generator, size: float, kind: str = "shift") -> float:
    """Normal scores, every value counted by itself; size in their deviations."""
    other = rng.normal(size=ROWS[1])
    tables = [rng.normal(size=ROWS[0]), other + size if kind == "shift" else other * (1 + size)]
    values = np.unique(np.concatenate(tables))
    bounds = values[np.ceil(len(values) * np.arange(1, 257) / 256).astype(int) - 1]
    return shifts.permutation_test(shifts.ks, *counted(tables, bounds))[1]


def labels(rng: np.random.Generator, size: float) -> float:
    """Eight labels of 30% to 3%; size: the share of rows that have the second for the first."""
    shares = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.07, 0.05, 0.03])
    moved = shares + size * np.array([-1, 1, 0, 0, 0, 0, 0, 0])
    counts = rng.multinomial(ROWS[0], shares), rng.multinomial(ROWS[1], moved)
    return shifts.permutation_test(shifts.chi_square, *counts)[1]


def neighbors(rng: np.random.Generator, size: float) -> float:
    """500 sampled rows with as many common neighbors of ten as is just enough, less `size`."""
    least = 0.8
    agreed = rng.binomial(10, rng.beta(20 * (least - size), 20 * (1 - least + size), 500))
    return overlap_test(500, agreed.sum(), np.square(agreed).sum(), 10, least)


TESTS: Mapping[str, Test] = {
    "embeddings": embeddings,
    "scores": scores,
    "labels": labels,
    "neighbors": neighbors,
}
DRIFTS: Mapping[str, tuple[Test, tuple[float, ...], str]] = {
    "embeddings: one coordinate": (embeddings, (0.2, 0.3, 0.4, 0.5, 0.6), "deviations"),
    "embeddings: spread": (partial(embeddings, kind="scale"), (0.05, 0.1, 0.15, 0.2, 0.3), ""),
    "embeddings: mixture": (partial(embeddings, kind="moved"), (0.02, 0.04, 0.06, 0.08, 0.1), ""),
    "scores: mean": (scores, (0.05, 0.1, 0.2, 0.3, 0.4), "deviations"),
    "scores: spread": (partial(scores, kind="scale"), (0.1, 0.2, 0.3, 0.4, 0.6), ""),
    "labels": (labels, (0.02, 0.04, 0.06, 0.09, 0.12), ""),
    "neighbors": (neighbors, (0.005, 0.01, 0.015, 0.02, 0.03), ""),
}  # fmt: skip


def p_values(test: Test, size: float, pairs: int, seed: int) -> np.ndarray:
    return np.array([test(np.random.default_rng([seed, n]), size) for n in range(pairs)])


def binomial_interval(pairs: int) -> tuple[float, float]:
    """What 95% of counts of alarms lie in where each has the probability that is stated."""
    low, high = binom.interval(0.95, pairs, LEVEL)
    return float(low / pairs), float(high / pairs)


def false_alarms(pairs: int) -> dict[str, Any]:
    """The share of pairs without drift in which each test finds some, and any of three (Holm)."""
    low, high = binomial_interval(pairs)
    found = {name: p_values(TESTS[name], 0.0, pairs, n) for n, name in enumerate(TESTS)}
    shares = {name: float((p <= LEVEL).mean()) for name, p in found.items()}
    three = np.stack([found[name] for name in ("embeddings", "scores", "labels")], axis=1)
    shares["any of the first three, by Holm"] = float(
        np.mean([holm(p).min() <= LEVEL for p in three])
    )
    return {
        "pairs": pairs,
        "level": LEVEL,
        "binomial_interval": [low, high],
        "shares": shares,
        "inside": {name: low <= share <= high for name, share in shares.items()},
    }


def power(pairs: int) -> dict[str, list[dict[str, float]]]:
    """The share of pairs in which a test finds a drift, by its size."""
    return {
        name: [
            {"size": size, "share": float((p_values(test, size, pairs, 9) <= LEVEL).mean())}
            for size in sizes
        ]
        for name, (test, sizes, _) in DRIFTS.items()
    }


def plot(found: Mapping[str, Any], target: Path) -> None:
    from ember.report.drawing import FAINT, FIRST, INK, SECOND, Picture, drawing

    alarms = found["false_alarms"]
    with drawing(900, 380) as figure:
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1, 1.3]})
        names = list(alarms["shares"])
        left.axvspan(*alarms["binomial_interval"], color=FAINT, alpha=0.2, linewidth=0)
        left.axvline(LEVEL, color=INK, linewidth=0.8)
        left.plot(list(alarms["shares"].values()), range(len(names)), "o", color=FIRST)
        left.set_yticks(range(len(names)), names)
        left.set(xlim=(0.02, 0.08), ylim=(len(names) - 0.5, -0.5))
        left.set_xlabel(f"false alarms in {alarms['pairs']} pairs; shaded: 95% of a binomial")
        for place, (name, rows) in enumerate(found["power"].items()):
            color = (FIRST, SECOND, FAINT, INK)[place % 4]
            line = "-" if place < 4 else ":"
            most = max(row["size"] for row in rows)
            at = [0, *(row["size"] / most for row in rows)]
            right.plot(at, [LEVEL, *(row["share"] for row in rows)], line, color=color, marker="o",
                       markersize=3, label=f"{name}, to {most:g} {DRIFTS[name][2]}")  # fmt: skip
        right.set(
            xlabel="size of the drift, of the largest", ylabel="share of pairs in which it is found"
        )
        figure.legend(
            *right.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7.5
        )
    target.write_bytes(Picture(figure, "False alarms and power of the tests of drift.").png())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    found = {"rows": ROWS, "dimension": DIMENSION, "false_alarms": false_alarms(given.pairs)}
    print(json.dumps(found["false_alarms"], indent=1), flush=True)
    found["power"] = power(max(given.pairs // 10, 1))
    for name, rows in found["power"].items():
        print(name, " ".join(f"{row['size']:g}: {row['share']:.3f}" for row in rows))
    given.out.write_text(json.dumps(found, indent=1))
    if given.plot:
        plot(found, given.plot)


if __name__ == "__main__":
    main()
