"""Find copies, exact and near, and keep one row of each group: tables kept and removed."""

import sys
from collections.abc import Sequence

from pyspark.sql import DataFrame

from ember import job
from ember.deduplication import sync
from ember.deduplication.deduplication import find_copies
from ember.deduplication.sources import other_corpus, plan
from ember.errors import EmberError
from ember.job import Run
from ember.report import add_page, check_packages, collect_copies, map_link
from ember.settings.deduplication import DedupConfig
from ember.spark import origins
from ember.spark.checkpoints import counting
from ember.spark.failed_rows import refuse_failures
from ember.spark.identity import identity_of
from ember.spark.storage import Storage


def dedup(run: Run[DedupConfig]) -> None:
    config, spark = run.config, run.spark
    storage = Storage(spark)
    with run.phase("check"):
        if config.report:
            check_packages()
        work = plan(spark, config)
        made_of = {"job": "dedup", "input": origins.fingerprint(spark, origins.state(*work.read()))}
        identity = identity_of(spark, config, made_of)
        output = run.output(identity)
        output.check()
        update = None
        if config.output.mode == "sync":
            update = sync.begin(output, identity, work, job.versions())
        link = map_link(output, config.map)
    if run.dry_run:
        run.say("configuration and input are fine; nothing was written")
        return
    if output.finished:
        run.say(f"{output.shown} is there already, made of the same input and settings")
        return

    def refuse(bad: DataFrame, count: int, total: int, told: str) -> None:
        ceiling = config.limits.max_failed_fraction
        refuse_failures(count, total, ceiling, told, lambda: output.keep_failures(bad))

    # Reading the content takes the time; what a killed run had read is taken up.
    with output.attempt(worth=lambda: storage.exists(f"{output.shared}/input/_SUCCESS")):
        found = find_copies(
            work,
            shared=output.shared,
            scratch=output.scratch,
            phase=run.phase,
            refuse=refuse,
            update=update,
        )
        counts = found.facts["counts"]
        with run.phase("write"):
            output.write(found.removed, "removed")
            kept, rows = counting(work.input.without(found.removed))
            output.write(kept, "kept")
            counts["rows"] = rows()
        if counts["rows"] + counts["removed"] != counts["input_rows"]:
            raise EmberError(
                f"{counts['rows']} rows are kept and {counts['removed']} removed of "
                f"{counts['input_rows']}; nothing was published. Did the input change during the "
                "run?"
            )
        facts = {
            **found.facts,
            **origins.told(*work.read()),
            "rows_per_second": run.rate(counts["input_rows"], "read"),
        }
        if config.report:
            with run.phase("page"):
                other = other_corpus(config.against, config.input) if config.against else None
                report = collect_copies(spark, found.removed, counts, config.input, other)
                add_page(output, report, run.manifest(**facts), map=link)
        if update:
            facts |= update.keep()
        output.publish(run.manifest(**facts))
    run.say(f"{counts['rows']} rows kept, {counts['removed']} removed, in {output.shown}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("dedup", DedupConfig, dedup, arguments)


if __name__ == "__main__":
    sys.exit(main())
