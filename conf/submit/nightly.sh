#!/usr/bin/env bash
# Embed the rows of the day before, from cron; tried again where that may help, and resumed.
#   15 3 * * *  cd /opt/ember && conf/submit/nightly.sh >>/var/log/ember.log 2>&1
# DAY=2026-11-10 conf/submit/nightly.sh does another day. Arguments go to the job.
set -euo pipefail
day=${DAY:-$(date -u -d yesterday +%F)}
root=${ROOT:-s3a://bucket/ember}
# Cron starts the next run also where the last one has not ended; two on one day would be in the way.
exec 9>"${LOCK:-/tmp/ember-nightly.lock}"
flock --nonblock 9 || { echo "nightly: the run before this one has not ended" >&2; exit 1; }
for attempt in 1 2 3; do
    code=0
    ${SUBMIT:-spark-submit} jobs/embed.py --config "${CONFIG:-conf/embed_texts.yaml}" \
        --run-id "nightly-$day-$attempt" \
        --set input.where="created >= DATE'$day' AND created < date_add(DATE'$day', 1)" \
        --set output.path="$root/embeddings/day=$day" --set output.mode=resume "$@" || code=$?
    case $code in
        0) exit 0 ;;
        # Another try would end in the same way: 2 the configuration or the input, 3 too many failed
        # rows, 4 no GPU, 5 a figure below what `require` asks for.
        2 | 3 | 4 | 5) exit "$code" ;;
    esac
    echo "nightly: attempt $attempt of $day ended with exit code $code" >&2
    [ "$attempt" = 3 ] || sleep "${PAUSE:-60}"
done
exit "$code"
