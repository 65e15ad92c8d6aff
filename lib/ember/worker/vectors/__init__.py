"""Exact similarity kernels: rows packed into blocks, blocks compared tile by tile.

``prepare`` packs rows into a ``Block``; ``threshold_pairs`` and ``count_by_score`` join two blocks;
``top_k`` searches a corpus of blocks; ``Neighbors`` merges partial searches. scores.py
defines a score to the last bit; bounds.py proves that no pair is lost.
"""

from ember.worker.vectors.basis import METRICS, Basis, fit_basis
from ember.worker.vectors.block import Block, prepare
from ember.worker.vectors.neighbors import Neighbors
from ember.worker.vectors.threshold import Pairs, count_by_score, join_basis, threshold_pairs
from ember.worker.vectors.topk import search, top_k

__all__ = [
    "METRICS",
    "Basis",
    "Block",
    "Neighbors",
    "Pairs",
    "count_by_score",
    "fit_basis",
    "join_basis",
    "prepare",
    "search",
    "threshold_pairs",
    "top_k",
]
