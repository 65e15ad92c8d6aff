"""Find all pairs of rows that are similar enough, exactly, and the groups that they form."""

import sys
from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame

from ember import job
from ember.comparison import comparison, components, forecast, join, packing, sync, sync_join
from ember.comparison.comparison import Comparison
from ember.job import Run
from ember.report import HIDDEN_PAGE, add_page, check_page, collect_join
from ember.settings.comparison import JoinConfig
from ember.spark import origins, tables
from ember.spark.identity import identity_of
from ember.spark.publish import Output, read_manifest


def run_join(run: Run[JoinConfig]) -> None:
    config, spark, most = run.config, run.spark, run.config.limits.max_failed_fraction
    with run.phase("check"):
        left = tables.read_embeddings(spark, config.left, config.within)
        right = tables.read_embeddings(spark, config.right, config.within) if config.right else None
        comparison.check_within(left, right)
        join.check_threshold(config.threshold, config.metric)
        facts = comparison.identity("join", left, right)
        identity = identity_of(spark, config, facts)
        output = run.output(identity)
        output.check()
        kept = None
        if config.output.mode == "sync":
            kept = sync.kept_by(output, identity, left, right, job.versions())
        groups = components.output(spark, config, identity, run.run_id)
        if config.report:
            check_page(spark, config.report.left, config.report.right)
    if run.dry_run:
        run.say(
            f"configuration and input are fine; nothing was written{_foretold(config, left, right)}"
        )
        return
    if output.finished:
        if groups and not groups.finished:
            _group_again(run, output, groups)
        run.say(f"{output.shown} is there already, made of the same input and settings")
        return

    with output.attempt():
        update = None
        if kept:
            with run.phase("changes"):
                update = sync.begin(kept, left, right, config.metric, most)
        if update and update.whole is None:
            update.refuse_rejected(output, most)
            with run.phase("join"):
                work = sync_join.write_pairs(update, output, config)
            told, rejected = update.describe(), update.rejected
        else:
            compared, work = _whole(run, output, left, right)
            told, rejected = compared.describe(), compared.rejected
        rows = output.count()
        with run.phase("merge"):
            output.merge(config.output, ["left_id", "right_id"], rows)
        facts = {
            **origins.told(left, *([right] if right else [])),
            **told,
            "work": work,
            "counts": {"rows": rows, "rejected": rejected},
            **(update.keep() if update else {}),
        }
        if groups:
            _write_groups(run, output, groups, facts)
        if config.report:
            with run.phase("page"):
                grouped = tables.read(spark, groups.path) if groups else None
                report = collect_join(output.staged(), grouped, config, left, right)
                add_page(output, report, run.manifest(**facts), HIDDEN_PAGE)
        output.publish(run.manifest(**facts))
    run.say(f"{facts['counts']['rows']} pairs in {output.shown}")


def _foretold(config: JoinConfig, left: DataFrame, right: DataFrame | None) -> str:
    """What the run would take, to be put behind a sentence; nothing where it cannot be told."""
    if config.within:  # the rows of a sample have too few others of their group
        return ""
    found = forecast.forecast_join(left, right, config.metric, config.threshold)
    return f". {found.told()}" if found else ""


def _whole(
    run: Run[JoinConfig], output: Output, left: DataFrame, right: DataFrame | None
) -> tuple[Comparison, dict[str, int]]:
    """Stage the pairs of all rows; the packed tables, and what was done, for the manifest."""
    config = run.config
    with run.phase("pack"):
        compared = packing.prepare(
            left,
            right,
            config.metric,
            output.shared,
            fitter=join.basis_fitter(config.metric, config.threshold),
            limits=config.limits,
        )
        comparison.refuse_rejected(run.spark, compared, output, config.limits.max_failed_fraction)
    with run.phase("join"):
        limits = config.threshold, config.limits.max_pairs
        written = join.write_pairs(run.spark, compared, output, *limits)
    return compared, written.describe()


def _write_groups(
    run: Run[JoinConfig], output: Output, groups: Output, facts: dict[str, Any]
) -> None:
    """Publish the groups of the pairs that are staged; their counts go to the facts."""
    with run.phase("groups"), groups.attempt():
        groups.write(components.near_duplicates(output.staged(), f"{output.shared}/groups"))
        facts["counts"]["groups"] = components.summary(groups.staged())
        groups.publish(run.manifest(**facts))


def _group_again(run: Run[JoinConfig], output: Output, groups: Output) -> None:
    """Make the groups of pairs that are there, since those of the run that wrote them are gone."""
    pairs = output.published()
    told = read_manifest(output.storage, output.path) or {}
    with run.phase("groups"), groups.attempt():
        groups.write(components.near_duplicates(pairs, f"{groups.scratch}/rounds"))
        counts = {**told["counts"], "groups": components.summary(groups.staged())}
        groups.publish({**told, **run.manifest(counts=counts)})


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("join", JoinConfig, run_join, arguments)


if __name__ == "__main__":
    sys.exit(main())
