"""The run of a scheduler's that started this one, as OpenLineage's integrations hand it on."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass
from uuid import UUID

from pyspark.sql import SparkSession

from ember.spark import classic

__all__ = ["ParentRun", "parent_run"]

_log = logging.getLogger(__name__)
_SETTING, _VARIABLE = "spark.openlineage.parent", "OPENLINEAGE_PARENT_ID"


@dataclass(frozen=True)
class ParentRun:
    """A run of a job, such as a task of a DAG; run_id is a UUID."""

    namespace: str
    job: str
    run_id: str

    def describe(self) -> dict[str, str]:
        """For the manifest."""
        return asdict(self)


def parent_run(spark: SparkSession) -> ParentRun | None:
    """What spark.openlineage.parent… say, or NAMESPACE/JOB/RUN in OPENLINEAGE_PARENT_ID.

    None where nothing does, or with a warning where it is no such thing: no run fails for it.
    """
    where = f"{_SETTING}RunId"
    if run_id := classic.setting(spark, where):
        namespace = classic.setting(spark, f"{_SETTING}JobNamespace", "default")
        parts = [namespace, classic.setting(spark, f"{_SETTING}JobName"), run_id]
    elif given := os.environ.get(_VARIABLE):
        where, parts = _VARIABLE, given.rsplit("/", 2)  # a namespace that is a URI has slashes
    else:
        return None
    try:
        namespace, job, run_id = parts
        return ParentRun(namespace, job, str(UUID(run_id)))
    except ValueError:
        _log.warning("%s names no run by a UUID; this run is told of without a parent", where)
        return None
