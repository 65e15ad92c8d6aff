"""The examples in the docstrings of the functions on rows run as they stand.

An example may use `ember`, `spark`, `folder` (an empty folder) and tiny models by name, each as
what a `model` argument takes.
"""

from __future__ import annotations

import doctest

import pytest

import ember
from ember import udf
from tiny_models import tiny_gpt2

FUNCTIONS = [ember.embed, ember.classify, ember.describe, udf.embed_images, udf.embed_texts]
SECTIONS = ("Args:", "Returns:", "Raises:", "Example:")


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda each: each.__name__)
def test_the_example_of_a_function_gives_what_it_says(
    function, spark, bert, resnet, tmp_path_factory
):
    folder = str(tmp_path_factory.mktemp("example"))
    models = {"bert": bert, "resnet": resnet}
    if function is ember.describe:
        models["gpt2"] = f"hf:{tiny_gpt2(tmp_path_factory.mktemp('gpt2'))}"
    names = {"ember": ember, "spark": spark, "folder": folder, **models}
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=False)
    (example,) = finder.find(function, function.__name__, globs=names)
    assert example.examples
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=told.append)
    assert not runner.failures, "".join(told)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda each: each.__name__)
def test_the_docstring_of_a_function_has_all_sections(function):
    missing = [name for name in SECTIONS if f"\n    {name}\n" not in (function.__doc__ or "")]
    assert missing == []
