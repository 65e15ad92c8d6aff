"""Find the k most similar corpus rows for each query, exactly or with a wanted recall."""

import sys
from collections.abc import Sequence

from ember import job
from ember.comparison import comparison, packing, search
from ember.job import Run
from ember.report import HIDDEN_PAGE, add_page, check_page, collect_search
from ember.settings.comparison import SearchConfig
from ember.spark import origins, tables
from ember.spark.classic import cores
from ember.spark.identity import identity_of


def run_search(run: Run[SearchConfig]) -> None:
    config, spark = run.config, run.spark
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
        if config.report:
            check_page(spark, config.report.queries, config.report.corpus)
    if run.dry_run:
        run.say("configuration and input are fine; nothing was written")
        return
    if output.finished:
        run.say(f"{output.shown} is there already, made of the same input and settings")
        return

    with output.attempt():
        with run.phase("pack"):
            compared = packing.prepare(
                queries,
                corpus,
                config.metric,
                output.shared,
                left_blocks=cores(spark),
                k=config.k,
                limits=config.limits,
            )
            comparison.refuse_rejected(spark, compared, output, config.limits.max_failed_fraction)
        with run.phase("search"):
            written = search.write_neighbors(spark, compared, output, config.k, config.exclude_self)
        rows = output.count()
        with run.phase("merge"):
            output.merge(config.output, ["query_id", "rank"], rows)
        approximate = config.mode == "approximate"
        facts = {
            **origins.told(queries, *([corpus] if corpus else [])),
            **compared.describe(),
            **(search.recall_facts(compared, config.recall) if approximate else {}),
            "work": written.describe(),
            "counts": {"rows": rows, "rejected": compared.rejected},
        }
        if config.report:
            with run.phase("page"):
                report = collect_search(output.staged(), config, queries, corpus)
                add_page(output, report, run.manifest(**facts), HIDDEN_PAGE)
        output.publish(run.manifest(**facts))
    run.say(f"{rows} neighbors of {compared.left.rows} queries in {output.shown}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("search", SearchConfig, run_search, arguments)


if __name__ == "__main__":
    sys.exit(main())
