"""Fine-tune a backbone on a labeled corpus: a model folder for `embed` and `classify`."""

import sys
from collections.abc import Sequence

from ember import job
from ember.job import Run
from ember.settings.training import FinetuneConfig
from ember.spark import origins
from ember.spark.identity import identity_of
from ember.training import finetuning
from ember.training.model_output import GROWS_IN, ModelOutput


def finetune(run: Run[FinetuneConfig]) -> None:
    config, spark = run.config, run.spark
    with run.phase("check"):
        work = finetuning.plan(spark, config)
        identity = identity_of(spark, config, work.identity)
        output = run.output(identity, new=GROWS_IN)
        output.check()
    if run.dry_run:
        device = work.try_out()
        run.say(f"configuration, input and {work.spec.name} on {device} are fine; nothing written")
        return
    if output.finished:
        run.say(f"the model at {output.path} is complete; nothing was done")
        return

    model = ModelOutput(output)
    with model.attempt():
        with run.phase("stage"):
            staged = work.stage_rows(model)
        with run.phase("train"):
            told = work.train(model, staged["labels"])
        output.publish(
            run.manifest(
                model=work.spec.describe(),
                labels=staged["labels"],
                counts=staged["counts"],
                **origins.told(work.corpus.rows),
                **told,
            )
        )
    run.say(f"{finetuning.summary(told)}, in {output.path}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("finetune", FinetuneConfig, finetune, arguments)


if __name__ == "__main__":
    sys.exit(main())
