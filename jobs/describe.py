"""Have a model write a text for each row: from a prompt, from an image, or from both."""

import sys
from collections.abc import Sequence

from ember import job
from ember.embedding import description
from ember.job import Run
from ember.row_job import run_row_job
from ember.settings.description import DescribeConfig


def describe(run: Run[DescribeConfig]) -> None:
    run_row_job(run, description.plan)


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("describe", DescribeConfig, describe, arguments)


if __name__ == "__main__":
    sys.exit(main())
