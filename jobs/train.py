"""Train a head on embeddings and labels: a model folder that `classify` loads."""

import sys
from collections.abc import Sequence

from ember import job
from ember.job import Run
from ember.settings.training import TrainConfig
from ember.spark import origins, tables
from ember.spark.heads import place_head
from ember.training import training, training_table


def train(run: Run[TrainConfig]) -> None:
    config, spark = run.config, run.spark
    with run.phase("check"):
        training.check_options(config, len(config.features))
        features = [tables.read_embeddings(spark, each) for each in config.features]
        labeled = tables.read_table(spark, config.labels)
        labels = training_table.select_labels(
            labeled, config.labels.id, config.labels.label, config.split
        )
        output = run.output({"job": "train"})
        output.check()
    if run.dry_run:
        run.say("configuration and input are fine; nothing was written")
        return

    with run.phase("join"):
        gathered = training_table.gather(
            features,
            labels,
            config.split,
            min_rows=config.labels.min_rows,
            max_failed_fraction=config.limits.max_failed_fraction,
        )
    try:
        with output.attempt():
            training.keep_failures(gathered, output, config.limits.max_failed_fraction)
            with run.phase("train"):
                head = training.fit_examples(gathered, config, config.features)
            with run.phase("predict"):
                if head.labels:
                    name = labeled.select(tables.column(labeled, config.labels.id)).columns[0]
                    output.write(training.held_out_predictions(head, gathered, name), "predictions")
                place_head(head, output)
            output.publish(
                run.manifest(
                    head=head.about,
                    fingerprint=head.fingerprint(),
                    dimension=head.dimension,
                    **origins.told(*features, labels),
                    counts=gathered.counts,
                )
            )
    finally:
        gathered.forget()
    run.say(f"{training.summary(head)}, in {output.path}")


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("train", TrainConfig, train, arguments)


if __name__ == "__main__":
    sys.exit(main())
