"""The keywords of the library's functions are the settings of the jobs: names, types, defaults."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

import ember
from ember.errors import InvalidConfig
from ember.settings.config import Config
from ember.settings.description import GenerationConfig, PromptConfig, WriterConfig
from ember.settings.embedding import ModelConfig
from ember.settings.limits import LimitsConfig, VectorLimitsConfig
from ember.settings.training import ClassifyOptions
from ember.udf import embed_images, embed_texts

OF_IMAGES = {"weights": "keras: models take images", "max_pixels": "texts have none"}
OF_TEXTS = dict.fromkeys(("role", "prompt", "dimension"), "of texts alone")
# (function, settings that are its keywords, its other arguments)
FUNCTIONS: list[tuple[Callable[..., Any], list[type[Config]], set[str]]] = [
    (ember.embed, [ModelConfig, VectorLimitsConfig], {"chunk"}),
    (ember.classify, [ModelConfig, VectorLimitsConfig, ClassifyOptions], set()),
    (
        ember.describe,
        [WriterConfig, LimitsConfig, GenerationConfig, PromptConfig],
        {"prompt", "columns"},
    ),
    (embed_images, [ModelConfig, LimitsConfig], {"kind"}),
    (embed_texts, [ModelConfig, LimitsConfig], {"kind"}),
]
FRAME = {"df", "model", "id", "content", "modality", "content_is", "root"}
# Settings that are no keyword, or another one, and why.
ELSEWHERE = {
    "name": "the argument `model`",
    "max_failed_fraction": "who has the rows can count those that failed",
    "rows_per_task": "what a killed task loses, of a run that can be resumed",
    "template": "the argument `prompt`",
    "columns": "names of columns, checked with the prompt",
    "tables": "who has DataFrames can join them",
}
NOT_HERE = {embed_images: OF_TEXTS, embed_texts: OF_IMAGES}


def kinds(annotation: Any) -> set[Any]:
    """What a type lets pass: values of literals, and classes."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kinds(inner[0])
    if origin in (types.UnionType, Union):
        return set().union(*map(kinds, inner))
    if origin is Literal:
        return set(inner)
    if origin in (list, Sequence):
        return {Sequence}
    if origin is Mapping or (isinstance(annotation, type) and issubclass(annotation, Config)):
        return {Mapping}
    return {annotation}


@pytest.mark.parametrize(
    ("function", "settings", "others"), FUNCTIONS, ids=lambda each: getattr(each, "__name__", "")
)
def test_every_setting_is_a_keyword_of_its_type_and_default(function, settings, others):
    left_out = ELSEWHERE | NOT_HERE.get(function, {})
    fields = {
        name: field
        for kind in settings
        for name, field in kind.model_fields.items()
        if name not in left_out
    }
    keywords = signature(function).parameters
    hints = get_type_hints(function)
    assert keywords.keys() - FRAME == fields.keys() | others
    for name, field in fields.items():
        given = keywords[name]
        assert given.kind is given.KEYWORD_ONLY
        default = list(given.default) if isinstance(given.default, tuple) else given.default
        assert default == field.default, name
        assert kinds(hints[name]) == kinds(field.annotation), name


@pytest.mark.parametrize(
    ("function", "keyword"),
    [
        (ember.embed, {"batch_size": 0}),
        (ember.embed, {"layer": "top"}),
        (ember.classify, {"top_k": 0}),
        (ember.classify, {"threshold": 2}),
        (ember.describe, {"stop": "end"}),
        (ember.describe, {"sampling": {"top_p": 0}}),
        (ember.describe, {"prompt": "{a}", "top": 0}),
    ],
    ids=str,
)
def test_a_value_that_a_job_refuses_is_refused_by_its_key(function, keyword):
    (key,) = keyword.keys() - {"prompt"}
    with pytest.raises(InvalidConfig, match=key):
        function(None, "hf:model", id="id", **keyword)
