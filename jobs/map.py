"""Make a map of embeddings: a sample in two dimensions, and a page to look at it."""

import sys
from collections.abc import Sequence
from functools import partial

from ember import job
from ember.errors import InvalidInput
from ember.job import Run
from ember.maps import points
from ember.maps.sources import plan
from ember.report import add_map, check_map_packages, collect_map
from ember.settings.maps import MapConfig
from ember.spark import origins
from ember.spark.dimensions import dimension_of
from ember.spark.paths import literal


def make_map(run: Run[MapConfig]) -> None:
    config, spark = run.config, run.spark
    ceiling = config.limits.max_failed_fraction
    with run.phase("check"):
        check_map_packages()
        work = plan(spark, config)
        output = run.output({"job": "map"})
        output.check()
    if run.dry_run:
        run.say("configuration and input are fine; nothing was written")
        return

    with output.attempt():
        with run.phase("sample"):
            dimension = dimension_of(work.rows, "the table", ceiling)
            drawn = points.draw(work, config.metric, dimension, config.sample, config.seed)
            bad = partial(points.rejected_rows, work, config.metric, dimension)
            total = drawn.usable + drawn.rejected
            output.refuse_rejected(bad, drawn.rejected, total, ceiling)
            if drawn.last is None:
                raise InvalidInput("the table has no vectors to make a map of")
        with run.phase("lay out"):
            laid = points.lay_out(work, drawn, config.metric, dimension, config.seed)
            laid.write.parquet(f"{output.scratch}/points")
        with run.phase("color"):
            placed = spark.read.parquet(literal(f"{output.scratch}/points"))
            points.colored(work, placed).write.parquet(f"{output.scratch}/colored")
            table = spark.read.parquet(literal(f"{output.scratch}/colored"))
            output.write(points.published(work, table), "coordinates")
        with run.phase("page"):
            page = collect_map(table, work.colors, work.content)
        facts = {
            **origins.told(*work.read),
            "dimension": dimension,
            "counts": {
                "rows": drawn.rows,
                "usable": drawn.usable,
                "rejected": drawn.rejected,
                "reasons": drawn.reasons,
                "not_shown": dict(page.told.missing),
            },
        }
        add_map(output, page, run.manifest(**facts))
        output.publish(run.manifest(**facts))
    run.say(f"{drawn.rows} of {drawn.usable} rows in {output.path}/map.html")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("map", MapConfig, make_map, arguments)


if __name__ == "__main__":
    sys.exit(main())
