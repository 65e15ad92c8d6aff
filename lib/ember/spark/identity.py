"""The identity of an output: all that its rows depend on beside the rows of the input.

A resumed run keeps the rows that are done, so it must have the identity of the run that did them;
`publish.Output` compares the two. An identity holds facts that a job knows (the fingerprint of its
model, the type of the id) and every key of its configuration. A key is left out only where it is
named here with a reason: a new key counts until somebody decides that it need not.

What the input holds is no part of it where rows are done one by one (embed, classify on a corpus or
one table, describe): such an input may grow between two runs. Its path is, by which we know it, and
so are its columns and its `where`. Content that changed under the same id is not seen. Where all
rows are made together (search, join, dedup, finetune), and of tables that are joined to the input,
the files are a fact: paths, sizes, times of change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pyspark.sql import SparkSession

from ember.settings.config import Config
from ember.settings.files import sources, tables
from ember.spark import catalog
from ember.spark.storage import Storage

__all__ = ["COVERED", "INCIDENTAL", "content_identity", "identity_of", "session_facts", "within"]

_OUTPUT = {
    "output.path": "where the rows go",
    "output.mode": "what becomes of rows that are there",
}
_TABLE = {
    **_OUTPUT,
    "output.table": "where the rows go",
    "output.format": "as what they are kept",
    "output.staging": "where they lie until they are published",
    "output.file_size": "divides the rows among files",
    "output.sorted": "the order of the rows, not what they are",
}
_ROW_BY_ROW = {
    **_TABLE,
    "output.merge_into": "where the rows go",
    "input.unique_ids": "a check, made by every run",
    "output.retry_failed": "which rows are done again, not what becomes of them",
    "limits.max_failed_fraction": "a check of the whole table, made by every run",
    "limits.rows_per_task": "divides rows among tasks",
    "model.batch_size": "divides rows among batches; vectors agree within the stated tolerance",
}
_PAGE = {"report": "what the page shows of the rows"}
_VECTORS = {**_ROW_BY_ROW, "limits.min_cosine": "a check of the model, made by every run"}
# Keys that decide no row, by job, and why; a section stands for all of its keys.
INCIDENTAL: Mapping[str, Mapping[str, str]] = {
    "embed": _VECTORS,
    "classify": _VECTORS,
    "describe": _ROW_BY_ROW,
    "finetune": {
        **_OUTPUT,
        "input.unique_ids": "repeated ids are always refused",
        "limits.rows_per_task": "divides rows among tasks",
    },
    "search": {
        **_TABLE,
        **_PAGE,
        "index": "where the packed corpus is kept; the answer is the same",
    },
    "join": {**_TABLE, **_PAGE},
    "dedup": {
        **_OUTPUT,
        **_PAGE,
        "map": "a link on the page",
        "limits.max_failed_fraction": "a check of the whole table, made by every run",
        "limits.rows_per_task": "divides rows among tasks",
    },
}

_FINGERPRINT = "model: the fingerprint, whatever the model is called and wherever it lies"
_WRITER = dict.fromkeys(
    ("model.name", "model.revision", "model.precision", "limits.max_pixels"), _FINGERPRINT
)
_MODEL = {
    **_WRITER,
    **dict.fromkeys(
        ("model.weights", "model.layer", "model.runtime", "model.normalize"), _FINGERPRINT
    ),
}
# Keys that a fact says in other words, by job, and which fact.
COVERED: Mapping[str, Mapping[str, str]] = {
    "embed": _MODEL,
    "classify": {
        **_MODEL,
        "head": "predictions: the fingerprint of the head, wherever it lies",
        "labels": "predictions: the names in the file",
        "top_k": "predictions",
        "threshold": "predictions: the threshold of each label",
    },
    "describe": {**_WRITER, "generation": _FINGERPRINT, "prompt": "prompt"},
    "finetune": _MODEL,
    "search": {},
    "join": {},
    "dedup": {},
}


def identity_of(spark: SparkSession, config: Config, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared when a run is resumed, as JSON knows it: facts, then settings by dotted key.

    facts: what the job knows; `job` is its name. Tables are named by their qualified paths, in
    order, or names. With a `where`, the session's time zone counts, in which SQL reads instants.
    """
    job = facts["job"]
    named, by_name = sources(config), tables(config)
    storage = Storage(spark)
    settings: dict[str, Any] = {}
    for key, value in _flat(config.model_dump(mode="json")):
        if within(key, INCIDENTAL[job]) or within(key, COVERED[job]):
            continue
        if paths := named.get(key):
            settings[key] = sorted(map(storage.qualify, paths))
        elif name := by_name.get(key):
            settings[key] = catalog.quoted(catalog.qualified(spark, name))
        else:
            settings[key] = value
    settings |= _session(spark, settings)
    return {**facts, **{key: value for key, value in settings.items() if key not in facts}}


def content_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity of rows that are known by hashes of their content, as `output.mode: sync` does.

    What says which rows are read, and which prompts they get, is left out: the hashes say it.
    """
    rows = {
        key: value
        for key, value in identity.items()
        if not key.startswith("input.") and key not in ("prompt", "time_zone")
    }
    return {**rows, "content_hash": "sha256"}


def session_facts(spark: SparkSession, config: Config) -> dict[str, Any]:
    """What of the session, beside versions, all that the job writes depends on; for a manifest."""
    return _session(spark, dict(_flat(config.model_dump(mode="json"))))


def _session(spark: SparkSession, settings: Mapping[str, Any]) -> dict[str, Any]:
    """With an expression in SQL the time zone, in which it reads instants; all else needs none."""
    if not any(key.endswith((".where", ".first_by")) and value for key, value in settings.items()):
        return {}
    return {"time_zone": spark.conf.get("spark.sql.session.timeZone")}


def within(key: str, listed: Mapping[str, str]) -> bool:
    """Is a dotted key listed, or one of a section that is?"""
    return any(key == each or key.startswith(f"{each}.") for each in listed)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; a list of plain values is one value."""
    if isinstance(value, Mapping) and value:
        inner = value.items()
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        inner = dict(enumerate(value)).items()
    else:
        yield key, value
        return
    for name, each in inner:
        yield from _flat(each, f"{key}.{name}" if key else str(name))
