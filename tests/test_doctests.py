"""The examples in the docstrings of the public API run as they stand.

An example may use, without making them: `spark`; `folder`, an empty folder; and the tiny models of
`MODELS` by name, each as what a `model` argument takes.
"""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable, Iterator
from functools import cache
from inspect import isfunction, isroutine
from typing import Any

import pytest

import ember
import tiny_models

MODELS = {
    "resnet": tiny_models.tiny_resnet,
    "bert": tiny_models.tiny_bert,
    "gpt2": tiny_models.tiny_gpt2,
}
SECTIONS = ("Args:", "Returns:", "Raises:", "Example:")


def public() -> Iterator[tuple[str, Any]]:
    """Functions and classes by the name under which users know them."""
    for name in ember.__all__:
        each = getattr(ember, name)
        if isroutine(each) or isinstance(each, type):
            yield name, each
    for name in ember.udf.__all__:
        yield f"udf.{name}", getattr(ember.udf, name)


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(recurse=False)
    found = [test for name, each in public() for test in finder.find(each, name, globs={})]
    return [test for test in found if test.examples]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    @cache
    def build(name: str) -> str:
        return f"hf:{MODELS[name](tmp_path_factory.mktemp(name))}"

    return build


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example_gives_what_it_says(example, spark, tmp_path, model):
    code = "".join(line.source for line in example.examples)
    used = [name for name in MODELS if re.search(rf"\b{name}\b", code)]
    example.globs = {"ember": ember, "spark": spark, "folder": str(tmp_path)}
    example.globs |= {name: model(name) for name in used}
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=told.append)
    assert not runner.failures, "".join(told)


def test_every_public_function_has_all_sections_and_an_example():
    missing = {
        name: [section for section in SECTIONS if f"\n    {section}\n" not in (each.__doc__ or "")]
        for name, each in public()
        if isfunction(each)
    }
    assert not {name: sections for name, sections in missing.items() if sections}
