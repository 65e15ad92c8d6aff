"""Embed a corpus of images or texts: Parquet in, Parquet out, every row accounted for."""

import sys
from collections.abc import Sequence

from ember import job
from ember.embedding import embedding
from ember.job import Run
from ember.settings.embedding import EmbedConfig
from ember.spark import gpu, models, tables, tasks
from ember.spark.accounting import Account
from ember.spark.identity import identity_of
from ember.spark.publish import Output


def embed(run: Run[EmbedConfig]) -> None:
    config, spark = run.config, run.spark
    with run.phase("check"):
        chunking = embedding.chunking_of(config.chunk, config.input.modality)
        columns = embedding.columns_of(chunking)
        corpus = tables.read_corpus(spark, config.input, *columns)
        gpu.check(spark)
        model = models.resolve(
            config.model,
            config.input.modality,
            config.limits.max_pixels,
            max_bytes=config.limits.max_bytes,
            gpu=gpu.scheduled(spark),
        )
        facts = embedding.identity(corpus, model, chunking)
        part = "chunk" if "chunk" in columns else None
        output = run.output(Output, identity_of(spark, config, facts), part=part)
        output.check()
    if run.dry_run:
        device = tasks.try_model(spark, model, corpus.paths, chunking)
        run.say(f"configuration, input and {model.name} on {device} are fine; nothing was written")
        return

    with output.attempt():
        with run.phase("plan"):
            todo, reused = output.resume(corpus.rows, corpus.id)
            todo, total = embedding.spread(todo, model.modality, config.limits.rows_per_task)
        account = Account(spark)
        with run.phase("embed"), account.progress(total):
            reports = account.reports
            output.write(embedding.embed_corpus(todo, corpus.paths, model, reports, chunking))

        with run.phase("count"):
            counts = output.counts(expected=reused + total)
            output.refuse_failures(counts, config.limits.max_failed_fraction)
            dimension = tables.dimension(output.staged())
        output.publish(
            run.manifest(
                model=model.describe(),
                dimension=dimension,
                input_files=tables.files(corpus.rows),
                counts={**counts, "reused": reused, "embedded": total},
                rows_per_second=run.rate(total, "embed"),
                **account.summary(),
            )
        )
    run.say(f"{counts['rows']} rows {counts['status']}, {reused} of them reused, in {output.path}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("embed", EmbedConfig, embed, arguments)


if __name__ == "__main__":
    sys.exit(main())
