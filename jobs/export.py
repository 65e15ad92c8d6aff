"""Write a corpus table as a flat faiss index with the map of its ids."""

import sys
from collections.abc import Sequence

from ember import job
from ember.comparison import export
from ember.job import Run
from ember.settings.comparison import ExportConfig
from ember.spark import origins, tables


def export_index(run: Run[ExportConfig]) -> None:
    config, spark = run.config, run.spark
    with run.phase("check"):
        rows = tables.read_embeddings(spark, config.corpus)
        export.check_faiss()
        output = run.output({"job": "export"})
        output.check()
    if run.dry_run:
        run.say("configuration and input are fine; nothing was written")
        return

    with output.attempt():
        with run.phase("export"):
            facts = export.stage_index(
                rows, config.metric, output, config.limits.max_failed_fraction
            )
        output.publish(run.manifest(**origins.told(rows), **facts))
    run.say(f"{facts['counts']['rows']} rows in {output.path}/index.faiss")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("export", ExportConfig, export_index, arguments)


if __name__ == "__main__":
    sys.exit(main())
