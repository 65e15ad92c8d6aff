"""Find all pairs of rows that are similar enough, exactly."""

import sys
from collections.abc import Sequence

from ember import comparison, job, tables
from ember.job import Run
from ember.publish import Output
from ember.settings import JoinConfig


def join(run: Run[JoinConfig]) -> None:
    config, spark = run.config, run.spark
    with run.phase("check"):
        left = tables.read_embeddings(spark, config.left)
        right = tables.read_embeddings(spark, config.right) if config.right else None
        comparison.check_threshold(config.threshold, config.metric)
        output = Output(spark, config.output.path, config.output.mode, {"job": "join"})
        output.check()
    if run.dry_run:
        run.say("configuration and input are fine; nothing was written")
        return

    with output.attempt():
        with run.phase("pack"):
            compared = comparison.prepare(
                left,
                right,
                config.metric,
                output.scratch,
                max_failed_fraction=config.limits.max_failed_fraction,
            )
            comparison.refuse_rejected(spark, compared, output, config.limits.max_failed_fraction)
        with run.phase("join"):
            output.write(compared.pairs(spark, config.threshold))
        rows = output.count()
        output.publish(
            run.manifest(
                input_files=tables.files(left) + (tables.files(right) if right else []),
                **compared.describe(),
                counts={"rows": rows, "rejected": compared.rejected},
            )
        )
    run.say(f"{rows} pairs in {output.path}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("join", JoinConfig, join, arguments)


if __name__ == "__main__":
    sys.exit(main())
