"""Settings of a session that hold for a while, and are then as the user had them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyspark.sql import SparkSession

from ember.spark.older_versions import settings_given

__all__ = ["overridden", "restore"]


@contextmanager
def overridden(spark: SparkSession, settings: Mapping[str, str]) -> Iterator[None]:
    """Have the session go by these settings within the block."""
    given = settings_given(spark)
    before = {key: given.get(key) for key in settings}
    try:
        for key, value in settings.items():
            spark.conf.set(key, value)
        yield
    finally:
        restore(spark, before)


def restore(spark: SparkSession, before: Mapping[str, str | None]) -> None:
    """Set what was set before, and unset what was not (None)."""
    for key, value in before.items():
        if value is None:
            spark.conf.unset(key)
        else:
            spark.conf.set(key, value)
