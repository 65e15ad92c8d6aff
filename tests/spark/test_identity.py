"""Every setting of a job that can be resumed is in the output's identity, or decides no row.

The keys are those of the configurations' own classes, so that a new one has to find its place here:
in a base configuration below, with another value in OTHERS where none can be made from its type.
Jobs run up to where their output is made, which is before any row is read.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
import pytest

from corpora import write
from ember.errors import InvalidConfig, InvalidInput
from ember.job import Run
from ember.jobs import classify, dedup, describe, embed, finetune, join, search
from ember.settings.comparison import ExportConfig, JoinConfig, SearchConfig
from ember.settings.config import Config
from ember.settings.deduplication import DedupConfig
from ember.settings.description import DescribeConfig
from ember.settings.embedding import EmbedConfig
from ember.settings.training import ClassifyConfig, FinetuneConfig
from ember.spark import conditions, tables
from ember.spark.identity import COVERED, INCIDENTAL, identity_of, session_facts
from ember.spark.publish import Output
from ember.worker.heads.head import Head
from tiny_models import tiny_bert, tiny_captioner, tiny_gpt2, tiny_resnet

JOBS = {
    "embed": (EmbedConfig, embed.embed),
    "classify": (ClassifyConfig, classify.classify),
    "describe": (DescribeConfig, describe.describe),
    "finetune": (FinetuneConfig, finetune.finetune),
    "search": (SearchConfig, search.run_search),
    "join": (JoinConfig, join.run_join),
    "dedup": (DedupConfig, dedup.dedup),
}
TABLE = {"path": "{a}", "where": "key > 0", "id": "key"}
CORPUS = {**TABLE, "content": "body", "modality": "text", "unique_ids": False}
SEEN = {**TABLE, "content": "body", "modality": "text"}
FILES = {"content_is": "paths", "root": "{root}"}
PICTURES = {**CORPUS, "modality": "image", "content_is": "paths", "root": "{root}"}
MODEL = {
    "name": "hf:{bert}",
    "layer": "mean",
    "role": "query",
    "prompt": "a ",
    "dimension": 8,
    "runtime": "torch",
    "batch_size": 4,
}
CHUNK = {"tokens": 8, "overlap": 2, "pool": "mean"}
OUTPUT = {"path": "{out}", "mode": "fail"}
LIMITS = {"max_failed_fraction": 0.5, "max_pixels": 1000, "max_bytes": 1000, "rows_per_task": 5}
BLOCKS = {"max_failed_fraction": 0.5, "rows_per_block": 5}
VECTORS = {**TABLE, "embedding": "vector"}
SHOWN = {
    **TABLE,
    "content": "body",
    "modality": "image",
    "content_is": "paths",
    "root": "{root}",
    "label": "word",
}
LABELS = {**TABLE, "label": "word", "min_rows": 1}
PROMPT = {
    "template": "a {n} {m} {t}",
    "columns": {"n": "body", "m": "word"},
    "tables": {"t": {**TABLE, "column": "word", "neighbors": "{found}", "top": 1}},
    "top": 1,
    "separator": ", ",
}
GENERATION = {
    "max_new_tokens": 4,
    "min_new_tokens": 1,
    "stop": ["x"],
    "sampling": {"temperature": 0.5, "top_k": 4, "top_p": 0.5, "seed": 1},
}
# (job, configuration); all together set every key there is.
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "embed": (
        "embed",
        {"input": CORPUS, "model": MODEL, "chunk": CHUNK, "output": OUTPUT, "limits": LIMITS},
    ),
    "embed images": (
        "embed",
        {"input": PICTURES, "model": {"name": "hf:{resnet}"}, "output": OUTPUT},
    ),
    "classify a corpus": (
        "classify",
        {
            "input": CORPUS,
            "model": MODEL,
            "head": "{head}",
            "top_k": 2,
            "threshold": 0.5,
            "labels": "{names}",
            "output": OUTPUT,
            "limits": LIMITS,
        },
    ),
    "classify images": (
        "classify",
        {"input": PICTURES, "model": {"name": "hf:{resnet}"}, "output": OUTPUT},
    ),
    "classify a table": (
        "classify",
        {"features": [VECTORS], "head": "{two}", "output": OUTPUT},
    ),
    "describe": (
        "describe",
        {
            "input": CORPUS,
            "model": {"name": "hf:{gpt2}", "batch_size": 4},
            "generation": GENERATION,
            "output": OUTPUT,
            "limits": LIMITS,
        },
    ),
    "describe by prompt": (
        "describe",
        {
            "input": {**TABLE, "modality": "text"},
            "model": {"name": "hf:{gpt2}"},
            "prompt": PROMPT,
            "output": OUTPUT,
        },
    ),
    "describe images": (
        "describe",
        {"input": PICTURES, "model": {"name": "hf:{captioner}"}, "output": OUTPUT},
    ),
    "finetune": (
        "finetune",
        {
            "input": CORPUS,
            "labels": LABELS,
            "model": {"name": "hf:{bert}", "runtime": "torch", "batch_size": 4},
            "split": {"group": "word"},
            "learning_rate": {"full": 0.1},
            "augment": {"flip": True},
            "output": OUTPUT,
            "limits": LIMITS,
        },
    ),
    "finetune by column": (
        "finetune",
        {
            "input": CORPUS,
            "labels": LABELS,
            "model": {"name": "hf:{bert}"},
            "split": {"column": "word"},
            "output": OUTPUT,
        },
    ),
    "finetune images": (
        "finetune",
        {"input": PICTURES, "labels": LABELS, "model": {"name": "hf:{resnet}"}, "output": OUTPUT},
    ),
    "search": (
        "search",
        {
            "queries": VECTORS,
            "corpus": VECTORS,
            "within": ["word"],
            "report": {"queries": SHOWN, "corpus": SHOWN},
            "output": OUTPUT,
            "limits": BLOCKS,
        },
    ),
    "search with an index": (
        "search",
        {
            "queries": VECTORS,
            "corpus": VECTORS,
            "index": {"path": "{index}"},
            "output": OUTPUT,
        },
    ),
    "join": (
        "join",
        {
            "left": VECTORS,
            "right": VECTORS,
            "threshold": 0.5,
            "within": ["word"],
            "report": {"left": SHOWN, "right": SHOWN},
            "output": OUTPUT,
            "limits": {**BLOCKS, "max_pairs": 50},
        },
    ),
    "join with groups": (
        "join",
        {"left": VECTORS, "threshold": 0.5, "groups": {"path": "{groups}"}, "output": OUTPUT},
    ),
    "dedup": (
        "dedup",
        {
            "input": {**SEEN, "time": "number", "embedding": VECTORS},
            "tiers": ["exact", {"minhash": 0.5}, {"embedding": 0.9}],
            "keep": "oldest",
            "pairs": {"path": "{judged}", "where": "key > 0"},
            "output": OUTPUT,
            "limits": {**LIMITS, "max_pairs": 50},
        },
    ),
    "dedup against": (
        "dedup",
        {
            "input": {**SEEN, "embedding": VECTORS},
            "tiers": [{"embedding": 0.9}],
            "against": {**TABLE, "content": "body", "embedding": VECTORS},
            "output": OUTPUT,
        },
    ),
    "dedup images": (
        "dedup",
        {
            "input": {**SEEN, **FILES, "modality": "image"},
            "against": {**TABLE, **FILES},
            "output": OUTPUT,
        },
    ),
}
# Other values of keys, by the end of the dotted key, the longest that fits.
OTHERS: dict[str, Any] = {
    "path": "{b}",
    "output.path": "{out}2",
    "groups.path": "{groups}2",
    "index.path": "{index}2",
    "file_size": "1 MB",
    "where": "key >= 0",
    "id": "number",
    "content": "word",
    "label": "body",
    "within": ["body"],
    "embedding": "other",
    "name": "hf:{bert2}",
    "describe:model.name": "hf:{gpt2b}",
    "layer": "cls",
    "model.weights": "random",
    "model.revision": "main",
    "model.prompt": "the ",
    "model.dimension": 4,
    "chunk.pool": None,
    "root": "{root}2",
    "classify:head": "{head2}",
    "classify a table:head": "{two2}",
    "classify:threshold": 0.25,
    "labels": "{names2}",
    "min_cosine": 0.5,
    "rows_per_task": 6,
    "rows_per_block": 6,
    "batch_size": 5,
    "prompt.template": "the {n} {m} {t}",
    "prompt.columns": {"n": "word", "m": "word"},
    "prompt.separator": ";",
    "column": "body",
    "neighbors": "{found2}",
    "stop": ["y"],
    "group": "body",
    "split.train": (("split.train", 0.6), ("split.validation", 0.3)),
    "split.validation": (("split.validation", 0.15), ("split.test", 0.05)),
    "split.test": (("split.test", 0.15), ("split.train", 0.75)),
    "search:mode": (("mode", "approximate"), ("within", [])),
    "search:recall": 0.5,
    "network.hidden": [3],
    "tiers": ["exact", {"embedding": 0.9}],
    "time": "key",
    "dedup:map": "{b}",
    "dedup:pairs.path": "{judged2}",
    "dedup:pairs.left_id": "key",
    "dedup:pairs.right_id": "key",
    "dedup:pairs.label": "other",
    "dedup:keep": "newest",
    "unfreeze": 2,
    "min_area": 0.5,
}
# What the base has no use for, so that the rows stay the same; and what cannot be changed alone.
SAME = {
    "model.weights": "an hf: model has no choice of weights",
    "model.runtime": "what auto stands for here",
    "map": "a link on the page",
}
REFUSED = {
    "output.retry_failed": "without mode sync, with which test_sync has runs",
    "output.format": "Spark has no Delta here; tests/lakehouse has",
    "input.modality": "neither encoder takes images",
    "limits.min_cosine": "without int8, which test_converted_models resumes with another one",
    "model.revision": "a folder has no revisions; that of the hub is in the fingerprint",
}
# Of a second base, the keys that the first cannot have.
ONLY = {
    "embed images": ("input.content_is", "input.root"),
    "classify images": ("input.content_is", "input.root"),
    "classify a table": ("features", "head"),
    "describe by prompt": ("prompt",),
    "describe images": ("input.content_is", "input.root"),
    "finetune images": ("input.content_is", "input.root"),
    "finetune by column": ("split.column",),
    "join with groups": ("groups.path",),
    "search with an index": ("index.path",),
    "dedup against": ("against",),
    "dedup images": ("input.content_is", "input.root", "against.content_is", "against.root"),
}
# Names of tables and what goes with them, of which there is a test below.
BY_NAME = ("table", "merge_into", "staging")
# What `finetune` refuses: it is about embeddings.
NO_PLACE = {
    "finetune": {f"model.{key}" for key in ("layer", "normalize", "role", "prompt", "dimension")}
}

UNIONS = (types.UnionType, Union)  # a Literal beside null is the latter


class Stop(Exception):
    """Raised where a job makes its output."""


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("identity")
    vectors = pa.array([[1.0, 0.0], [0.0, 1.0]], pa.list_(pa.float32()))
    columns = {
        "key": [1, 2], "number": [1, 2], "body": ["a cat", "a dog"], "word": ["x", "y"],
        "vector": vectors, "other": vectors,
    }  # fmt: skip
    found = {"query_id": [1, 2], "rank": [1, 1], "neighbor_id": [2, 1]}
    made = {name: write(folder / f"{name}.parquet", **columns) for name in ("a", "b")}
    made |= {name: write(folder / f"{name}.parquet", **found) for name in ("found", "found2")}
    judged = {"left_id": [1], "right_id": [2], "key": [1], "copy": [True], "other": [False]}
    for name in ("judged", "judged2"):
        made[name] = write(folder / f"{name}.parquet", **judged)
    for name, labels in (("names", "red\nblue"), ("names2", "red\ngreen")):
        (folder / name).write_text(labels)
        made[name] = str(folder / name)
    for name, size, seed in (("head", 24, 1), ("head2", 24, 2), ("two", 2, 1), ("two2", 2, 2)):
        head(size, seed).save(str(folder / name))
        made[name] = str(folder / name)
    for name in ("bert", "bert2", "gpt2", "gpt2b", "resnet", "captioner"):
        (folder / name).mkdir()
    made["bert"] = str(tiny_bert(folder / "bert"))
    made["bert2"] = str(tiny_bert(folder / "bert2", pooler=False))
    made["gpt2"] = str(tiny_gpt2(folder / "gpt2"))
    made["gpt2b"] = str(tiny_gpt2(folder / "gpt2b", repetition_penalty=1.5))
    made["resnet"] = str(tiny_resnet(folder / "resnet"))
    made["captioner"] = str(tiny_captioner(folder / "captioner"))
    return made | {name: str(folder / name) for name in ("out", "groups", "root", "index")}


def head(size: int, seed: int) -> Head:
    import numpy as np

    ones, two = np.ones(size, np.float32), np.ones(2, np.float32)
    weights = np.random.default_rng(seed).normal(size=(size, 2)).astype(np.float32)
    return Head(
        kind="logistic", labels=("a", "b"), multilabel=False, parts=(size,), indicators=(),
        layers=((weights, 0 * two),), mean=0 * ones, scale=ones, slope=two, offset=0 * two,
        thresholds=two / 2,
    )  # fmt: skip


def filled(value: Any, places: dict[str, str]) -> Any:
    """`value` with the names of files in the place of {name}."""
    if isinstance(value, str):
        for name, path in places.items():
            value = value.replace(f"{{{name}}}", path)
        return value
    if isinstance(value, dict):
        return {k: filled(v, places) for k, v in value.items()}
    return [filled(each, places) for each in value] if isinstance(value, list) else value


def leaves(config: Config, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted keys of a configuration that are no sections: key, annotation, value."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        inner = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(value, Config):
            yield from leaves(value, f"{at}{name}.")
        elif isinstance(inner, dict) and any(isinstance(v, Config) for v in inner.values()):
            for key, each in inner.items():
                yield from leaves(each, f"{at}{name}.{key}.")
        else:
            yield f"{at}{name}", field.annotation, value


def reachable(kind: type[Config], at: str = "") -> Iterator[str]:
    """The same of a class, with * for the names and places of a dictionary or list."""
    for name, field in kind.model_fields.items():
        found = list(_sections(field.annotation, f"{at}{name}"))
        if not found:
            yield f"{at}{name}"
        for key, section in found:
            yield from reachable(section, f"{key}.")


def _sections(annotation: Any, key: str) -> Iterator[tuple[str, type[Config]]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield key, annotation
    elif get_origin(annotation) in (list, dict):
        yield from _sections(get_args(annotation)[-1], f"{key}.*")
    elif get_origin(annotation) in (Annotated, *UNIONS):
        for branch in get_args(annotation):
            yield from _sections(branch, key)


def other_value(base: str, job: str, key: str, annotation: Any, value: Any) -> Any:
    for owner in (base, job):
        if f"{owner}:{key}" in OTHERS:
            return OTHERS[f"{owner}:{key}"]
    parts = key.split(".")
    for start in range(len(parts)):
        if (end := ".".join(parts[start:])) in OTHERS:
            return OTHERS[end]
    choices = [c for c in _choices(annotation) if c != value]
    if choices:
        return choices[0]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2
    raise AssertionError(f"give OTHERS another value of {key}, which is {value!r} in {base}")


def _choices(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    branches = get_args(annotation) if get_origin(annotation) in UNIONS else ()
    return [choice for branch in branches for choice in _choices(branch)]


def changed(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of nested values with another one under a dotted key."""
    name, _, rest = key.partition(".")
    if isinstance(values, list):
        return [changed(v, rest, value) if str(n) == name else v for n, v in enumerate(values)]
    return {**values, name: changed(values.get(name, {}), rest, value) if rest else value}


@pytest.fixture(scope="module")
def frames() -> dict[str, Any]:
    """Tables that were looked at, by their paths, and with conditions."""
    return {}


@pytest.fixture
def identity(spark, monkeypatch, frames):
    """The identity that a job gives its output."""
    found: list[Any] = []
    look, choose = tables.read, conditions.where

    def read(session: Any, path: Any) -> Any:
        if str(path) not in frames:
            frames[str(path)] = look(session, path)
        return frames[str(path)]

    def where(table: Any, condition: str, shown: str) -> Any:
        key = f"{shown} {condition}"
        if key not in frames:
            frames[key] = choose(table, condition, shown)
        return frames[key]

    # Without the Spark jobs: the files do not change, and their rows do not matter.
    monkeypatch.setattr(tables, "read", read)
    monkeypatch.setattr(tables, "where", where)
    monkeypatch.setattr(tables, "check_unique", lambda *_: None)

    def stop(self: Output, session: Any, path: str, mode: str, identity: Any, **_: Any) -> None:
        found.append(dict(identity))
        raise Stop

    monkeypatch.setattr(Output, "__init__", stop)

    def of(job: str, values: dict[str, Any]) -> dict[str, Any]:
        kind, body = JOBS[job]
        with pytest.raises(Stop):
            body(Run(job, kind.model_validate(values), "run", False, spark))
        return found.pop()

    return of


def matches(key: str, listed: Any) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in listed)


@pytest.mark.parametrize("base", BASES)
def test_another_value_of_any_setting_is_another_identity_or_decides_no_row(identity, places, base):
    job, values = BASES[base]
    values = filled(values, places)
    config = JOBS[job][0].model_validate(values)
    before = identity(job, values)
    assert identity(job, values) == before
    for key, annotation, value in leaves(config):
        refused = key in REFUSED or key in NO_PLACE.get(job, ())
        if value is None and key not in SAME and not refused:
            continue
        if base in ONLY and not matches(key, ONLY[base]):
            continue
        new = filled(other_value(base, job, key, annotation, value), places)
        pairs = new if isinstance(new, tuple) else ((key, new),)
        varied = values
        for each, another in pairs:
            varied = changed(varied, each, another)
        assert JOBS[job][0].model_validate(varied) != config, key
        if refused:
            with pytest.raises((InvalidConfig, InvalidInput)):
                identity(job, varied)
            continue
        same = identity(job, varied) == before
        assert same == (matches(key, INCIDENTAL[job]) or key in SAME), key


@pytest.mark.parametrize("job", JOBS)
def test_no_key_of_a_configuration_is_forgotten(job):
    set_somewhere = set()
    for base, (name, values) in BASES.items():
        if name == job:
            config = JOBS[job][0].model_validate(filled(values, {}))
            for key, _, value in leaves(config):
                if value is not None and (base not in ONLY or matches(key, ONLY[base])):
                    parts = [
                        "*" if part.isdigit() or part == "t" else part for part in key.split(".")
                    ]
                    set_somewhere.add(".".join(parts))
    known = set_somewhere | set(SAME) | set(REFUSED) | NO_PLACE.get(job, set())
    known |= {each for each in reachable(JOBS[job][0]) if each.rpartition(".")[2] in BY_NAME}
    assert set(reachable(JOBS[job][0])) - known == set()
    for listed in (INCIDENTAL[job], COVERED[job]):
        for key in listed:  # a key that is renamed does not stay listed
            assert any(matches(each, [key]) for each in known), key


def test_a_table_counts_by_its_whole_name_and_where_rows_go_does_not(spark, places):
    def of(name: str, **output: str) -> dict[str, Any]:
        given = {"input": {"table": name, "id": "key", "modality": "text"}, "output": output}
        config = EmbedConfig.model_validate({**given, "model": {"name": "hf:x"}})
        return identity_of(spark, config, {"job": "embed"})

    before = of("a", table="out")
    assert of("default.a", table="out") == before == of("spark_catalog.default.`a`", path="out")
    assert before == of("a", merge_into="b", format="delta", staging="here")
    assert of("b", table="out") != before != of("other.a", table="out")


@pytest.mark.parametrize("where", [None, "at > timestamp'2026-01-01'"])
def test_what_a_step_depends_on_of_the_session_is_the_time_zone_of_its_conditions(spark, where):
    given = {"corpus": {"path": "a", "id": "i", "where": where}, "output": {"path": "o"}}
    config = ExportConfig.model_validate(given)
    before = spark.conf.get("spark.sql.session.timeZone")
    try:
        spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
        assert session_facts(spark, config) == ({"time_zone": "Asia/Tokyo"} if where else {})
    finally:
        spark.conf.set("spark.sql.session.timeZone", before)
