"""Judge predictions, neighbors or scores against the truth: figures with their intervals."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from ember import job
from ember.evaluation.running import judge, read_inputs
from ember.job import Run
from ember.report import add_page, check_page, collect, map_link
from ember.settings.evaluation import EvaluateConfig


def evaluate(run: Run[EvaluateConfig]) -> None:
    config, spark = run.config, run.spark
    with run.phase("check"):
        if config.report:
            check_page(spark, config.content, config.query_content)
        inputs = read_inputs(spark, config)
        output = run.output({"job": "evaluate"})
        output.check()
        link = map_link(output, config.map)
    if run.dry_run:
        run.say("configuration and input are fine; nothing was written")
        return

    with output.attempt(), ExitStack() as after:
        with run.phase("judge"):
            report = judge(config, inputs)
            after.callback(report.release)
            report.refuse_failures(config.limits.max_failed_fraction, output.keep_failures)
        with run.phase("write"):
            for name, table in report.all_tables(spark).items():
                output.write(table, name)
        facts = {
            **inputs.origins(),
            "counts": {"rows": report.total, "failed": report.failed},
            "issues": [vars(issue) for issue in report.issues],
            "figures": report.headline(),
            "unmet": report.unmet(config.require),
            **({"tests": report.tests} if report.tests else {}),
        }
        if config.report:
            with run.phase("page"):
                page = collect(report, config.content, config.query_content)
                add_page(output, page, run.manifest(**facts), map=link)
        output.publish(run.manifest(**facts))
    # The report of a run that falls short is what one needs to see why.
    report.refuse_shortfall(config.require, output.path)
    run.say(f"{len(report.figures)} figures of {report.total} rows in {output.path}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("evaluate", EvaluateConfig, evaluate, arguments)


if __name__ == "__main__":
    sys.exit(main())
