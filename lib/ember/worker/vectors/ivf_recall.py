"""How many lists to probe: recall measured on sampled queries whose exact answer is known.

Inside a list the search is exact, and a row of the exact answer that is met is in the approximate
answer, too: it has fewer rivals there. So a query's recall at any number of probes follows from the
places, in its order of lists, of the lists that hold its exact neighbors; one exact search of the
sample gives the whole curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ember.worker.vectors.arrays import Int64

Z = 1.959964
"""Of a two-sided 95% interval."""


@dataclass(frozen=True)
class Recall:
    """The mean of the queries' recalls, and its 95% interval."""

    probes: int
    mean: float
    low: float
    high: float
    queries: int


def choose_probes(places: Int64, lists: int, target: float) -> Recall:
    """The fewest probes whose lower confidence bound of recall reaches the target.

    Args:
        places: (q, k) the place, 0.., of each exact neighbor's list in the query's order of lists;
            `lists` or more where it is beyond those compared; -1 where there is no neighbor.
        lists: how many lists there are.
        target: above 0, below 1.

    A query's recall is the share of its neighbors that are found; the interval is the normal one
    for the mean of these, whose variance is measured (neighbors of one query are found or missed
    together, so a binomial interval over all of them would be too narrow). Numbers of probes are
    tried downward from all lists until one fails, so that the choice itself does not spoil the
    confidence (fixed-sequence testing; Angelopoulos et al., Learn then test, 2021, section 2.4).
    """
    queries = len(places)
    present = np.maximum((places >= 0).sum(axis=1), 1)
    first = np.zeros((queries, lists + 1))
    rows, columns = np.nonzero((places >= 0) & (places < lists))
    np.add.at(first, (rows, places[rows, columns] + 1), 1.0)
    # recalls[:, p]: of each query with p probes
    recalls = np.cumsum(first, axis=1) / present[:, None]
    recalls[(places < 0).all(axis=1)] = 1.0
    mean = recalls.mean(axis=0)
    half = Z * recalls.std(axis=0, ddof=1) / np.sqrt(queries) if queries > 1 else np.ones(lists + 1)
    mean[0], mean[lists], half[lists] = 0.0, 1.0, 0.0  # no list finds nothing, all are exact
    failing = np.flatnonzero(mean - half < target)
    probes = int(failing[-1]) + 1
    low, high = mean[probes] - half[probes], mean[probes] + half[probes]
    return Recall(probes, float(mean[probes]), max(0.0, float(low)), min(1.0, float(high)), queries)
