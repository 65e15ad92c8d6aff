"""From the configuration of the `evaluate` job to an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ember.errors import InvalidConfig, InvalidInput
from ember.evaluation.drift_settings import check_parts, judge_tables, parts_of
from ember.evaluation.joining import issues_of
from ember.evaluation.result import Evaluation, check_requirements
from ember.settings.evaluation import EvaluateConfig
from ember.settings.tables import TableConfig
from ember.spark import origins, tables

__all__ = ["JUDGED", "Inputs", "check_inputs", "figures_of", "judge", "read_inputs"]

JUDGED = {
    "classification": "predictions",
    "multilabel": "predictions",
    "retrieval": "neighbors",
    "similarity": "pairs",
    "drift": "current",
}
"""The section that names the table that is judged, by kind."""
# The other sections that a kind reads.
_TRUTHS = {
    "classification": ("truth",),
    "multilabel": ("truth",),
    "retrieval": ("truth", "queries", "relevance"),
    "similarity": ("truth",),
    "drift": ("reference",),
}
# Of those, what a kind cannot do without; for others the truth.
_NEEDED = {"retrieval": (), "drift": ("reference",)}
# Keys that say which rows are read; all others name columns.
_READING = set(TableConfig.model_fields)
_NOT_JUDGED = "not in the judged table, left out"
_SECTIONS = (
    *("predictions", "neighbors", "pairs", "truth", "queries", "relevance", "baseline"),
    *("reference", "current"),
)


@dataclass(frozen=True)
class Inputs:
    """The tables of a run by the sections of the configuration that name them."""

    kind: str
    frames: dict[str, DataFrame]

    @property
    def judged(self) -> DataFrame:
        return self.frames[JUDGED[self.kind]]

    def origins(self) -> dict[str, Any]:
        """What is read, for the manifest."""
        return origins.told(*self.frames.values())


def figures_of(config: EvaluateConfig) -> list[str]:
    """The figures that the report will have."""
    from ember.evaluation.classification import classification_figures
    from ember.evaluation.comparing import compared_figures
    from ember.evaluation.drift import drift_figures
    from ember.evaluation.multilabel import multilabel_figures
    from ember.evaluation.similarity import FIGURES
    from ember.worker.metrics.ranking import retrieval_names

    kind = config.of if config.kind == "compare" else config.kind
    names: list[str] = {
        "drift": lambda: drift_figures(*parts_of(config)),
        "classification": lambda: classification_figures(config.top_k),
        "multilabel": lambda: multilabel_figures(config.top_k),
        "retrieval": lambda: retrieval_names(config.at),
        "similarity": lambda: list(FIGURES),
    }[kind]()
    return compared_figures(names) if config.kind == "compare" else names


def read_inputs(spark: SparkSession, config: EvaluateConfig) -> Inputs:
    """The tables that the configuration names, checked as by `check_inputs`; nothing else is read.

    Raises InvalidConfig or InvalidInput that names the section, the figure or the column.
    """
    kind = _check_settings(config)
    named = {section: getattr(config, section) for section in _SECTIONS}
    frames = {
        name: tables.read_table(spark, given) for name, given in named.items() if given is not None
    }
    return _with_columns(config, kind, frames)


def check_inputs(config: EvaluateConfig, frames: Mapping[str, DataFrame]) -> Inputs:
    """Check that the sections go with the kind and the tables have the columns that they name.

    frames: by section; one for each that the configuration has.
    Raises InvalidConfig or InvalidInput that names the section, the figure or the column.
    """
    return _with_columns(config, _check_settings(config), frames)


def _with_columns(config: EvaluateConfig, kind: str, frames: Mapping[str, DataFrame]) -> Inputs:
    for section, frame in frames.items():
        columns = getattr(config, JUDGED[kind] if section == "baseline" else section)
        for name in _columns(columns):
            tables.column(frame, name)
    return Inputs(kind, dict(frames))


def _check_settings(config: EvaluateConfig) -> str:
    """The kind of what is judged. Raises InvalidConfig for settings that do not go together."""
    kind = config.of if config.kind == "compare" else config.kind
    _check_sections(config, kind)
    if kind == "drift":
        check_parts(config)
    check_requirements(config.require, figures_of(config), tested=kind == "drift")
    return kind


def judge(config: EvaluateConfig, inputs: Inputs) -> Evaluation:
    """The report that is asked for. Raises InvalidInput for tables that do not fit."""
    if config.population == "truth":
        return _judge_all(config, inputs)
    ids = _ids(config, inputs.kind)
    alias = {own: f"judged {number}" for number, own in enumerate(ids)}
    judged = inputs.judged.select(
        *(tables.column(inputs.judged, own).alias(alias[own]) for own in ids)
    )
    truth = inputs.frames["truth"]
    same = [tables.column(truth, theirs) == F.col(f"`{alias[own]}`") for own, theirs in ids.items()]
    inside = truth.join(judged, same, "left_semi")
    named = tables.column(truth, next(iter(ids.values())))
    outside = truth.join(judged, same, "left_anti").select(
        named.alias("id"), F.lit(_NOT_JUDGED).alias("reason")
    )
    left_out = issues_of(outside)
    report = _judge_all(config, replace(inputs, frames={**inputs.frames, "truth": inside}))
    return replace(report, issues=[*report.issues, *left_out])


def _ids(config: EvaluateConfig, kind: str) -> dict[str, str]:
    """The columns that name a row in the judged table, each with its name in the truth."""
    own = getattr(config, JUDGED[kind]).id
    theirs = (config.truth.id if config.truth else None) or own
    own, theirs = ([each] if isinstance(each, str) else each for each in (own, theirs))
    # Where they are not as many, judging says so.
    return dict(zip(own, theirs, strict=False))


def _judge_all(config: EvaluateConfig, inputs: Inputs) -> Evaluation:
    from ember.evaluation.comparing import compare

    if config.kind == "drift":
        return judge_tables(config, inputs.frames["reference"], inputs.frames["current"])
    if config.kind != "compare":
        return _judge_one(config, inputs, inputs.judged)
    run, before = compared = (inputs.judged, inputs.frames["baseline"])
    new = _judge_one(config, inputs, run, compared)
    with ExitStack() as failed:
        failed.callback(new.release)
        baseline = _judge_one(config, inputs, before, compared)
        failed.callback(baseline.release)
        report = compare(new, baseline, config.worst)
        failed.pop_all()
    return report


def _judge_one(
    config: EvaluateConfig, inputs: Inputs, judged: DataFrame, compared: Sequence[DataFrame] = ()
) -> Evaluation:
    """compared: the tables of both runs of a comparison, the run first; `judged` is one of them."""
    options: dict[str, Any] = {"bootstrap": config.bootstrap, "worst": config.worst}
    options |= {"slices": config.slices}
    if inputs.kind == "retrieval":
        return _judge_retrieval(config, inputs, judged, options)
    truth = inputs.frames["truth"]
    given, section = config.truth, getattr(config, JUDGED[inputs.kind])
    options |= {"id": section.id, "truth_id": given.id if given else None}
    options |= {"label": given.label if given else "label"}
    if inputs.kind == "similarity":
        from ember.evaluation.similarity import judge_similarity

        return judge_similarity(judged, truth, score=section.score, compared=compared, **options)
    options |= {"predicted": section.predictions, "classes": config.classes}
    options |= {"match": config.match, "compared": compared}
    options |= {"top_k": config.top_k}
    if inputs.kind == "multilabel":
        from ember.evaluation.multilabel import judge_multilabel

        return judge_multilabel(judged, truth, threshold=config.threshold, **options)
    from ember.evaluation.classification import judge_classification

    return judge_classification(judged, truth, bins=config.bins, **options)


def _judge_retrieval(
    config: EvaluateConfig, inputs: Inputs, judged: DataFrame, options: dict[str, Any]
) -> Evaluation:
    from ember.evaluation.retrieval import judge_retrieval

    frames = inputs.frames
    neighbors = _renamed(judged, config.neighbors, config.slices)
    for name in ("relevance", "truth", "queries"):
        if name in frames:
            options[name] = _renamed(frames[name], getattr(config, name), config.slices)
    return judge_retrieval(
        neighbors,
        at=config.at,
        exclude_self=config.exclude_self,
        **options,
    )


def _renamed(frame: DataFrame, section: Any, slices: Sequence[str]) -> DataFrame:
    """The columns that a section names, under the names of its keys, and the slices there are."""
    named = {key: name for key, name in section.model_dump(exclude=_READING).items() if name}
    if "rank" in named:
        named.pop("score")
    columns = [tables.column(frame, name).alias(key) for key, name in named.items()]
    also = [name for name in dict.fromkeys(slices) if name in frame.columns and name not in named]
    for name in slices:
        same = tables.same_column(frame.sparkSession, name, named)
        if same and name in frame.columns and named[same] != name:
            raise InvalidInput(
                f"slices: the column {name} has the name of what {same} becomes; rename it"
            )
    return frame.select(*columns, *(tables.column(frame, name) for name in also))


def _check_sections(config: EvaluateConfig, kind: str) -> None:
    if kind == "retrieval" and config.population != "truth":
        raise InvalidConfig(
            "population: predictions does not go with kind: retrieval; its queries are those of "
            "queries or relevance"
        )
    needed = {JUDGED[kind], *_NEEDED.get(kind, ("truth",))}
    if config.kind == "compare":
        needed.add("baseline")
    allowed = needed | set(_TRUTHS[kind])
    shown = f"kind: {config.kind}" + (f" of {kind}" if config.kind == "compare" else "")
    given = {section for section in _SECTIONS if getattr(config, section) is not None}
    for section in _SECTIONS:
        if section in needed - given:
            raise InvalidConfig(f"{section} is missing; {shown} needs it")
    for section in _SECTIONS:
        if section in given - allowed:
            raise InvalidConfig(
                f"{section} does not go with {shown}, which reads {', '.join(sorted(allowed))}"
            )
    _check_ids(config, kind, shown)
    if kind == "retrieval" and (config.truth is None) == (config.relevance is None):
        raise InvalidConfig(
            "kind: retrieval needs either relevance (a table of relevant documents) or truth "
            "(labels: documents with the query's label are relevant)"
        )
    if kind == "retrieval" and config.relevance is not None and config.queries is not None:
        raise InvalidConfig("queries goes with truth; relevance names the queries itself")


def _check_ids(config: EvaluateConfig, kind: str, shown: str) -> None:
    """Refuse several columns where an id is one, as it is but for pairs."""
    for section in ("truth", "queries"):
        table = getattr(config, section)
        if kind != "similarity" and table is not None and isinstance(table.id, list):
            raise InvalidConfig(
                f"{section}.id lists columns, and {shown} has ids of one; give its name"
            )


def _columns(section: Any) -> Iterator[str]:
    """The columns that a section of the configuration names."""
    for name, value in section.model_dump(exclude=_READING).items():
        names: Sequence[str] = [value] if isinstance(value, str) else value or []
        if name == "score" and getattr(section, "rank", None) is not None:
            continue  # not read
        yield from names
