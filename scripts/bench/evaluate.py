"""Judge synthetic predictions over many classes: seconds, rows per second, memory by process.

.venv/bin/python scripts/bench/evaluate.py --rows 10000000 --classes 1000 --cores 2
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

PREDICTIONS = "array<struct<index:int,label:string,score:float>>"


def make(spark: SparkSession, folder: str, rows: int, classes: int) -> None:
    """Half of the first predictions are right; the second is the class after the first."""
    table = spark.range(0, rows, 1, 32)
    first = F.when(F.rand(1) < 0.5, F.col("id") % classes).otherwise(
        (F.rand(2) * classes).cast("long")
    )
    table = table.select("id", (F.col("id") % classes).alias("label"), first.alias("first"))

    def entry(index: str, score: str) -> str:
        label = f"concat('class ', {index})"
        return (
            f"named_struct('index', cast({index} as int), 'label', {label}, "
            f"'score', cast({score} as float))"
        )

    listed = f"array({entry('first', '0.7')}, {entry(f'(first + 1) % {classes}', '0.2')})"
    table.selectExpr("id", f"cast({listed} as {PREDICTIONS}) predictions").write.parquet(
        f"{folder}/predictions"
    )
    table.selectExpr("id", "concat('class ', label) label").write.parquet(f"{folder}/truth")


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--bootstrap", type=int, default=1000)
    given = parser.parse_args()
    from ember.evaluation import judge_classification

    settings = {
        "spark.master": f"local[{given.cores}]",
        "spark.driver.memory": "2g",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(8 * given.cores),
    }
    # Workers run in the interpreter that has ember.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    spark = SparkSession.builder.config(map=settings).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    peaks: dict[str, int] = {}
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        make(spark, folder, given.rows, given.classes)
        threading.Thread(target=watch, args=(peaks, stop), daemon=True).start()
        start = time.perf_counter()
        report = judge_classification(
            spark.read.parquet(f"{folder}/predictions"),
            spark.read.parquet(f"{folder}/truth"),
            id="id",
            top_k=[2],
            bootstrap=given.bootstrap,
        )
        spent = time.perf_counter() - start
        stop.set()
    print(report.headline()["accuracy"], report.headline()["macro_f1"])
    print(f"{spent:.0f} s, {given.rows / spent:.0f} rows/s, peak MB {peaks}")
    spark.stop()


if __name__ == "__main__":
    main()
