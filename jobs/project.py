"""Project embeddings: to fewer dimensions, to the vectors of another table, or by a saved map."""

import sys
from collections.abc import Sequence

from ember import job, tables
from ember.compare import alignment, projection
from ember.job import Run
from ember.publish import Output
from ember.settings.comparison import ProjectConfig
from ember.storage import Storage


def project(run: Run[ProjectConfig]) -> None:
    config, spark = run.config, run.spark
    source, ceiling = config.input, config.limits.max_failed_fraction
    with run.phase("check"):
        projection.check_choice(
            dimension=config.dimension,
            explained=config.explained,
            like=config.like,
            align=config.align,
            projection=config.projection,
        )
        rows = tables.read_embeddings(spark, source)
        table = tables.read_table(spark, source)
        output = Output(spark, config.output.path, config.output.mode, {"job": "project"})
        output.check()
        folder = config.projection or config.save or f"{output.path}.projection"
        if config.projection is None and config.output.mode == "fail":
            projection.check_free(spark, folder)
        fitted, target, pairs, dimension = None, None, None, config.dimension
        read = [table]
        if config.projection is not None:
            fitted = projection.load_projection(spark, folder)
            projection.check_length(table, source.embedding, fitted, ceiling)
        elif config.like is not None:
            other = tables.read_table(spark, config.like)
            dimension = projection.output_dimension(other, config.like.embedding, "like")
        elif config.align is not None:
            others = tables.read_embeddings(spark, config.align.to)
            read.append(others)
            pairs = alignment.pair(rows, others, ceiling)
    if run.dry_run:
        run.say("configuration and input are fine; nothing was written")
        return

    if pairs is not None and config.align is not None:
        with run.phase("fit"):
            fitted, target = pairs.fit(
                config.align.method,
                dimension=config.align.dimension,
                penalty=config.align.penalty,
            )
    elif fitted is None:
        with run.phase("fit"):
            fitted = projection.fit_projection(
                table,
                dimension=dimension,
                explained=config.explained,
                center=config.center,
                whiten=config.whiten,
                embedding=source.embedding,
                max_failed_fraction=ceiling,
            )
    with output.attempt():
        with run.phase("project"):
            output.write(projection.projected(table, fitted, source.embedding))
            count = output.count()
            rejected = table.count() - count
            bad = projection.rejected_rows(table, fitted, source.id, source.embedding)
            output.refuse_rejected(bad, rejected, count + rejected, ceiling)
        if config.projection is None:
            projection.save_projection(spark, fitted, folder, target)
        output.publish(
            run.manifest(
                input_files=sorted({file for each in read for file in tables.files(each)}),
                dimension=fitted.output_dimension,
                projection={"folder": Storage(spark).qualify(folder), **fitted.summary()},
                # Of a row's vector, relative to its largest value, between two runs.
                tolerance=projection.TOLERANCE,
                counts={"rows": count, "rejected": rejected, **(pairs.counts() if pairs else {})},
                rows_per_second=run.rate(count, "project"),
            )
        )
    run.say(f"{count} rows of {fitted.output_dimension} dimensions in {output.path}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("project", ProjectConfig, project, arguments)


if __name__ == "__main__":
    sys.exit(main())
