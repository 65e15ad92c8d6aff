#!/usr/bin/env bash
# Spark's discovery script: the indices of this machine's GPUs as JSON, or of those that
# CUDA_VISIBLE_DEVICES leaves visible. See spark.executor.resource.gpu.discoveryScript.
set -euo pipefail
if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
    addresses=${CUDA_VISIBLE_DEVICES//,/ }
else
    addresses=$(nvidia-smi --query-gpu=index --format=csv,noheader)
fi
list=""
for address in $addresses; do
    list="$list${list:+,}\"$address\""
done
echo "{\"name\": \"gpu\", \"addresses\": [$list]}"
