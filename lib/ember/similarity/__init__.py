"""Exact similarity kernels: rows packed into blocks, blocks compared tile by tile.

``prepare`` packs rows into a ``Block``; ``threshold_pairs`` and ``count_by_score`` join two blocks;
``top_k`` searches a corpus of blocks; ``Neighbours`` merges partial searches. What a score is, to
the last bit, is said in scores.py; why no pair is lost, in bounds.py.
"""

from ember.similarity.block import Block, prepare
from ember.similarity.neighbours import Neighbours
from ember.similarity.projection import METRICS, Basis, fit_basis
from ember.similarity.threshold import Pairs, count_by_score, join_basis, threshold_pairs
from ember.similarity.topk import search, top_k

__all__ = [
    "METRICS",
    "Basis",
    "Block",
    "Neighbours",
    "Pairs",
    "count_by_score",
    "fit_basis",
    "join_basis",
    "prepare",
    "search",
    "threshold_pairs",
    "top_k",
]
