"""Project embeddings to fewer dimensions: by principal components fitted here, or a saved map."""

import sys
from collections.abc import Sequence

from ember import job, tables
from ember.compare import projection
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
            projection=config.projection,
        )
        tables.read_embeddings(spark, source)
        table = tables.read_table(spark, source)
        output = Output(spark, config.output.path, config.output.mode, {"job": "project"})
        output.check()
        folder = config.projection or config.save or f"{output.path}.projection"
        if config.projection is None and config.output.mode == "fail":
            projection.check_free(spark, folder)
        fitted, dimension = None, config.dimension
        if config.projection is not None:
            fitted = projection.load_projection(spark, folder)
            projection.check_length(table, source.embedding, fitted, ceiling)
        elif config.like is not None:
            other = tables.read_table(spark, config.like)
            dimension = projection.output_dimension(other, config.like.embedding, "like")
    if run.dry_run:
        run.say("configuration and input are fine; nothing was written")
        return

    if fitted is None:
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
            rows = output.count()
            rejected = table.count() - rows
            bad = projection.rejected_rows(table, fitted, source.id, source.embedding)
            output.refuse_rejected(bad, rejected, rows + rejected, ceiling)
        if config.projection is None:
            projection.save_projection(spark, fitted, folder)
        output.publish(
            run.manifest(
                input_files=tables.files(table),
                dimension=fitted.output_dimension,
                projection={"folder": Storage(spark).qualify(folder), **fitted.summary()},
                # Of a row's vector, relative to its largest value, between two runs.
                tolerance=projection.TOLERANCE,
                counts={"rows": rows, "rejected": rejected},
                rows_per_second=run.rate(rows, "project"),
            )
        )
    run.say(f"{rows} rows of {fitted.output_dimension} dimensions in {output.path}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("project", ProjectConfig, project, arguments)


if __name__ == "__main__":
    sys.exit(main())
