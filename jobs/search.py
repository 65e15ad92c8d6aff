"""Find the k most similar corpus rows for each query, exactly or with a measured recall."""

import sys
from collections.abc import Sequence

from ember import approximate, comparison, job, tables
from ember.approximate import Approximate
from ember.comparison import Comparison
from ember.job import Run
from ember.publish import Output
from ember.settings import SearchConfig


def search(run: Run[SearchConfig]) -> None:
    config, spark = run.config, run.spark
    with run.phase("check"):
        queries = tables.read_embeddings(spark, config.queries)
        corpus = tables.read_embeddings(spark, config.corpus) if config.corpus else None
        output = Output(spark, config.output.path, config.output.mode, {"job": "search"})
        output.check()
    if run.dry_run:
        run.say("configuration and input are fine; nothing was written")
        return

    with output.attempt():
        with run.phase("pack"):
            compared = comparison.prepare(
                queries,
                corpus,
                config.metric,
                output.scratch,
                left_blocks=approximate.wanted_tasks(spark, config.mode),
                max_failed_fraction=config.limits.max_failed_fraction,
            )
            comparison.refuse_rejected(spark, compared, output, config.limits.max_failed_fraction)
        found: Comparison | Approximate = compared
        if config.mode == "approximate":
            with run.phase("measure recall"):
                found = approximate.plan(
                    spark, compared, config.k, config.recall, config.exclude_self
                )
        with run.phase("search"):
            output.write(found.top_k(spark, config.k, config.exclude_self))
        rows = output.count()
        output.publish(
            run.manifest(
                input_files=tables.files(queries) + (tables.files(corpus) if corpus else []),
                **found.describe(),
                counts={"rows": rows, "rejected": compared.rejected},
            )
        )
    run.say(f"{rows} neighbors of {compared.left.rows} queries in {output.path}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("search", SearchConfig, search, arguments)


if __name__ == "__main__":
    sys.exit(main())
