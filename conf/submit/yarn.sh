#!/usr/bin/env bash
# Run a job on YARN, the driver in a container of the cluster as well. Tried by tests/yarn/test_yarn.py
# on Hadoop's own mini clusters.
#   conf/submit/yarn.sh jobs/embed.py --config embed_images.yaml --set input.path=hdfs:///images
set -euo pipefail
options=(
    # HADOOP_CONF_DIR (or YARN_CONF_DIR) says where YARN and HDFS are.
    --master yarn
    # The driver runs in the cluster: it outlives this shell, and YARN starts it again if it dies;
    # with output.mode=resume the second driver goes on where the first one was.
    --deploy-mode cluster
    # Do not return before the run ends, so that the exit code is that of the run (0 or 1 on YARN;
    # the job's own code is in the driver's log and whether there is a manifest).
    --conf spark.yarn.submit.waitAppCompletion=true
    # For driver and executors; from HDFS, so that it is not sent up for each run. The driver converts
    # models for OpenVINO, for which it needs torch: the variant torch, not cpu.
    --archives "${ARCHIVE:?hdfs:///apps/ember-torch.tar.gz}#environment"
    # What executors run.
    --conf spark.pyspark.python=./environment/bin/python
    # What the driver runs, in its container; with --deploy-mode client, or where the nodes have
    # another Python with Ember, the path of that one.
    --conf "spark.pyspark.driver.python=${DRIVER_PYTHON:-./environment/bin/python}"
    # Where the driver keeps a model that it has converted: a container's HOME is nobody's. A folder of
    # yours on the nodes, or the model's folder ready made, spares the next driver the same work.
    --conf "spark.yarn.appMasterEnv.EMBER_CACHE=${DRIVER_CACHE:-\$PWD/cache}"
    # Files that the arguments name have to be sent along; name them without their folders then.
    --files "${FILES-conf/embed_images.yaml}"
    # How many executors; or leave it out and set spark.dynamicAllocation.enabled=true.
    --conf "spark.executor.instances=${EXECUTORS:-8}"
    # A task for each core, and a Python worker with a model for each task.
    --conf "spark.executor.cores=${EXECUTOR_CORES:-4}"
    # Java's heap of an executor.
    --conf "spark.executor.memory=${EXECUTOR_MEMORY:-4g}"
    # What the container has beside the heap, for the Python workers: above it YARN kills the
    # executor. jobs/doctor.py says how much a model takes.
    --conf "spark.executor.memoryOverhead=${EXECUTOR_OVERHEAD:-6g}"
    # Of the driver: blocks and checkpoints are planned there, and a model is converted beside it.
    --conf spark.driver.memory=4g
    --conf spark.driver.memoryOverhead=4g
    --conf spark.executor.extraJavaOptions=-Darrow.enable_unsafe_memory_access=true
)
# Where no other Spark is on PATH, that of .venv, which goes by the first python3 there.
command -v spark-submit >/dev/null || export PATH="$PWD/.venv/bin:$PATH"
exec spark-submit "${options[@]}" "$@"
