"""The groups of a table of pairs that is small enough for one task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

__all__ = ["component_batches"]


def component_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """All pairs of ids, of one type, in two columns, as a batch (id, group_id) of each id in them.

    group_id is an id of the group, the same for all rows that a chain of pairs connects.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    whole = [batch for batch in batches if batch.num_rows]
    if not whole:
        return
    sides = [pa.concat_arrays([batch.column(side) for batch in whole]) for side in (0, 1)]
    named = pa.concat_arrays(sides).dictionary_encode()
    numbers = named.indices.to_numpy()
    left, right = np.split(numbers, 2)
    count = len(named.dictionary)
    ones = np.ones(len(left), np.int8)
    _, group = connected_components(coo_array((ones, (left, right)), (count, count)), False)
    first = np.unique(group, return_index=True)[1]
    yield pa.RecordBatch.from_arrays(
        [named.dictionary, named.dictionary.take(pa.array(first[group]))], ["id", "group_id"]
    )
