"""From a configuration to facts, and from facts to findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from pyspark.sql import SparkSession

from ember.diagnosis import programs, resources, surroundings
from ember.diagnosis.facts import Facts, Finding, Need
from ember.diagnosis.gathering import Answers, Silence, ask, driver, required, slots
from ember.diagnosis.probes import Probes
from ember.settings.embedding import ModelConfig
from ember.spark import classic, gpu, java_names, runtimes
from ember.spark.model_sources import keras_file
from ember.worker.spec import Family, weight_files

__all__ = ["Wanted", "diagnose", "examined"]


@dataclass(frozen=True)
class Wanted:
    """What is to be run: tables to read, folders to write, a model.

    generates: does the model write texts?
    """

    reads: Sequence[str] = ()
    writes: Sequence[str] = ()
    model: ModelConfig | None = None
    generates: bool = False


def examined(facts: Facts) -> list[Finding]:
    """All findings, those that will go wrong first."""
    order = {"error": 0, "warning": 1, "note": 2}
    found = chain(programs.rules(facts), resources.rules(facts), surroundings.rules(facts))
    return sorted(found, key=lambda each: order[each.severity])


def diagnose(
    spark: SparkSession, wanted: Wanted, *, seconds: float, run_id: str, writes: bool
) -> Facts:
    """What is there. seconds: within which executors have to answer. writes: try to write?"""
    settings = classic.settings(spark)
    need = _need(spark, wanted)
    modules = programs.FRAMEWORKS[need.runtime] if need else ()
    silent = ""
    try:
        answers = ask(spark, settings, modules, seconds)
    except Silence as error:
        silent, answers = str(error), Answers()
    version, java, hadoop = classic.versions(spark)
    facts = Facts(
        master=classic.master(spark),
        settings=settings,
        spark=version,
        java=java,
        hadoop=hadoop,
        java_encoding=java_names.encoding_of(classic.jvm(spark)),
        driver=driver(settings),
        executors=answers.machines,
        known=classic.executors(spark),
        slots=slots(spark),
        required=required(),
        silent=silent,
        skews=answers.skews,
        need=need,
    )
    probes = Probes(spark, seconds, tasks=facts.slots, answered=not silent, run_id=run_id)
    places = [*map(probes.read, wanted.reads), *map(probes.write, wanted.writes if writes else ())]
    return replace(facts, places=places, rows=probes.rows)


def _need(spark: SparkSession, wanted: Wanted) -> Need | None:
    """What the model takes, as far as it can be told without fetching it."""
    if (model := wanted.model) is None:
        return None
    name, _, rest = model.name.partition(":")
    family: Family = "keras" if name == "keras" else "hf"
    path = keras_file(model.weights) if family == "keras" else Path(rest).expanduser()
    there = path if path.exists() else None
    runtime, _ = runtimes.choose(
        model,
        family,
        there,
        task="generate" if wanted.generates else "embed",
        gpu=gpu.scheduled(spark),
        converts=True,
    )
    files = weight_files(there) if there else None
    return Need(
        model.name,
        runtime,
        model.precision,
        None if files is None else sum(file.stat().st_size for file in files),
    )
