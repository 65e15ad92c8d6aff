"""Lineage on request: a run's events for OpenLineage, sent by its own client as its settings say.

It is asked for where the environment has settings of that client's: OPENLINEAGE_URL,
OPENLINEAGE_CONFIG or OPENLINEAGE__TRANSPORT…; only then is its library imported. What cannot be
sent is a warning: no run fails for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pyspark.sql import SparkSession

from ember.redaction import redact
from ember.settings.config import Config
from ember.spark import classic, datasets
from ember.spark.datasets import Dataset
from ember.spark.destinations import Destination
from ember.spark.explain import explain
from ember.spark.parent_run import ParentRun

__all__ = ["Lineage"]

_log = logging.getLogger(__name__)
_PREFIX = "OPENLINEAGE__TRANSPORT"
_PRODUCER = "urn:ember-spark"


class Lineage:
    """What is told of one run, and of whose part it is."""

    def __init__(
        self, spark: SparkSession, name: str, run_id: str, parent: ParentRun | None
    ) -> None:
        """name: of the job. parent: the run that has started this one."""
        namespace = classic.setting(spark, "spark.openlineage.namespace", "default")
        namespace = os.environ.get("OPENLINEAGE_NAMESPACE", namespace)
        self._run = ParentRun(namespace, name, str(uuid4()))
        self._spark, self._run_id, self._parent = spark, run_id, parent

    def of_step(self, name: str, run_id: str) -> Lineage:
        """That of a step of this run, which is a pipeline's."""
        return Lineage(self._spark, f"{self._run.job}.{name}", run_id, self._run)

    @contextmanager
    def events(self, config: Config, place: Destination) -> Iterator[None]:
        """START before the block, and COMPLETE, FAIL or ABORT after it."""
        if not _asked_for():
            yield
            return
        send = _Sender().send
        send(lambda: self._event("START", *self._data(config, place, looked_at=False)))
        try:
            yield
        except BaseException as error:
            how = "FAIL" if isinstance(error, Exception) else "ABORT"
            why = str(explain(error))
            send(lambda: self._event(how, *self._data(config, place, looked_at=False), why))
            raise
        send(lambda: self._event("COMPLETE", *self._data(config, place, looked_at=True)))

    def _data(
        self, config: Config, place: Destination, *, looked_at: bool
    ) -> tuple[list[Dataset], list[Dataset]]:
        read = datasets.read(self._spark, config, looked_at=looked_at)
        written = datasets.written(self._spark, config, place, looked_at=looked_at)
        return [*read], [*written]

    def _event(
        self, kind: str, read: Sequence[Dataset], written: Sequence[Dataset], error: str = ""
    ) -> Any:
        from openlineage.client import event_v2 as ol

        return ol.RunEvent(
            eventType=ol.RunState[kind],
            eventTime=datetime.now(UTC).isoformat(),
            run=ol.Run(self._run.run_id, self._run_facets(error)),
            job=ol.Job(self._run.namespace, self._run.job, _job_facets()),
            inputs=[ol.InputDataset(*_name(each), facets=_facets(each)) for each in read],
            outputs=[
                ol.OutputDataset(*_name(each), facets=_facets(each), outputFacets=_numbers(each))
                for each in written
            ],
            producer=_PRODUCER,
        )

    def _run_facets(self, error: str) -> dict[str, Any]:
        from openlineage.client import facet_v2 as facets

        tag = facets.tags_run.TagsRunFacetFields("ember_run_id", self._run_id, "EMBER")
        engine = facets.processing_engine_run.ProcessingEngineRunFacet
        told: dict[str, Any] = {
            "tags": facets.tags_run.TagsRunFacet([tag]),
            "processing_engine": engine(self._spark.version, "spark"),
        }
        if self._parent:
            of, parent = facets.parent_run, self._parent
            told["parent"] = of.ParentRunFacet(
                of.Run(parent.run_id), of.Job(parent.namespace, parent.job)
            )
        if error:
            told["errorMessage"] = facets.error_message_run.ErrorMessageRunFacet(
                redact(error), "python"
            )
        return told


class _Sender:
    """Sends events until one cannot be sent; a server that is away is not waited for again."""

    def __init__(self) -> None:
        self._client: Any = None
        self._gave_up = False

    def send(self, event: Callable[[], Any]) -> None:
        if self._gave_up:
            return
        try:
            if self._client is None:
                self._client = self._made()
            self._client.emit(event())
        except Exception as error:
            self._gave_up = True
            _log.warning("no lineage is told of this run: %s", redact(str(error)))

    @staticmethod
    def _made() -> Any:
        try:
            from openlineage.client import OpenLineageClient
            from openlineage.client.facet_v2 import set_producer
        except ImportError:
            raise ModuleNotFoundError(
                "OPENLINEAGE… is set in the environment, and openlineage-python is not installed "
                "here (pip install 'ember-spark[lineage]')"
            ) from None
        set_producer(_PRODUCER)
        return OpenLineageClient()


def _asked_for() -> bool:
    if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    given = {name for name, value in os.environ.items() if value}
    named = given & {"OPENLINEAGE_URL", "OPENLINEAGE_CONFIG"}
    return bool(named) or any(name.startswith(_PREFIX) for name in given)


def _job_facets() -> dict[str, Any]:
    from openlineage.client.facet_v2 import job_type_job

    return {"jobType": job_type_job.JobTypeJobFacet("BATCH", "EMBER", "JOB")}


def _name(data: Dataset) -> tuple[str, str]:
    return data.namespace, data.name


def _facets(data: Dataset) -> dict[str, Any]:
    from openlineage.client import facet_v2 as facets

    told: dict[str, Any] = {}
    if data.schema is not None:
        of = facets.schema_dataset
        fields = [of.SchemaDatasetFacetFields(name, kind) for name, kind in data.schema]
        told["schema"] = of.SchemaDatasetFacet(fields)
    if data.table:
        link = facets.symlinks_dataset.Identifier(*data.table, "TABLE")
        told["symlinks"] = facets.symlinks_dataset.SymlinksDatasetFacet([link])
    if data.version:
        told["version"] = facets.dataset_version_dataset.DatasetVersionDatasetFacet(data.version)
    return told


def _numbers(data: Dataset) -> dict[str, Any]:
    from openlineage.client.facet_v2 import output_statistics_output_dataset as of

    if data.numbers is None:
        return {}
    found = data.numbers
    statistics = of.OutputStatisticsOutputDatasetFacet(found.rows, found.bytes, found.files)
    return {"outputStatistics": statistics}
