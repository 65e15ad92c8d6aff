"""Label a corpus of images or texts: the best labels of each row with their scores."""

import sys
from collections.abc import Sequence

from ember import job
from ember.embedding import classification
from ember.job import Run
from ember.row_job import run_row_job
from ember.settings.training import ClassifyConfig


def classify(run: Run[ClassifyConfig]) -> None:
    run_row_job(run, classification.plan)


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("classify", ClassifyConfig, classify, arguments)


if __name__ == "__main__":
    sys.exit(main())
