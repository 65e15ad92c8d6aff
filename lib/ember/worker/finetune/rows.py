"""Rows to fine-tune on: checked and written by many tasks, read at random by the one that trains.

Staged as Parquet with the columns of SCHEMA. A training process copies them into a file in
Arrow's own format, which it maps into memory, so that the corpus need not fit there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

from ember.worker.finetune.workspace import Workspace
from ember.worker.images.decoding import check_shape, decode
from ember.worker.row_paths import PathRules, content_of
from ember.worker.rows import RowError, raw_values, to_text
from ember.worker.spec import Modality

__all__ = ["PARTS", "SCHEMA", "TuningRows", "check_rows"]

PARTS = ("train", "validation", "test")
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("draw", pa.float64()),
        ("part", pa.string()),
        ("target", pa.int32()),
        ("content", pa.binary()),
        ("error", pa.string()),
    ]
)


def check_rows(
    batches: Iterable[pa.RecordBatch],
    targets: Mapping[str, int],
    modality: Modality,
    max_pixels: int,
    max_bytes: int,
    *,
    paths: PathRules | None,
) -> Iterator[pa.RecordBatch]:
    """Batches (key, draw, part, label string, content) as SCHEMA has them.

    targets: the position of each label. An image is decoded, and a text read, so that `error`
    says why a row cannot be learnt from; the content is then null. With `paths`, the
    content becomes that of the file. Larger ones than `max_bytes` are errors.
    """
    for batch in batches:
        contents: list[bytes | None] = []
        errors: list[str | None] = []
        for raw in raw_values(batch.column(4)):
            try:
                content = content_of(raw, paths, max_bytes)
                if modality == "image":
                    check_shape(decode(content, max_pixels), max_pixels)
                else:
                    to_text(content, max_bytes)
            except RowError as error:
                contents.append(None)
                errors.append(str(error))
            else:
                contents.append(content)
                errors.append(None)
        numbers = [targets[label] for label in batch.column(3).to_pylist()]
        arrays = [
            *batch.columns[:3],
            pa.array(numbers, pa.int32()),
            pa.array(contents, pa.binary()),
            pa.array(errors, pa.string()),
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


class TuningRows:
    """The sound rows of a staged table, in an order that only their keys decide.

    targets: (n,) int64. parts: row numbers of each part.
    """

    def __init__(self, workspace: Workspace, folder: str, local: Path) -> None:
        file = local / "rows.arrow"
        staged = ds.dataset(workspace.path(folder), format="parquet", filesystem=workspace.files)
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            for batch in staged.to_batches(
                columns=SCHEMA.names, filter=ds.field("error").is_null()
            ):
                writer.write_batch(batch.cast(SCHEMA))
        self._map = pa.memory_map(str(file))
        table = pa.ipc.open_file(self._map).read_all()
        # As bytes, since an id may be no UTF-8; they have the order of the letters.
        keys, draws = table["key"].cast(pa.binary()).to_pylist(), table["draw"].to_numpy()
        # By the hash of the key; equal hashes are equal keys, or next to impossible.
        order = np.array(sorted(range(len(keys)), key=lambda row: (draws[row], keys[row])), int)
        self._content = table["content"]
        self._order: npt.NDArray[np.int64] = order
        self.targets: npt.NDArray[np.int64] = table["target"].to_numpy().astype(np.int64)[order]
        names = np.asarray(table["part"].to_pylist(), dtype=np.str_)[order]
        self.parts = {part: np.flatnonzero(names == part) for part in PARTS}

    def content(self, row: int) -> bytes:
        """The encoded image or text of a row."""
        content: bytes = self._content[int(self._order[row])].as_py()
        return content

    def close(self) -> None:
        """Let go of the file."""
        del self._content
        self._map.close()
