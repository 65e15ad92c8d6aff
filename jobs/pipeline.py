"""Run several jobs as the steps of one configuration, in one Spark application."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from ember import job
from ember.job import Run
from ember.jobs import (
    classify,
    dedup,
    describe,
    embed,
    evaluate,
    export,
    finetune,
    join,
    project,
    search,
    train,
)
from ember.jobs import map as map_job
from ember.pipeline.checking import check_steps
from ember.pipeline.planning import plan
from ember.pipeline.publishing import add_page, own_output
from ember.pipeline.running import run_steps, try_steps
from ember.report import check_packages
from ember.settings.comparison import ExportConfig, JoinConfig, ProjectConfig, SearchConfig
from ember.settings.config import Config
from ember.settings.deduplication import DedupConfig
from ember.settings.description import DescribeConfig
from ember.settings.embedding import EmbedConfig
from ember.settings.evaluation import EvaluateConfig
from ember.settings.maps import MapConfig
from ember.settings.pipeline import PipelineConfig
from ember.settings.training import ClassifyConfig, FinetuneConfig, TrainConfig

JOBS: dict[str, tuple[type[Config], Callable[[Run[Any]], None]]] = {
    "classify": (ClassifyConfig, classify.classify),
    "dedup": (DedupConfig, dedup.dedup),
    "describe": (DescribeConfig, describe.describe),
    "embed": (EmbedConfig, embed.embed),
    "evaluate": (EvaluateConfig, evaluate.evaluate),
    "export": (ExportConfig, export.export_index),
    "finetune": (FinetuneConfig, finetune.finetune),
    "join": (JoinConfig, join.run_join),
    "map": (MapConfig, map_job.make_map),
    "project": (ProjectConfig, project.project),
    "search": (SearchConfig, search.run_search),
    "train": (TrainConfig, train.train),
}


def pipeline(run: Run[PipelineConfig]) -> None:
    config, spark = run.config, run.spark
    bodies = {name: body for name, (_, body) in JOBS.items()}
    with run.phase("check"):
        if config.report:
            check_packages()
        work = plan(config, {name: kind for name, (kind, _) in JOBS.items()})
        output = own_output(spark, work.output, run.run_id)
        check_steps(spark, work)
    if run.dry_run:
        try_steps(run, work, bodies)
        run.say("configuration and input are fine as far as they are there; nothing was written")
        return

    done = run_steps(run, work, bodies)
    facts = {"steps": done.describe()}
    with output.attempt():
        if config.report:
            with run.phase("page"):
                add_page(spark, output, done.outcomes, run.manifest(**facts))
        output.publish(run.manifest(**facts))
    # What was done, and what was not, is published first: one needs it to see why.
    done.refuse_failure()
    run.say(f"{done.summary()}, in {output.path}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("pipeline", PipelineConfig, pipeline, arguments)


if __name__ == "__main__":
    sys.exit(main())
