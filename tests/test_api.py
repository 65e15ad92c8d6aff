"""What `import ember` offers: its names, when what is behind them is imported, their defaults."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files
from inspect import signature

import pytest

import ember
from ember.settings.comparison import JoinConfig, ProjectConfig, SearchConfig
from ember.settings.deduplication import DedupConfig
from ember.settings.evaluation import EvaluateConfig
from ember.settings.training import FinetuneConfig, TrainOptions

VERBS = (
    *("classify", "dedup", "describe", "embed", "evaluate", "export"),
    *("finetune", "join", "project", "search", "train"),
)
ERRORS = (
    *("DeviceMissing", "EmberError", "InvalidConfig", "InvalidInput", "OtherSettings"),
    *("RequirementNotMet", "TooManyFailures", "TooManyPairs"),
)
TYPES = (
    *(
        "DedupResult",
        "Evaluation",
        "Figure",
        "Head",
        "Issue",
        "JoinResult",
        "ProjectResult",
        "Projection",
    ),
    *("Recall", "SearchResult"),
)
OTHERS = ("errors", "fit_alignment", "fit_projection", "load_projection", "save_projection", "udf")
ALIASES = ("approximate_top_k", "export_faiss", "similarity_join", "top_k")


def test_the_public_names_are_these():
    assert sorted(ember.__all__) == sorted([*VERBS, *ERRORS, *TYPES, *OTHERS])
    assert dir(ember) == sorted([*ember.__all__, "__version__"])
    for name in (*ember.__all__, *ALIASES):
        assert getattr(ember, name) is not None
    assert set(ember.errors.__all__) - {"find_in_text"} == set(ERRORS)
    with pytest.raises(AttributeError, match="module 'ember' has no attribute 'embedd'"):
        ember.embedd  # noqa: B018


def test_type_checkers_see_what_is_imported_on_first_use():
    tree = ast.parse((files("ember") / "__init__.py").read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names}
    assert (seen.pop("udf"), seen.pop("errors")) == ("ember", "ember")
    assert seen == {**ember._HOMES, **ember._ALIASES}
    assert (files("ember") / "py.typed").is_file()


def test_importing_the_package_imports_no_spark_and_no_framework():
    heavy = "pyspark", "torch", "pydantic", "numpy", "pyarrow"
    code = f"import ember, sys; dir(ember); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_that_of_the_package():
    assert ember.__version__ == version("ember-spark")


def defaults(function) -> dict:
    """Of the keywords that have one; lists for tuples, which the settings have."""
    found = {name: each.default for name, each in signature(function).parameters.items()}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
        if value is not signature(function).empty
    }


# Of a function, keywords by the dotted key of the job's configuration, where the two differ.
RENAMED = {
    "search": {"index": "index.path"},
    "train": {
        **{key: f"network.{key}" for key in ("hidden", "dimension", "iterations")},
        "seed": "split.seed",
        "group": "split.group",
        "max_failed_fraction": "limits.max_failed_fraction",
        "worker_megabytes": "limits.worker_megabytes",
    },
    "finetune": {
        **dict(zip(("head_epochs", "full_epochs"), ("epochs.head", "epochs.full"), strict=True)),
        "head_rate": "learning_rate.head",
        "full_rate": "learning_rate.full",
        "flip": "augment.flip",
        "min_area": "augment.min_area",
        "split_seed": "split.seed",
        "group": "split.group",
        **{key: f"limits.{key}" for key in ("max_failed_fraction", "max_pixels", "max_bytes")},
    },
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("search", SearchConfig),
        ("join", JoinConfig),
        ("dedup", DedupConfig),
        ("project", ProjectConfig),
        ("train", TrainOptions),
        ("finetune", FinetuneConfig),
        ("evaluate", EvaluateConfig),
    ],
)
def test_a_verb_has_the_defaults_of_its_job(name, kind):
    """Of all keywords that stand for a key with a default."""
    checked = 0
    for keyword, value in defaults(getattr(ember, name)).items():
        key = RENAMED.get(name, {}).get(keyword, keyword)
        section, _, last = key.rpartition(".")
        if keyword == "max_failed_fraction":
            section, last = "limits", keyword
        where = kind
        if section:
            where = type(kind.model_fields[section].get_default(call_default_factory=True))
        field = where.model_fields.get(last)
        if field is None or field.is_required() or keyword in ("split", "augment"):
            continue
        assert value == field.get_default(call_default_factory=True), keyword
        checked += 1
    assert checked >= 4
