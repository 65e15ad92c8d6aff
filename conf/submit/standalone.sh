#!/usr/bin/env bash
# Run a job on a standalone cluster, client mode, with the environment of scripts/package. Tried by
# tests/standalone/test_standalone.py on a Master and two Workers.
#   MASTER=spark://host:7077 conf/submit/standalone.sh jobs/embed.py --config conf/embed_images.yaml
set -euo pipefail
options=(
    --master "${MASTER:?spark://HOST:7077}"
    # Unpacked once on each worker, beside the executor's own files, and linked as `environment`.
    --archives "${ARCHIVE:-dist/ember-cpu.tar.gz}#environment"
    # What executors run, from that archive.
    --conf spark.pyspark.python=./environment/bin/python
    # What the driver runs, on this machine: what executors have, and torch to convert models with.
    --conf "spark.pyspark.driver.python=${DRIVER_PYTHON:-$PWD/.venv/bin/python}"
    # Java's heap of an executor: Parquet, shuffles, what waits for Python. Models live beside it.
    --conf "spark.executor.memory=${EXECUTOR_MEMORY:-2g}"
    # A task for each core, and a Python worker with a model for each task.
    --conf "spark.executor.cores=${EXECUTOR_CORES:-2}"
    # Spark hands rows to Python value by value; without Arrow's check of each place it is faster.
    --conf spark.executor.extraJavaOptions=-Darrow.enable_unsafe_memory_access=true
)
# Where no other Spark is on PATH, that of .venv, which goes by the first python3 there.
command -v spark-submit >/dev/null || export PATH="$PWD/.venv/bin:$PATH"
exec spark-submit "${options[@]}" "$@"
