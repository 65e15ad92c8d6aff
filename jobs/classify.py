"""Label a corpus of images or texts: the best labels of each row with their scores."""

import sys
from collections.abc import Sequence

from ember import job
from ember.embedding import classification
from ember.job import Run
from ember.settings.training import ClassifyConfig
from ember.spark import tables
from ember.spark.accounting import Account
from ember.spark.identity import identity_of
from ember.spark.publish import Output


def classify(run: Run[ClassifyConfig]) -> None:
    config, spark = run.config, run.spark
    with run.phase("check"):
        work = classification.plan(spark, config)
        identity = identity_of(spark, config, work.identity)
        output = run.output(Output, identity)
        output.check()
    if run.dry_run:
        run.say(f"{work.try_out()}; nothing was written")
        return

    with output.attempt():
        with run.phase("plan"):
            todo, reused = output.resume(work.rows, work.id)
            todo, total = work.spread(todo)
        account = Account(spark)
        with run.phase("classify"), account.progress(total):
            output.write(work.predict(todo, account.reports))

        with run.phase("count"):
            counts = output.counts(expected=reused + total)
            output.refuse_failures(counts, config.limits.max_failed_fraction)
        output.publish(
            run.manifest(
                **work.describe(),
                input_files=tables.files(work.rows),
                counts={**counts, "reused": reused, "classified": total},
                rows_per_second=run.rate(total, "classify"),
                **account.summary(),
            )
        )
    run.say(f"{counts['rows']} rows {counts['status']}, {reused} of them reused, in {output.path}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("classify", ClassifyConfig, classify, arguments)


if __name__ == "__main__":
    sys.exit(main())
