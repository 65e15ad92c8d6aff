"""Run by spark-submit: prints the GPU that each of two tasks at once binds its process to."""

import json
import os
import time

from pyspark.sql import SparkSession


def bind(_):
    from ember.spark import gpu
    from ember.worker.device import claim

    device = claim(gpu.assigned())
    time.sleep(5)  # both tasks run at the same time, so in two processes
    yield [device, os.environ["CUDA_VISIBLE_DEVICES"], os.getpid()]


context = SparkSession.builder.getOrCreate().sparkContext
found = context.parallelize(range(2), 2).mapPartitions(bind).collect()
# Flushed: what is written as the process ends, spark-submit does not always pass on.
print("bound", json.dumps(found), flush=True)
context.stop()
