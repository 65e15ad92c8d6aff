from __future__ import annotations

import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.worker import task
from ember.worker.batching import encode
from ember.worker.encoder import Slot
from ember.worker.equal_rows import EqualRows
from ember.worker.models.chunks import Chunking
from ember.worker.models.generation import Description, Request
from ember.worker.results import Predictions
from ember.worker.row_paths import PathRules
from ember.worker.rows import RowError
from ember.worker.spec import Generation, Sampling
from ember.worker.stats import TaskStats, merge_into
from fake_encoder import slots_of
from odd_images import encoded, picture
from tiny_models import MAX_TOKENS, spec_of, tiny_gpt2


class CountingEncoder:
    """A vector is (length, sum of the bytes); content that begins with b"bad" has an error.

    `prepared` counts each content, `ran` each that the model was given; b"long…" counts as cut,
    b"nan" has no finite vector.
    """

    device = "fake"
    most_padding = None

    def __init__(self, chunk: int = 4, window: int = 8, batch: int = 4) -> None:
        self.chunk_rows, self.window_rows = chunk, window
        self.batch_size, self.batch_cost = batch, 10**9
        self.prepared: Counter[Any] = Counter()
        self.ran: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def prepare(self, raws: Sequence[Any]) -> list[tuple[bytes, int, bool] | RowError]:
        with self._lock:
            self.prepared.update(raws)
        return [self._prepare(raw) for raw in raws]

    def _prepare(self, raw: bytes | None) -> tuple[bytes, int, bool] | RowError:
        if raw is None or raw.startswith(b"bad"):
            return RowError("bad row", str(raw))
        return raw, 1, raw.startswith(b"long")

    def run(self, items: Sequence[bytes]) -> np.ndarray:
        self.ran.update(items)
        return np.array([self.vector(item) for item in items], np.float32)

    def vector(self, item: bytes) -> list[float]:
        return [np.nan if item == b"nan" else len(item), sum(item)]

    def is_out_of_memory(self, error: Exception) -> bool:
        return False


def encoded_slots(
    slots: Iterable[Slot], encoder: CountingEncoder, equal: EqualRows
) -> Iterator[Slot]:
    return equal.restored(encode(equal.distinct(slots), encoder, threads=2, timed=lambda *_: None))


# Few contents, so that most are repeated; those that differ by an end are not equal.
contents = st.none() | st.sampled_from(
    [b"a", b"a ", b"b", b"", b"bad 1", b"bad 2", b"nan", b"long 1", b"long 2"]
)
encoders = st.builds(CountingEncoder, st.integers(1, 7), st.integers(1, 20), st.integers(1, 9))


def check_rows(rows: Sequence[bytes | None], done: list[Slot], encoder: CountingEncoder) -> None:
    """Each row has what the encoder makes of it alone."""
    outcomes = [(slot, row) for slot in done for row in range(len(slot.raws))]
    for content, (slot, row) in zip(rows, outcomes, strict=True):
        if content is None or content.startswith(b"bad"):
            assert slot.errors[row] == str(RowError("bad row", str(content)))
        elif content == b"nan":
            assert slot.errors[row].startswith("not finite")
        else:
            assert row not in slot.errors
            assert slot.vectors[row].tolist() == encoder.vector(content)
        assert (row in slot.truncated) == (content or b"").startswith(b"long")


@given(st.lists(contents, max_size=60), st.lists(st.integers(0, 13), max_size=15), encoders)
def test_equal_rows_run_once_and_each_has_its_own_result(
    rows: list[bytes | None], sizes: list[int], encoder: CountingEncoder
) -> None:
    came = list(slots_of(rows, sizes))
    equal = EqualRows()
    done = list(encoded_slots(iter(came), encoder, equal))
    assert [id(slot) for slot in done] == [id(slot) for slot in came]
    assert [slot.waiting for slot in done] == [0] * len(done)
    check_rows(rows, done, encoder)
    given_contents = [content for content in rows if content is not None]
    assert equal.found == len(given_contents) - len(set(given_contents))
    del encoder.prepared[None]
    assert encoder.prepared == Counter(set(given_contents))
    assert set(encoder.ran.values()) <= {1}


@given(
    st.lists(contents, max_size=60),
    st.lists(st.integers(0, 13), max_size=15),
    encoders,
    st.integers(1, 6),
    st.integers(8, 40),
)
def test_what_is_forgotten_runs_again(
    rows: list[bytes | None],
    sizes: list[int],
    encoder: CountingEncoder,
    remembered: int,
    vector_bytes: int,
) -> None:
    equal = EqualRows(rows=remembered, vector_bytes=vector_bytes)
    done = list(encoded_slots(slots_of(rows, sizes), encoder, equal))
    check_rows(rows, done, encoder)
    assert equal.found == len(rows) - encoder.prepared.total()


def test_the_oldest_rows_are_forgotten() -> None:
    rows = [f"{number}".encode() for number in range(10)]
    for remembered, found in ((10, 10), (9, 0)):
        equal = EqualRows(rows=remembered)
        list(encoded_slots(slots_of(rows * 2, [4] * 5), CountingEncoder(), equal))
        assert equal.found == found
    # By the memory of their vectors, of two numbers of four bytes each.
    for kept, found in ((10, 10), (9, 0)):
        equal = EqualRows(vector_bytes=8 * kept)
        later = [b"x%d" % number for number in range(400)]  # so that vectors are there by then
        list(encoded_slots(slots_of([*later, *rows * 2], [4] * 200), CountingEncoder(), equal))
        assert equal.found == found


def test_slots_without_equal_rows_go_through_as_they_are() -> None:
    came = [Slot([b"a", b"b", None]), Slot([b"c", None])]
    assert [id(slot) for slot in EqualRows().distinct(came)] == [id(slot) for slot in came]


@pytest.mark.parametrize(("kinds", "window", "found"), [(200, 8, 199), (1, 64, 398)])
def test_contents_are_not_kept(kinds: int, window: int, found: int) -> None:
    """Neither of rows whose results are remembered nor of those that wait for one."""

    def read() -> Iterator[Slot]:
        for number in range(100):
            one, other = (bytes([each % kinds]) * 100_000 for each in (number, number + 100))
            yield Slot([one, other, bytes(bytearray(one)), b""])

    equal = EqualRows()
    encoder = CountingEncoder(window=window)
    encoder.prepared = encoder.ran = Counter()
    encoder.prepare = lambda raws: [(b"%d" % len(raw), 1) for raw in raws]  # type: ignore
    tracemalloc.start()
    try:
        for slot in encoded_slots(read(), encoder, equal):
            assert slot.vectors is not None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert equal.found == found
    assert peak < 10e6  # of 30 MB


@pytest.mark.parametrize("block", [1, 5, 50])
@pytest.mark.parametrize("kinds", [1, 3])
def test_however_many_rows_are_equal_few_are_read_ahead(block: int, kinds: int) -> None:
    encoder = CountingEncoder(chunk=4, window=16, batch=8)
    taken: list[int] = []

    def read() -> Iterator[Slot]:
        for number in count():
            taken.append(number)
            assert len(taken) < 2000, "read on without giving anything back"
            yield Slot([b"%d" % (number * block % kinds + row % kinds) for row in range(block)])

    out = encoded_slots(read(), encoder, EqualRows())
    for done in range(1, 200):
        next(out)
        assert (len(taken) - done) * block <= 8 * encoder.window_rows + 9 * block
    out.close()


def batch_of(contents: Sequence[Any]) -> pa.RecordBatch:
    raws = [each.encode() if isinstance(each, str) else each for each in contents]
    columns = [pa.array(range(len(raws))), pa.array(raws, pa.binary())]
    return pa.RecordBatch.from_arrays(columns, names=["id", "content"])


TEXTS = ["a dog", "the cat sat", "cat " * 100, None, "", "the big dog", b"bad \xff"]


def test_equal_texts_have_the_vectors_that_each_has_alone(bert_folder: Path) -> None:
    spec = spec_of(bert_folder)
    order = np.random.default_rng(0).integers(0, len(TEXTS), 200).tolist()
    stats = TaskStats()
    parts = [
        batch_of([TEXTS[kind] for kind in order]).slice(start, 40) for start in range(0, 200, 40)
    ]
    rows = pa.Table.from_batches(task.embed_batches(parts, spec, stats=stats)).to_pylist()
    alone = [
        next(iter(task.embed_batches([batch_of([text])], spec))).to_pylist()[0] for text in TEXTS
    ]
    for kind, row in zip(order, rows, strict=True):
        assert (row["status"], row["error"]) == (alone[kind]["status"], alone[kind]["error"])
        if row["status"] == "ok":
            np.testing.assert_allclose(row["embedding"], alone[kind]["embedding"], atol=1e-5)
    nulls = order.count(3)
    assert stats.counts["equal_rows"] == 200 - nulls - (len(TEXTS) - 1)
    assert (stats.rows, stats.truncated) == (200, order.count(2))
    assert stats.counts["tokens"] < 4 * MAX_TOKENS
    # A task that is run twice reports twice, and counts once.
    report = stats.report(3, None)
    twice = merge_into(merge_into({}, report), report)
    assert twice["tasks"][3]["counts"]["equal_rows"] == stats.counts["equal_rows"]


def test_equal_images_by_bytes_and_by_paths(resnet_folder: Path, tmp_path: Path) -> None:
    pictures = [encoded(picture(), "PNG"), encoded(picture(20, 30), "PNG"), b"no picture"]
    for number, data in enumerate(pictures):
        (tmp_path / f"{number}.png").write_bytes(data)
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    order = [0, 0, 1, 2, 1, 2, 0]
    spec = spec_of(resnet_folder)
    expected = pa.Table.from_batches(
        [next(iter(task.embed_batches([batch_of([pictures[kind]])], spec))) for kind in order]
    ).to_pylist()
    for contents, rules in ((pictures, None), (paths, PathRules((str(tmp_path),)))):
        stats = TaskStats()
        batch = batch_of([contents[kind] for kind in order])
        (made,) = task.embed_batches([batch], spec, stats=stats, paths=rules)
        for row, alone in zip(made.to_pylist(), expected, strict=True):
            assert (row["status"], row["error"]) == (alone["status"], alone["error"])
            if row["status"] == "ok":
                np.testing.assert_allclose(row["embedding"], alone["embedding"], atol=1e-5)
        assert stats.counts["equal_rows"] == 4


@pytest.mark.parametrize("pool", [None, "mean"])
def test_chunks_that_are_equal_run_once(bert_folder: Path, pool: Any) -> None:
    texts = ["the cat sat on a mat. ", "a big dog runs here. "]
    whole = [texts[0] + texts[1], texts[1] + texts[0], None, texts[0] + texts[1]]
    spec, stats = spec_of(bert_folder), TaskStats()
    rows = []
    for given_rows, each in ((whole, stats), *(([text], TaskStats()) for text in whole)):
        made = task.embed_batches(
            [batch_of(given_rows)], spec, chunking=Chunking(8, 0, pool), stats=each
        )
        rows.append(pa.Table.from_batches(made).drop("id").to_pylist())
    together, alone = rows[0], [row for each in rows[1:] for row in each]
    assert len(together) == len(alone)
    for row, other in zip(together, alone, strict=True):
        vectors = row.pop("embedding"), other.pop("embedding")
        assert row == other
        if row["status"] == "ok":
            np.testing.assert_allclose(*vectors, atol=1e-5)
    assert stats.counts["equal_rows"] >= stats.counts["chunks"] // 4 > 0


def test_predictions_of_equal_rows(bert_folder: Path) -> None:
    spec = spec_of(bert_folder)
    labels = Predictions(tuple(map(str, range(32))), 3)
    made = task.run_batches(
        [batch_of(["a dog", "the cat", "a dog", None, "the cat"])], spec, labels
    )
    rows = [row["predictions"] for row in next(iter(made)).to_pylist()]
    assert rows[0] == rows[2] != rows[1] == rows[4]
    assert rows[3] is None


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.mark.parametrize("sampling", [None, Sampling(1.5, None, None, 3)])
def test_texts_that_are_drawn_by_id_are_written_for_each_row(
    gpt2: Path, sampling: Sampling | None
) -> None:
    spec = spec_of(
        gpt2,
        task="generate",
        layer=None,
        generation=Generation(max_new_tokens=8, min_new_tokens=8, sampling=sampling),
    )
    asked = ["a dog", "the cat", "a dog", None, "a dog", None]
    nothing = pa.nulls(len(asked), pa.string())
    batch = pa.RecordBatch.from_arrays(
        [pa.array(range(6)), pa.array(asked), nothing, nothing, pa.array(range(6), pa.int64())],
        names=["id", "content", "prompt", "problem", "key"],
    )
    stats = TaskStats()
    (made,) = task.run_batches([batch], spec, Description(), stats=stats)
    written = made.to_pydict()
    texts = [text for text in written["description"] if text is not None]
    assert len(texts) == 4
    assert written["error"][3] == written["error"][5] == "null content"
    if sampling is None:
        assert texts[0] == texts[2] == texts[3]
        assert (stats.counts["equal_rows"], stats.counts["generated_tokens"]) == (2, 16)
    else:
        assert len({texts[0], texts[2], texts[3]}) == 3
        assert "equal_rows" not in stats.counts
        assert stats.counts["generated_tokens"] == 32


def test_requests_are_equal_in_all_that_a_text_depends_on() -> None:
    asked = [
        Request(b"a"),
        Request(b"a", b""),
        Request(b"a", b"b"),
        Request(b"ab", b""),
        Request(b"b\0a"),
        Request(b"1:b\0a"),
        Request(b"", b"1:b\0a"),
    ]
    assert len({request.asked for request in asked}) == len(asked)
    assert Request(b"a", b"b", key=1).asked == Request(b"a", b"b", key=2).asked
    assert Request(None).asked is Request(b"a", problem="no label").asked is None
