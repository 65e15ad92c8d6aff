"""Find the k most similar corpus rows for each query, exactly or with a wanted recall."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext

from pyspark.sql import DataFrame

from ember import job
from ember.comparison import comparison, packing, search, sync, sync_search
from ember.comparison.comparison import Comparison
from ember.comparison.index import KeptIndex
from ember.comparison.sync import Sync
from ember.job import Run
from ember.report import HIDDEN_PAGE, add_page, check_page, collect_search
from ember.settings.comparison import SearchConfig
from ember.spark import origins, tables
from ember.spark.classic import cores
from ember.spark.identity import identity_of
from ember.spark.publish import Output


def run_search(run: Run[SearchConfig]) -> None:
    config, spark, most = run.config, run.spark, run.config.limits.max_failed_fraction
    with run.phase("check"):
        queries = tables.read_embeddings(spark, config.queries, config.within)
        corpus = (
            tables.read_embeddings(spark, config.corpus, config.within) if config.corpus else None
        )
        comparison.check_within(queries, corpus)
        if config.exclude_self:
            comparison.check_own(queries, corpus)
        facts = comparison.identity("search", queries, corpus)
        identity = identity_of(spark, config, facts)
        output = run.output(identity)
        output.check()
        index = KeptIndex.of(spark, config, corpus)
        kept = None
        if config.output.mode == "sync":
            kept = sync.kept_by(output, identity, queries, corpus, job.versions())
        if config.report:
            check_page(spark, config.report.queries, config.report.corpus)
    if run.dry_run:
        more = f"; the index would be {index.words}" if index else ""
        run.say(f"configuration and input are fine; nothing was written{more}")
        return
    if output.finished:
        run.say(f"{output.shown} is there already, made of the same input and settings")
        return

    with output.attempt(), index.lent() if index else nullcontext():
        update = None
        if kept:
            with run.phase("changes"):
                update = sync.begin(kept, queries, corpus, config.metric, most)
        if update and update.whole is None:
            update.refuse_rejected(output, most)
            with run.phase("search"):
                work = sync_search.write_changed(update, output, config)
            told, rejected, asked = update.describe(), update.rejected, update.left.usable
        else:
            compared, work = _whole(run, output, queries, corpus, update, index=index)
            told, rejected, asked = compared.describe(), compared.rejected, compared.left.rows
        rows = output.count()
        with run.phase("merge"):
            output.merge(config.output, ["query_id", "rank"], rows)
        approximate = config.mode == "approximate"
        facts = {
            **origins.told(queries, *([corpus] if corpus else [])),
            **told,
            **(search.recall_facts(asked, config.recall) if approximate else {}),
            **(index.describe() if index else {}),
            "work": work,
            "counts": {"rows": rows, "rejected": rejected},
            **(update.keep() if update else {}),
        }
        if config.report:
            with run.phase("page"):
                report = collect_search(output.staged(), config, queries, corpus)
                add_page(output, report, run.manifest(**facts), HIDDEN_PAGE)
        output.publish(run.manifest(**facts))
    run.say(f"{rows} neighbors of {asked} queries in {output.shown}")


def _whole(
    run: Run[SearchConfig],
    output: Output,
    queries: DataFrame,
    corpus: DataFrame | None,
    update: Sync | None,
    *,
    index: KeptIndex | None,
) -> tuple[Comparison, dict[str, int]]:
    """Stage the neighbors of all queries; the packed tables, and what was done, for the manifest.

    update: has kept what brings the output up to date later on.
    """
    config, most = run.config, run.config.limits.max_failed_fraction
    ready = None
    if index:
        with run.phase("index"):
            ready = index.bring_up(run.run_id, output.scratch, most)
    with run.phase("pack"):
        compared = packing.prepare(
            queries,
            None if ready else corpus,
            config.metric,
            output.shared,
            left_blocks=cores(run.spark),
            k=sync_search.places(config.k) if update else config.k,
            index=ready,
            limits=config.limits,
        )
        comparison.refuse_rejected(run.spark, compared, output, most)
    with run.phase("search"):
        if update:
            return compared, sync_search.write_whole(update, output, compared, config)
        written = search.write_neighbors(run.spark, compared, output, config.k, config.exclude_self)
    return compared, written.describe()


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("search", SearchConfig, run_search, arguments)


if __name__ == "__main__":
    sys.exit(main())
