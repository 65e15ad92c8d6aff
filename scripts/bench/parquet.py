"""How vectors lie in Parquet: bytes, and seconds to write and to read, for each setting.

    .venv/bin/python scripts/bench/parquet.py --vectors minilm.npy --out parquet.json

Spark writes a table as `embed` does (id, embedding, status, error) from one in memory, in one task,
with each codec and encoding, and Spark and pyarrow read it whole; both decode every value. Settings
go in turn, and of each the median over the rounds is told. float16 is written by pyarrow, from the
same matrix: Spark has no such type.

Vectors: a matrix (n, 384) of float32, by default of random directions, which no codec can make
smaller but in their exponents; and (n, 2048) drawn as averages over the last feature map of a
ResNet-50 are distributed, none of them negative.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from math import isnan
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import formatted, machine, middle
from pyspark.sql import DataFrame, SparkSession

from ember.spark.session import spark_session

_NO_DICTIONARY = {"parquet.enable.dictionary#embedding.list.element": "false"}
_SPLIT = {"parquet.enable.bytestreamsplit": "true"}
_LEVEL = "parquet.compression.codec.zstd.level"
SETTINGS: dict[str, dict[str, str]] = {
    "snappy, as Spark has it": {"compression": "snappy"},
    "snappy": {"compression": "snappy", **_NO_DICTIONARY},
    "uncompressed": {"compression": "none", **_NO_DICTIONARY},
    "lz4_raw": {"compression": "lz4_raw", **_NO_DICTIONARY},
    **{
        f"zstd {level}": {"compression": "zstd", _LEVEL: level, **_NO_DICTIONARY}
        for level in ("1", "3", "9")
    },
    "byte-stream split, snappy": {"compression": "snappy", **_NO_DICTIONARY, **_SPLIT},
    **{
        f"byte-stream split, zstd {level}": {
            "compression": "zstd",
            _LEVEL: level,
            **_NO_DICTIONARY,
            **_SPLIT,
        }
        for level in ("1", "3")
    },
}
HALF = "float16, zstd 1, by pyarrow"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--vectors", help="a matrix of float32 in an .npy file, for 384 dimensions")
    parser.add_argument("--rows", type=int, default=49_152, help="of 384 dimensions; fewer of 2048")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", help="a JSON file to write")
    given = parser.parse_args()
    tables = dict(matrices(given.vectors, given.rows))
    told: dict[str, Any] = {"machine": machine(), "rounds": given.rounds, "tables": {}}
    with spark_session("parquet") as spark, tempfile.TemporaryDirectory() as folder:
        for name, matrix in tables.items():
            told["tables"][name] = rows = measured(spark, Path(folder), matrix, given.rounds)
            print(f"\n{name}: {matrix.nbytes / 1e6:.0f} MB of float32\n")
            print(formatted(list(rows[0]), [list(row.values()) for row in rows]))
    if given.out:
        Path(given.out).write_text(json.dumps(told, indent=2))


def matrices(file: str | None, rows: int) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    if file:
        found = np.load(file, mmap_mode="r")
        yield Path(file).stem, np.ascontiguousarray(found[:rows], np.float32)
    else:
        drawn = rng.standard_normal((rows, 384), np.float32)
        yield "random, 384", drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    # Averages of 49 places, of which a channel is active in a few.
    active = rng.binomial(49, 0.08, (rows * 384 // 2048, 2048))
    yield "as of ResNet-50, 2048", (rng.gamma(np.maximum(active, 0.1)) / 49).astype(np.float32)


def measured(spark: SparkSession, folder: Path, matrix: np.ndarray, rounds: int) -> list[Row]:
    """A row for each setting, with the medians over the rounds."""
    pq.write_table(embedded(matrix, pa.float32()), folder / "source.parquet")
    table = spark.read.parquet(str(folder / "source.parquet")).coalesce(1).persist()
    noop(table)
    seconds: dict[str, list[list[float]]] = {name: [] for name in (*SETTINGS, HALF)}
    sizes: dict[str, int] = {}
    for _ in range(rounds + 1):  # the first is for Java to compile what it runs
        for name, spent in seconds.items():
            sizes[name], times = once(spark, folder, table, matrix, name)
            spent.append(times)
    table.unpersist()
    return [row(name, sizes[name], matrix.nbytes, spent[1:]) for name, spent in seconds.items()]


def row(name: str, size: int, raw: int, seconds: list[list[float]]) -> Row:
    write, read, arrow = (middle(each) for each in zip(*seconds, strict=True))
    return {
        "setting": name,
        "MB": round(size / 1e6, 1),
        "of float32": f"{size / raw:.0%}",
        "write, s": round(write, 2),
        "read by Spark, s": "cannot" if isnan(read) else round(read, 2),
        "read by pyarrow, s": round(arrow, 2),
    }


def once(
    spark: SparkSession, folder: Path, table: DataFrame, matrix: np.ndarray, name: str
) -> tuple[int, list[float]]:
    """The bytes of one setting's files; seconds to write, to read in Spark (nan: it cannot) and
    to read by pyarrow."""
    place = folder / "out"
    if name == HALF:
        place.mkdir(exist_ok=True)
        for each in place.glob("*"):
            each.unlink()
        half = embedded(matrix, pa.float16())
        writing = timed(
            lambda: pq.write_table(
                half, place / "x.parquet", compression="zstd", compression_level=1,
                use_dictionary=["status"],
            )
        )  # fmt: skip
        reading = float("nan")
    else:
        writer = table.write.mode("overwrite").options(**SETTINGS[name])
        writing = timed(lambda: writer.parquet(str(place)))
        reading = timed(lambda: noop(spark.read.parquet(str(place))))
    arrow = timed(lambda: pq.read_table(place, use_threads=False))
    return sum(each.stat().st_size for each in place.glob("*.parquet")), [writing, reading, arrow]


def embedded(matrix: np.ndarray, kind: pa.DataType) -> pa.Table:
    """A table as `embed` writes it."""
    rows, dimension = matrix.shape
    values = matrix.astype(np.float16 if kind == pa.float16() else np.float32).ravel()
    offsets = pa.array(np.arange(0, matrix.size + 1, dimension, dtype=np.int32))
    return pa.table(
        {
            "id": [f"id-{number}" for number in range(rows)],
            "embedding": pa.ListArray.from_arrays(offsets, pa.array(values, kind)),
            "status": ["ok"] * rows,
            "error": pa.nulls(rows, pa.string()),
        }
    )


def noop(table: DataFrame) -> None:
    """Read every value, and do nothing with it."""
    table.write.format("noop").mode("overwrite").save()


def timed(work: Callable[[], Any]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


if __name__ == "__main__":
    main()
