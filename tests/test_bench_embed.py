"""The arithmetic of scripts/bench/embed.py, on figures that are easy to check by hand."""

from __future__ import annotations

import importlib
import io
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

BENCH = Path(__file__).parents[1] / "scripts" / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCH)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def run(contestant: str, number: int, rows: int, seconds: float) -> dict[str, Any]:
    return {
        "contestant": contestant,
        "round": number,
        "rows": rows,
        "seconds": seconds,
        "worker_mib": 100.0,
    }


def case(runs: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    machine = {"processor": "a processor", "cores": 2, "instructions": ["avx2"]}
    return {
        "title": "A model",
        "rows": 400,
        "small_rows": 50,
        "rounds": 2,
        "flops_per_row": 8e9,
        "machine": {**machine, "gflops": {"float32": 160.0, "bfloat16": 320.0}},
        "settings": {"ember": [], "half": ["model.precision=bfloat16"]},
        "labels": {"ember": "Ember", "half": "Ember, half", "daft": "Daft", "ray": "Ray Data"},
        "agreement": {"daft": 0.99999},
        "least_agreement": 0.999,
        "first": {"ember": 12.5},
        "missing": {"ray": "not installed (ray.data)"},
        "runs": runs,
    } | more


# Ember starts in 5 s and then does 20 rows a second; Daft in 10 s, and 10, then 12.5 a second.
RUNS = [
    run("ember", 1, 50, 7.5),
    run("daft", 1, 50, 15.0),
    run("ember", 1, 400, 25.0),
    run("daft", 1, 400, 50.0),
    run("ember", 2, 400, 25.0),
    run("daft", 2, 400, 43.0),
]


def test_steady_rates_leave_out_what_does_not_depend_on_rows(bench: Any) -> None:
    summary = bench("embed_summary").summaries(case(RUNS))
    ember = summary["ember"]
    assert ember.seconds == 25
    assert ember.rate == 16
    assert ember.steady == pytest.approx(20)
    assert ember.startup == pytest.approx(5)
    # 160 GFLOP/s allow 20 rows of 8 GFLOP a second.
    assert ember.of_limit == pytest.approx(1)
    assert ember.whole_ratio is None
    assert "ray" not in summary


def test_ratios_are_of_the_same_round_and_above_1_where_ember_is_faster(bench: Any) -> None:
    daft = bench("embed_summary").summaries(case(RUNS))["daft"]
    assert (daft.whole_ratio.low, daft.whole_ratio.high) == (43 / 25, 50 / 25)
    assert daft.whole_ratio.middle == pytest.approx(46.5 / 25)
    # 350 rows in 35 s, then in 28 s, against 17.5 s.
    assert daft.steady_ratio.low == pytest.approx(1.6)
    assert daft.steady_ratio.high == pytest.approx(2)


def test_a_small_run_that_took_longer_gives_no_steady_rate(bench: Any) -> None:
    runs = [run("ember", 1, 50, 30.0), run("ember", 1, 400, 25.0)]
    ember = bench("embed_summary").summaries(case(runs))["ember"]
    assert (ember.steady, ember.startup, ember.of_limit) == (None, None, None)


def test_a_contestant_whose_answers_differ_is_named_and_a_variant_is_not(bench: Any) -> None:
    summary = bench("embed_summary")
    assert summary.disagreeing(case(RUNS)) == []
    found = case(RUNS, agreement={"daft": 0.99, "half": 0.99})
    assert summary.disagreeing(found) == ["daft"]
    assert "Daft does not compute the same" in summary.markdown(found)


def test_a_variant_is_held_against_the_limit_of_its_own_precision(bench: Any) -> None:
    runs = [*RUNS, run("half", 1, 50, 6.25), run("half", 1, 400, 15.0)]
    half = bench("embed_summary").summaries(case(runs))["half"]
    assert half.steady == pytest.approx(40)
    assert half.of_limit == pytest.approx(1)
    unknown = {"ember": [], "half": ["model.precision=int8"]}
    assert bench("embed_summary").summaries(case(runs, settings=unknown))["half"].of_limit is None


def test_four_ratios_have_a_student_interval_of_their_logarithms(bench: Any) -> None:
    found = bench("embed_summary").interval([1.0, 2.0, 4.0, 8.0])
    # Logarithms to base 2: 0, 1, 2, 3, mean 1.5, deviation √(5/3); t(0.975, 3) = 3.18245.
    half = 3.18245 * math.sqrt(5 / 3) / 2
    assert found.middle == 3
    assert found.low == pytest.approx(2 ** (1.5 - half), rel=1e-4)
    assert found.high == pytest.approx(2 ** (1.5 + half), rel=1e-4)
    assert bench("embed_summary").interval([]) is None


def test_the_table_names_what_was_not_run(bench: Any) -> None:
    text = bench("embed_summary").markdown(case(RUNS))
    assert "### A model, 400 rows" in text
    assert "| Daft | 46.5 | 8.6 |" in text
    assert "1.86 (1.72–2.00)" in text
    assert "Ray Data: not installed (ray.data)." in text
    assert "The first run of Ember took 12.5 s more." in text


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("modality", ["image", "text"])
def test_an_enlarged_corpus_has_no_equal_rows(bench: Any, tmp_path: Path, modality: str) -> None:
    cases = bench("embed_cases")
    name = "image-hf" if modality == "image" else "text-minilm"
    column = [jpeg(0), jpeg(1), jpeg(0)] if modality == "image" else ["one", "two", "one"]
    content = cases.CASES[name].content
    pq.write_table(pa.table({content: column}), tmp_path / cases.CASES[name].file)
    paths = cases.write_corpora(cases.CASES[name], tmp_path, [2, 7], tmp_path)
    large = pq.read_table(paths[7]).column(content).to_pylist()
    assert len(set(large)) == 7
    assert pq.read_table(paths[2]).column(content).to_pylist() == large[:2]
    if modality == "image":
        # Other pixels too, not only another file of the same picture.
        sizes = {np.asarray(Image.open(io.BytesIO(each))).tobytes() for each in large}
        assert len(sizes) == 7


def test_answers_are_compared_by_what_tells_rows_apart(bench: Any) -> None:
    agreement = bench("embed_answers").agreement
    rng = np.random.default_rng(0)
    own = 1000 + rng.normal(size=(50, 8))
    assert agreement(own, own) == pytest.approx(1)
    # Plain cosines of such vectors are all near 1; of other rows' vectors these are not.
    assert agreement(own, np.roll(own, 1, axis=0)) < 0
    assert agreement(np.array(["a", "b", "c", "d"]), np.array(["a", "b", "x", "d"])) == 0.75
