"""Groups of links in one task, against relabeling by hand."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ember.worker.duplicates.components import component_batches

LINKS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=25)


@given(LINKS, st.integers(1, 5))
def test_rows_are_in_one_group_exactly_where_links_connect_them(links, size):
    label = {key: key for pair in links for key in pair}
    for left, right in links:
        old, new = label[left], label[right]
        label = {key: new if each == old else each for key, each in label.items()}
    batches = [
        pa.RecordBatch.from_pydict({"left_id": [f"r{left}"], "right_id": [f"r{right}"]})
        for left, right in links
    ]
    batches = [
        pa.Table.from_batches(batches[n : n + size]).combine_chunks().to_batches()[0]
        for n in range(0, len(batches), size)
    ]
    found = [row for batch in component_batches(batches) for row in batch.to_pylist()]
    group = {row["id"]: row["group_id"] for row in found}
    assert len(found) == len(group)
    assert set(group) == {f"r{key}" for key in label}
    for one in label:
        for other in label:
            same = group[f"r{one}"] == group[f"r{other}"]
            assert same == (label[one] == label[other])
    assert all(group[group[key]] == group[key] for key in group)
