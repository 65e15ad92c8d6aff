from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.worker.batching import encode, plan_batches
from ember.worker.encoder import Slot
from fake_encoder import (
    PATTERNS,
    FakeEncoder,
    OutOfMemory,
    costs,
    encoded,
    encoders,
    endless,
    even,
    rows_strategy,
    sizes_strategy,
    slots_of,
)

plans = (
    st.lists(costs, max_size=60).map(sorted),
    st.integers(1, 10),
    st.integers(1, 200),
    st.none() | st.integers(0, 30),
)


def padding_of(ascending: list[int], runs: list[range]) -> list[int]:
    """Of each run: what its rows lack to its longest."""
    return [sum(ascending[run[-1]] - ascending[row] for row in run) for run in runs]


@given(*plans)
def test_plan_covers_every_row_once_within_its_bounds(
    ascending: list[int], batch_size: int, batch_cost: int, most: int | None
) -> None:
    runs = plan_batches(ascending, batch_size, batch_cost, most)
    assert [index for run in runs for index in run] == list(range(len(ascending)))
    for run, padding in zip(runs, padding_of(ascending, runs), strict=True):
        assert 1 <= len(run) <= batch_size
        assert len(run) == 1 or len(run) * ascending[run[-1]] <= batch_cost
        assert most is None or padding <= most


@given(*plans)
def test_plan_takes_as_much_into_a_batch_as_fits(
    ascending: list[int], batch_size: int, batch_cost: int, most: int | None
) -> None:
    for run in plan_batches(ascending, batch_size, batch_cost, most)[:-1]:
        longer = [range(run.start, run.stop + 1)]
        full = len(run) == batch_size or len(longer[0]) * ascending[run.stop] > batch_cost
        assert full or (most is not None and padding_of(ascending, longer)[0] > most)


@given(*plans)
def test_a_window_is_padded_by_no_more_than_a_call_for_each_length_but_one(
    ascending: list[int], batch_size: int, batch_cost: int, most: int | None
) -> None:
    if most is not None:
        runs = plan_batches(ascending, batch_size, batch_cost, most)
        assert sum(padding_of(ascending, runs)) <= most * max(0, len(set(ascending)) - 1)


def lengths_of(kind: str, rng: np.random.Generator, rows: int) -> Any:
    """Token counts of `rows` texts, from 2 to 512."""
    drawn = {
        "uniform": lambda: rng.uniform(2, 512, rows),
        "lognormal": lambda: rng.lognormal(np.log(40), 0.8, rows),
        "short": lambda: rng.lognormal(np.log(14), 0.4, rows),
        "two kinds": lambda: np.where(
            rng.random(rows) < 0.5, rng.normal(12, 3, rows), rng.normal(300, 60, rows)
        ),
        "few long": lambda: np.where(
            rng.random(rows) < 0.01, rng.uniform(256, 512, rows), rng.uniform(5, 20, rows)
        ),
        "equal": lambda: np.full(rows, 40),
    }[kind]()
    return np.sort(np.clip(drawn, 2, 512).astype(int))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "kind", ["uniform", "lognormal", "short", "two kinds", "few long", "equal"]
)
def test_window_of_two_thousand_texts_is_padded_by_less_than_two_percent(
    kind: str, seed: int
) -> None:
    lengths = lengths_of(kind, np.random.default_rng(seed), 2000).tolist()
    runs = plan_batches(lengths, 128, 1024, 16)
    assert sum(padding_of(lengths, runs)) < 0.02 * sum(lengths)


@pytest.mark.parametrize("call", [8, 16, 32])
@pytest.mark.parametrize("kind", ["uniform", "lognormal", "short", "two kinds", "few long"])
@pytest.mark.parametrize("rows", [40, 400, 2000])
def test_few_other_cuts_would_take_less_time(kind: str, rows: int, call: int) -> None:
    """Against the best cut there is, where a call takes as long as `call` tokens."""
    lengths = lengths_of(kind, np.random.default_rng(rows), rows).tolist()
    best = [0.0] * (rows + 1)
    for start in range(rows - 1, -1, -1):
        stops = range(start + 1, min(start + 128, rows) + 1)
        best[start] = min(
            call + (stop - start) * lengths[stop - 1] + best[stop]
            for stop in stops
            if stop == start + 1 or (stop - start) * lengths[stop - 1] <= 1024
        )
    runs = plan_batches(lengths, 128, 1024, call)
    taken = sum(call + len(run) * lengths[run[-1]] for run in runs)
    assert taken <= 1.05 * best[0]
    alone = sum(call + each for each in lengths)
    assert taken <= alone


@given(rows_strategy, sizes_strategy, encoders(), st.integers(1, 3))
def test_every_row_gets_its_own_vector_in_order(
    drawn: list[int | None], sizes: list[int], encoder: FakeEncoder, threads: int
) -> None:
    rows = [None if cost is None else f"{n}:{cost}".encode() for n, cost in enumerate(drawn)]
    given_slots = list(slots_of(rows, sizes))
    limits = encoder.batch_size, encoder.batch_cost

    done = encoded(iter(given_slots), encoder, threads)

    assert [id(slot) for slot in done] == [id(slot) for slot in given_slots]
    for slot in done:
        for row in range(len(slot.raws)):
            number = slot.tag + row
            if drawn[number] is None:
                assert slot.errors[row] == "bad row: of a test"
            else:
                assert row not in slot.errors
                assert slot.vectors[row].tolist() == [number, drawn[number]]
    seen = sorted(number for call in encoder.calls for number, _ in call)
    assert seen == [number for number, cost in enumerate(drawn) if cost is not None]
    for call in encoder.calls:
        padded = len(call) * max(cost for _, cost in call)
        assert len(call) <= limits[0]
        assert len(call) == 1 or padded <= limits[1]
        if encoder.most_padding is not None:
            assert padded - sum(cost for _, cost in call) <= encoder.most_padding


@given(rows_strategy, sizes_strategy, encoders(), st.sampled_from([1e9, 2]))
def test_tokens_and_padding_are_counted(
    drawn: list[int | None], sizes: list[int], encoder: FakeEncoder, fits: float
) -> None:
    rows = [None if cost is None else f"{n}:{cost}".encode() for n, cost in enumerate(drawn)]
    encoder.fits = fits
    counts: Counter[str] = Counter()
    list(
        encode(
            slots_of(rows, sizes),
            encoder,
            threads=2,
            timed=lambda *_: None,
            counted=lambda what, number: counts.update({what: number}),
        )
    )
    if encoder.most_padding is None:
        assert not counts
        return
    assert counts["tokens"] == sum(cost for cost in drawn if cost is not None)
    padding = sum(max(costs) * len(costs) - sum(costs) for costs in by_call(encoder))
    if max(encoder.tried, default=0) > fits:  # batches halved for lack of memory have no more
        assert counts["padding"] >= padding
    else:
        assert counts["padding"] == padding


def by_call(encoder: FakeEncoder) -> list[list[int]]:
    return [[cost for _, cost in call] for call in encoder.calls]


@given(st.integers(0, 120), sizes_strategy, encoders(cost=10**6))
def test_rows_of_equal_cost_need_no_more_calls_than_full_batches(
    n: int, sizes: list[int], encoder: FakeEncoder
) -> None:
    encoder.window_rows = max(encoder.window_rows, encoder.batch_size)
    encoded(slots_of(even(n), sizes), encoder)
    assert len(encoder.calls) == -(-n // encoder.batch_size)


@pytest.mark.parametrize(("size", "batch"), [(13, 16), (1, 16), (100, 10), (7, 128), (512, 16)])
def test_odd_blocks_make_full_batches_with_the_real_chunks(size: int, batch: int) -> None:
    encoder = FakeEncoder(chunk=8, window=batch, batch=batch)
    encoded(slots_of(even(1000), [size] * (1000 // size)), encoder)
    assert [len(call) for call in encoder.calls[:-1]] == [batch] * (len(encoder.calls) - 1)


def test_short_and_long_rows_do_not_share_batches_in_a_window() -> None:
    rows = [f"{n}:{1 if n % 2 else 30}".encode() for n in range(64)]
    encoder = FakeEncoder(window=64, batch=8, cost=240)
    encoded(slots_of(rows, []), encoder)
    assert all(len({cost for _, cost in call}) == 1 for call in encoder.calls)
    assert len(encoder.calls) == 8


def test_long_rows_fill_a_window_before_it_has_its_rows() -> None:
    encoder = FakeEncoder(chunk=4, window=1000, batch=4)
    rows = slots_of(even(2000, cost=5120), [4] * 500)
    out = encode(rows, encoder, threads=1, timed=lambda *_: None)
    next(out)
    assert sum(len(call) for call in encoder.calls) == 100
    out.close()


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("block", [1, 5, 50])
def test_no_row_is_held_for_ever_and_reading_ahead_is_bounded(
    pattern: list[str], block: int
) -> None:
    encoder = FakeEncoder(chunk=4, window=16, batch=8, cost=200)
    taken: list[int] = []
    out = encode(endless(pattern, block, taken), encoder, threads=2, timed=lambda *_: None)
    for done in range(1, 200):
        next(out)
        # Two windows that wait, overdue at the latest after four times as many rows, and chunks
        # (of one row each where blocks are that small) on their way.
        assert (len(taken) - done) * block <= 8 * encoder.window_rows + 8 * 4 + block
    out.close()


def test_nothing_is_read_before_the_first_is_asked_for() -> None:
    taken: list[int] = []
    out = encode(endless(["1"], 4, taken), FakeEncoder(), threads=2, timed=lambda *_: None)
    assert not taken
    next(out)
    assert taken
    out.close()


def test_first_output_does_not_wait_for_the_end_of_the_input() -> None:
    encoder = FakeEncoder(window=8, batch=4)
    out = encode(slots_of(even(400), [4] * 100), encoder, threads=2, timed=lambda *_: None)
    next(out)
    assert encoder.prepared < 100
    out.close()


def test_empty_input_and_empty_slots() -> None:
    encoder = FakeEncoder()
    assert encoded(iter([]), encoder) == []
    done = encoded(iter([Slot([], tag=0), Slot(even(1), tag=1), Slot([], tag=2)]), encoder)
    assert [slot.tag for slot in done] == [0, 1, 2]
    assert encoded(iter([Slot([])]), encoder)[0].vectors is None


def test_slot_of_failed_rows_only_has_no_vectors() -> None:
    (slot, _) = encoded(slots_of([b"bad", None], [2]), FakeEncoder())
    assert slot.vectors is None
    assert sorted(slot.errors) == [0, 1]


def test_model_runs_on_the_calling_thread_and_preparation_beside_it() -> None:
    encoder = FakeEncoder()
    encoded(slots_of(even(40), []), encoder)
    assert encoder.model_threads == {threading.get_ident()}
    assert threading.get_ident() not in encoder.prepare_threads


@given(st.integers(1, 60), st.integers(1, 16), st.integers(1, 16))
def test_out_of_memory_halves_and_goes_on(n: int, batch: int, fits: int) -> None:
    encoder = FakeEncoder(batch=batch, window=32, fits=fits)
    done = encoded(slots_of(even(n), []), encoder)
    vectors = np.concatenate([slot.vectors for slot in done if slot.vectors is not None])
    assert vectors[:, 0].tolist() == list(range(n))
    assert not any(slot.errors for slot in done)
    # Remembered: each size is too much at most once, and half of it is tried next.
    too_much = [size for size in encoder.tried if size > fits]
    assert len(too_much) == len(set(too_much))
    if too_much:
        assert encoder.batch_size == too_much[-1] // 2


def test_lowered_batch_size_is_kept_for_the_next_stream() -> None:
    encoder = FakeEncoder(batch=8, window=16, fits=3)
    encoded(slots_of(even(40), []), encoder)
    encoder.tried.clear()
    encoded(slots_of(even(40), []), encoder)
    assert encoder.tried
    assert max(encoder.tried) <= 3


def test_out_of_memory_with_a_single_row_propagates() -> None:
    with pytest.raises(OutOfMemory):
        encoded(slots_of(even(9), []), FakeEncoder(fits=0))


def test_other_errors_of_the_model_propagate_at_once() -> None:
    encoder = FakeEncoder(fits=1)
    encoder.is_out_of_memory = lambda error: False  # type: ignore[method-assign]
    with pytest.raises(OutOfMemory):
        encoded(slots_of(even(9), []), encoder)
    assert encoder.tried == [4]


def test_errors_of_the_preparation_propagate() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        encoded(slots_of([b"1:1", b"x:y"], []), FakeEncoder())


def test_errors_of_the_input_propagate() -> None:
    def broken() -> Iterator[Slot]:
        yield Slot(even(3))
        raise OSError("the input broke")

    with pytest.raises(OSError, match="the input broke"):
        encoded(broken(), FakeEncoder())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vector_that_is_not_finite_is_an_error_row(value: float) -> None:
    encoder = FakeEncoder()
    plain = encoder.run

    def run(items: Sequence[Any]) -> np.ndarray:
        vectors = plain(items)
        vectors[vectors[:, 0] == 2, 1] = value
        return vectors

    encoder.run = run  # type: ignore[method-assign]
    slot = encoded(slots_of(even(5), []), encoder)[0]
    assert slot.errors == {2: "not finite: the model returned NaN or infinity"}
    assert slot.vectors[[0, 1, 3, 4], 0].tolist() == [0, 1, 3, 4]
    assert np.isfinite(slot.vectors).all()


def test_phases_are_timed() -> None:
    phases: list[str] = []
    seconds: list[float] = []

    def timed(phase: str, spent: float) -> None:
        phases.append(phase)
        seconds.append(spent)

    encoder = FakeEncoder()
    list(encode(slots_of(even(8), []), encoder, threads=1, timed=timed))
    assert phases.count("model") == len(encoder.calls)
    assert phases.count("prepare wait") == 2
    assert min(seconds) >= 0
