"""Project embeddings: to fewer dimensions, to another table's vectors, or by a saved map."""

import sys
from collections.abc import Sequence
from functools import partial

from ember import job
from ember.comparison import projection
from ember.comparison.mapping import plan
from ember.job import Run
from ember.settings.comparison import ProjectConfig
from ember.spark import origins, places
from ember.spark.publish import Output
from ember.spark.storage import Storage


def project(run: Run[ProjectConfig]) -> None:
    config, spark = run.config, run.spark
    embedding, ceiling = config.input.embedding, config.limits.max_failed_fraction
    with run.phase("check"):
        work = plan(spark, config)
        output = run.output({"job": "project"})
        output.check()
        folder = config.projection or config.save or f"{output.path}.projection"
        saved: Output | None = None
        if config.projection is None:
            places.check_config(Storage(spark), config, save=folder)
            saved = projection.projection_output(spark, folder, config.output.mode, run.run_id)
    if run.dry_run:
        run.say("configuration and input are fine; nothing was written")
        return

    with run.phase("fit"):
        fitted, target = work.fit()
    with output.attempt():
        with run.phase("project"):
            output.write(projection.projected(work.table, fitted, embedding))
            count = output.count()
            rejected = work.table.count() - count
            key = config.input.id
            bad = partial(projection.rejected_rows, work.table, fitted, key, embedding)
            output.refuse_rejected(bad, rejected, count + rejected, ceiling)
        facts = run.manifest(
            **origins.told(*work.read),
            dimension=fitted.output_dimension,
            projection={"folder": Storage(spark).qualify(folder), **fitted.summary()},
            # Of a row's vector, relative to its largest value, between two runs.
            tolerance=projection.TOLERANCE,
            counts={"rows": count, "rejected": rejected, **work.counts()},
            rows_per_second=run.rate(count, "project"),
        )
        if saved:
            with saved.attempt():
                projection.stage_projection(saved, fitted, target)
                saved.publish(facts)
        output.publish(facts)
    run.say(f"{count} rows of {fitted.output_dimension} dimensions in {output.shown}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("project", ProjectConfig, project, arguments)


if __name__ == "__main__":
    sys.exit(main())
