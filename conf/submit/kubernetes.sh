#!/usr/bin/env bash
# Run a job on Kubernetes, from the images of scripts/packaging/Dockerfile. NOT tried on a Kubernetes.
#   conf/submit/kubernetes.sh local:///opt/ember/jobs/embed.py --config …
set -euo pipefail
options=(
    # The API server, as `kubectl cluster-info` says it.
    --master "k8s://${API_SERVER:?https://HOST:6443}"
    # The driver is a pod, too.
    --deploy-mode cluster
    --name ember
    # Where the pods go, and the account that lets the driver make executors.
    --conf "spark.kubernetes.namespace=${NAMESPACE:-ember}"
    --conf "spark.kubernetes.authenticate.driver.serviceAccountName=${ACCOUNT:-spark}"
    # The driver converts models and has torch; executors have OpenVINO alone, a third of the size.
    --conf "spark.kubernetes.driver.container.image=${DRIVER_IMAGE:?IMAGE}"
    --conf "spark.kubernetes.executor.container.image=${EXECUTOR_IMAGE:?IMAGE}"
    # Wait for the end of the run; spark-submit then ends with the exit code of the driver's pod.
    --conf spark.kubernetes.submission.waitAppCompletion=true
    # How many executors, the cores and tasks of each, and its Java heap.
    --conf "spark.executor.instances=${EXECUTORS:-8}"
    --conf "spark.executor.cores=${EXECUTOR_CORES:-4}"
    --conf "spark.executor.memory=${EXECUTOR_MEMORY:-4g}"
    # What the pod has beside the heap, for the Python workers: above it the pod is killed. Without it
    # Spark takes two fifths of the heap. jobs/doctor.py says how much a model takes.
    --conf "spark.executor.memoryOverhead=${EXECUTOR_OVERHEAD:-6g}"
    --conf spark.driver.memory=4g
    --conf spark.driver.memoryOverhead=4g
    --conf spark.executor.extraJavaOptions=-Darrow.enable_unsafe_memory_access=true
)
exec spark-submit "${options[@]}" "$@"
