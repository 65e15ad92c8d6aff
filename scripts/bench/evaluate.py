"""Judge synthetic predictions over many classes: seconds, rows per second, memory by process.

.venv/bin/python scripts/bench/evaluate.py --rows 10000000 --cores 2
.venv/bin/python scripts/bench/evaluate.py --rows 100000000 --cores 2 --memory 4g

Both tables are computed by Spark from their ids whenever they are read, so that there are no files
of gigabytes; that is part of the time.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

ENTRIES = "array<struct<index:int,label:string,score:float>>"


def make(spark: SparkSession, rows: int, classes: int) -> tuple[DataFrame, DataFrame]:
    """Predictions and truth. Half of the first predictions are right, with scores from 0.5 to 1
    of which no two are likely to be equal; the second is the class after the first.
    """
    number = f"pmod(xxhash64(id, 1), {2 * classes})"
    table = spark.range(0, rows, 1, max(32, rows // 1_000_000)).selectExpr(
        "id + 1 AS id",  # as ids of a file, of which Spark does not know that they are unique
        f"id % {classes} AS class",
        f"if({number} < {classes}, {number}, id % {classes}) AS first",
        "cast(0.5 + pmod(xxhash64(id, 2), 16777216) / 33554432 AS float) AS score",
    )

    def entry(index: str, score: str) -> str:
        return (
            f"named_struct('index', cast({index} AS int), 'label', concat('class ', {index}), "
            f"'score', cast({score} AS float))"
        )

    listed = f"array({entry('first', 'score')}, {entry(f'(first + 1) % {classes}', '1 - score')})"
    predictions = table.selectExpr("id", f"cast({listed} AS {ENTRIES}) AS predictions")
    return predictions, table.selectExpr("id", "concat('class ', class) AS label")


def watch(peaks: dict[str, int], stop: threading.Event) -> None:
    """The largest resident memory, in MB, of the JVM, the driver and a Python worker."""
    me = str(Path("/proc/self").resolve().name)
    while not stop.wait(0.5):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
                pages = int((process / "statm").read_text().split()[1])
            except OSError:
                continue
            kind = "driver" if process.name == me else None
            kind = kind or ("worker" if b"pyspark.daemon" in command else None)
            kind = kind or ("jvm" if b"SparkSubmit" in command else None)
            if kind:
                peaks[kind] = max(peaks.get(kind, 0), pages * 4096 >> 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--memory", default="2g", help="of Spark's Java process")
    given = parser.parse_args()
    from ember.evaluation import judge_classification

    settings = {
        "spark.master": f"local[{given.cores}]",
        "spark.driver.memory": given.memory,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(max(8 * given.cores, given.rows // 500_000)),
    }
    # Workers run in the interpreter that has ember.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.builder.config(map=settings).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    peaks: dict[str, int] = {}
    stop = threading.Event()
    predictions, truth = make(spark, given.rows, given.classes)
    threading.Thread(target=watch, args=(peaks, stop), daemon=True).start()
    start = time.perf_counter()
    report = judge_classification(predictions, truth, id="id", top_k=[2], bootstrap=given.bootstrap)
    spent = time.perf_counter() - start
    stop.set()
    for name in ("accuracy", "macro_f1", "ece"):
        print(name, report.headline()[name])
    print(f"{spent:.0f} s, {given.rows / spent:.0f} rows/s, peak MB {peaks}")
    spark.stop()


if __name__ == "__main__":
    main()
