"""The run of a job on rows: embed, classify and describe differ in what they plan, and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pyspark.sql import SparkSession

from ember.embedding import sync
from ember.embedding.model_work import ModelWork
from ember.embedding.row_work import RowWork
from ember.job import Run
from ember.settings.description import DescribeConfig
from ember.settings.embedding import EmbedConfig
from ember.settings.training import ClassifyConfig
from ember.spark import origins
from ember.spark.accounting import Account
from ember.spark.failed_rows import too_many
from ember.spark.identity import content_identity, identity_of
from ember.spark.publish import Output
from ember.spark.staged_files import read_manifest

__all__ = ["run_row_job"]

ConfigT = TypeVar("ConfigT", EmbedConfig, ClassifyConfig, DescribeConfig)
# What the manifest calls the rows that a run did itself, by job.
_DONE = {"embed": "embedded", "classify": "classified", "describe": "described"}
# What a manifest says of a table, whichever run made it: counts of its rows, and facts of a model.
_COUNTS = ("rows", "input_rows", "status", "reasons")
_OF_TABLE = ("model", "dimension", "labels", "head")


def run_row_job(run: Run[ConfigT], plan: Callable[[SparkSession, ConfigT], RowWork]) -> None:
    """Do what is planned for every row that no earlier run did, and publish all rows.

    Raises what `plan` raises, InvalidInput for an output that may not be written, and
    TooManyFailures when more rows fail than `limits.max_failed_fraction` allows.
    """
    config, spark = run.config, run.spark
    with run.phase("check"):
        work = plan(spark, config)
        sync.check(config.output, work)
        identity = identity_of(spark, config, work.identity)
        following = config.output.mode == "sync"
        if following:
            identity = content_identity(identity)
        output = run.output(identity, part=work.part)
        output.check()
        output.check_ids(work.rows, work.id)
    if run.dry_run:
        run.say(f"{work.try_out()}; nothing was written")
        return

    with output.attempt():
        if following and isinstance(work, ModelWork):
            _follow(run, output, work)
        else:
            _resume(run, output, work)


def _resume(run: Run[ConfigT], output: Output, work: RowWork) -> None:
    """Do the rows that are not done."""
    with run.phase("plan"):
        todo, reused = output.resume(work.rows, work.id)
        todo, total = work.spread(todo)
    account = Account(run.spark)
    with run.phase(run.job), account.progress(total):
        output.write(work.run(todo, account.reports))
    done = {"reused": reused, _DONE[run.job]: total}
    _publish(run, output, work, account, expected=reused + total, done=done)


def _follow(run: Run[ConfigT], output: Output, work: ModelWork) -> None:
    """Do the rows whose content nobody has a result for; see `ember.embedding.sync`."""
    with run.phase("plan"):
        syncing = sync.Sync(output, work, run.config.output.retry_failed)
        todo, total = syncing.plan()
    changes = syncing.changes
    done = {"reused": changes.kept, _DONE[run.job]: total, **changes.told()}
    if syncing.nothing_to_do and _renewed(run, output, work, done):
        return
    account = Account(run.spark)
    with run.phase(run.job), account.progress(total):
        if total or not changes.rows:
            output.write(syncing.model_work().run(todo, account.reports))
    with run.phase("copy"):
        syncing.fill()
    _publish(run, output, work, account, expected=changes.rows, done=done, **syncing.told())


def _renewed(run: Run[ConfigT], output: Output, work: ModelWork, done: Mapping[str, int]) -> bool:
    """Leave the table that is published as it is, with a manifest of this run.

    False, and nothing is done, where it cannot stay: its files are to lie otherwise, too many of
    its rows failed, or the manifest cannot be replaced in one step.
    """
    config = run.config
    before = read_manifest(output.storage, output.path) or {}
    laid, given = before["config"]["output"], config.output.model_dump(mode="json")
    if any(laid.get(key) != given[key] for key in ("file_size", "sorted")):
        return False
    counts = {key: before["counts"][key] for key in _COUNTS if key in before["counts"]}
    rows, failed = done["reused"], counts["status"].get("error", 0)
    if too_many(failed, rows, config.limits.max_failed_fraction):
        return False
    told = run.manifest(
        **origins.told(work.rows), counts={**counts, **done}, rows_per_second=0.0, model_loads=0
    )
    if not output.renew({**{key: before[key] for key in _OF_TABLE if key in before}, **told}):
        return False
    run.say(f"{rows} rows, of which none has changed, stay in {output.shown}")
    return True


def _publish(
    run: Run[ConfigT],
    output: Output,
    work: RowWork,
    account: Account,
    *,
    expected: int,
    done: Mapping[str, int],
    **more: Any,
) -> None:
    """Publish what is staged: rows that stand for as many of the input as are expected."""
    config = run.config
    with run.phase("count"):
        counts = output.counts(expected)
        output.refuse_failures(counts, config.limits.max_failed_fraction)
        facts = work.describe(output)
    with run.phase("merge"):
        output.merge(config.output, [work.id], counts["rows"])
    output.publish(
        run.manifest(
            **facts,
            **origins.told(work.rows),
            **more,
            counts={**counts, **done},
            rows_per_second=run.rate(done[_DONE[run.job]], run.job),
            **account.summary(),
        )
    )
    run.say(
        f"{counts['rows']} rows {counts['status']}, {done['reused']} of them reused, in "
        f"{output.shown}"
    )
