"""Embed a corpus of images or texts: Parquet in, Parquet out, every row accounted for."""

import sys
from collections.abc import Sequence

from ember import job
from ember.embedding import embedding
from ember.job import Run
from ember.row_job import run_row_job
from ember.settings.embedding import EmbedConfig


def embed(run: Run[EmbedConfig]) -> None:
    run_row_job(run, embedding.plan)


def main(arguments: Sequence[str] | None = None) -> int:
    return job.main("embed", EmbedConfig, embed, arguments)


if __name__ == "__main__":
    sys.exit(main())
