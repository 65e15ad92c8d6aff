"""The run of a job on rows: embed, classify and describe differ in what they plan, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pyspark.sql import SparkSession

from ember.embedding.row_work import RowWork
from ember.job import Run
from ember.settings.description import DescribeConfig
from ember.settings.embedding import EmbedConfig
from ember.settings.training import ClassifyConfig
from ember.spark import origins
from ember.spark.accounting import Account
from ember.spark.identity import identity_of

__all__ = ["run_row_job"]

ConfigT = TypeVar("ConfigT", EmbedConfig, ClassifyConfig, DescribeConfig)
# What the manifest calls the rows that a run did itself, by job.
_DONE = {"embed": "embedded", "classify": "classified", "describe": "described"}


def run_row_job(run: Run[ConfigT], plan: Callable[[SparkSession, ConfigT], RowWork]) -> None:
    """Do what is planned for every row that no earlier run did, and publish all rows.

    Raises what `plan` raises, InvalidInput for an output that may not be written, and
    TooManyFailures when more rows fail than `limits.max_failed_fraction` allows.
    """
    config, spark = run.config, run.spark
    with run.phase("check"):
        work = plan(spark, config)
        identity = identity_of(spark, config, work.identity)
        output = run.output(identity, part=work.part)
        output.check()
        output.check_ids(work.rows, work.id)
    if run.dry_run:
        run.say(f"{work.try_out()}; nothing was written")
        return

    with output.attempt():
        with run.phase("plan"):
            todo, reused = output.resume(work.rows, work.id)
            todo, total = work.spread(todo)
        account = Account(spark)
        with run.phase(run.job), account.progress(total):
            output.write(work.run(todo, account.reports))

        with run.phase("count"):
            counts = output.counts(expected=reused + total)
            output.refuse_failures(counts, config.limits.max_failed_fraction)
            facts = work.describe(output)
        with run.phase("merge"):
            output.merge(config.output, [work.id], counts["rows"])
        output.publish(
            run.manifest(
                **facts,
                **origins.told(work.rows),
                counts={**counts, "reused": reused, _DONE[run.job]: total},
                rows_per_second=run.rate(total, run.job),
                **account.summary(),
            )
        )
    run.say(f"{counts['rows']} rows {counts['status']}, {reused} of them reused, in {output.shown}")
