"""The order in which rows are trained on."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from ember.worker.finetune.rows import SCHEMA, TuningRows
from ember.worker.finetune.workspace import Workspace


def test_rows_of_one_draw_are_in_the_order_of_their_keys_which_may_be_no_utf_8(tmp_path):
    keys = [b"\xff", "é".encode(), b"a"]
    columns = {
        "key": pa.array(keys, pa.binary()).view(pa.string()),
        "draw": [0.5] * 3,
        "part": ["train"] * 3,
        "target": pa.array([0, 1, 2], pa.int32()),
        "content": keys,
        "error": pa.nulls(3, pa.string()),
    }
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table(columns, schema=SCHEMA), tmp_path / "rows" / "0.parquet")
    rows = TuningRows(Workspace(str(tmp_path)), "rows", tmp_path)
    assert [rows.content(number) for number in range(3)] == sorted(keys)
    rows.close()
