"""The names of a model's classes: from a file, or as the model's own files give them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ember.errors import InvalidInput
from ember.worker.json_files import class_names, parse_json, read_settings
from ember.worker.spec import ModelSpec

__all__ = ["beside", "is_multilabel", "model_labels", "own_labels", "read_labels"]


def read_labels(file: str) -> tuple[str, ...]:
    """The labels in `file`, by index.

    `.json`: a list of names, an object from index to name, or Keras's `imagenet_class_index.json`
    (index to [wnid, name]). `.csv`: rows of index and name, with or without a line of headings.
    Anything else: a name in each line, the first for index 0; blank lines at the end are ignored.

    Raises InvalidInput when there is no such file, or its indices are not 0, 1, 2, … each once.
    """
    path = Path(file.removeprefix("file://")).expanduser()
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InvalidInput(f"labels: there is no file {path.absolute()}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"labels: cannot read {path}: {error}") from None
    if path.suffix.lower() == ".json":
        return _of_json(text, path)
    if path.suffix.lower() == ".csv":
        return _of_csv(text, path)
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if not names or not all(names):
        line = names.index("") + 1 if names else 1
        raise InvalidInput(f"labels: line {line} of {path} is empty; give a name in each line")
    return names


def model_labels(spec: ModelSpec, path: str) -> tuple[str, ...]:
    """The names that come with the model whose files are at `path` on this machine.

    Of a transformers folder, `id2label` of its config.json; of a Keras file MODEL.keras, the list
    in MODEL.labels.json beside it, as finetune writes it.
    Raises InvalidInput when the model comes without names.
    """
    if spec.family == "keras":
        names = beside(path)
        if names.is_file():
            return read_labels(str(names))
        raise InvalidInput(
            f"{spec.name} comes without names of its classes; give `labels` a file, such as "
            "Keras's imagenet_class_index.json for the published weights"
        )
    file = Path(path, "config.json")
    config = read_settings(file, needed=True)
    kinds = ("ForImageClassification", "ForSequenceClassification")
    built = class_names(config, file) or kinds
    if not any(each.endswith(kinds) for each in built):
        raise InvalidInput(
            f"{spec.name} has no classification head (it is a {', '.join(built)}); give "
            "`head`, a folder that train wrote, or a model that finetune wrote"
        )
    if isinstance(config.get("id2label"), Mapping):
        return _ordered(config["id2label"], file)
    count = config.get("num_labels", 2)  # what transformers takes where nothing is said
    if not isinstance(count, int):
        raise InvalidInput(f"{file}: its num_labels is no whole number")
    return tuple(f"LABEL_{index}" for index in range(count))


def own_labels(spec: ModelSpec, path: str, file: str | None) -> tuple[str, ...]:
    """The names of a model's own classes, from `file` where one is given.

    Raises InvalidInput as `read_labels` and `model_labels` do, and where `file` names another
    number of classes than a transformers model has (a Keras model is asked when it is loaded).
    """
    if spec.family == "keras":
        return read_labels(file) if file else model_labels(spec, path)
    own = model_labels(spec, path)
    given = read_labels(file) if file else own
    if len(given) != len(own):
        raise InvalidInput(
            f"labels: {file} names {len(given)} classes and {spec.name} has {len(own)}; give the "
            "names of the model's own classes"
        )
    return given


def is_multilabel(spec: ModelSpec, path: str) -> bool:
    """Was this model's own head trained to give any number of labels?"""
    several = "multi_label_classification"
    if spec.family != "hf":
        return False
    return read_settings(Path(path, "config.json"), needed=True).get("problem_type") == several


def beside(weights: str) -> Path:
    """Where the labels of a file of Keras weights stand: MODEL.labels.json for MODEL.keras."""
    file = Path(weights)
    return file.with_name(file.name.split(".")[0] + ".labels.json")


def _of_json(text: str, path: Path) -> tuple[str, ...]:
    found = parse_json(text, f"labels: {path}")
    if isinstance(found, list):
        found = dict(enumerate(found))
    if not isinstance(found, dict):
        raise InvalidInput(f"labels: {path} holds neither a list nor an object")
    return _ordered(found, path)


def _of_csv(text: str, path: Path) -> tuple[str, ...]:
    lines = [line for line in csv.reader(text.splitlines()) if line]
    if lines and not lines[0][0].strip().isdigit():
        lines = lines[1:]  # headings
    if any(len(line) < 2 for line in lines):
        raise InvalidInput(f"labels: a row of {path} lacks index or name; write index,name")
    named = {line[0].strip(): line[1].strip() for line in lines}
    if len(named) != len(lines):
        raise InvalidInput(f"labels: {path} gives an index more than once")
    return _ordered(named, path)


def _ordered(named: Mapping[Any, Any], path: Path) -> tuple[str, ...]:
    """Names by index, of a mapping from index to name or to [wnid, name]."""
    try:
        by_index = {int(index): name for index, name in named.items()}
    except ValueError:
        raise InvalidInput(f"labels: {path} has keys that are not indices") from None
    if not by_index or sorted(by_index) != list(range(len(named))):
        missing = next(index for index in range(len(named) + 1) if index not in by_index)
        raise InvalidInput(
            f"labels: {path} names {len(named)} classes and not number {missing}; give a name for "
            "each index from 0"
        )
    names = [by_index[index] for index in range(len(by_index))]
    names = [name[1] if isinstance(name, list) and len(name) == 2 else name for name in names]
    if not all(isinstance(name, str | int) for name in names):
        raise InvalidInput(f"labels: {path} has names that are not strings")
    return tuple(map(str, names))
