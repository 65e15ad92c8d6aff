"""What a folder of transformers may hold: weights and settings of its own, and no code.

A folder is data: nothing in it chooses code that is run, and nothing outside it that a loader
would read in its name stays out of its fingerprint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ember.errors import EmberError, InvalidInput
from ember.worker.models.declared_size import check_numbers
from ember.worker.spec import weight_files

__all__ = ["FILES_ONLY", "check_folder", "loading", "plain_config"]

# For `from_pretrained` of whatever is in the folder.
FILES_ONLY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
# Of torch and TensorFlow, which this module does not import.
_MACHINE = frozenset({"OutOfMemoryError", "AcceleratorError", "ResourceExhaustedError"})
_POINTER = b"version https://git-lfs.github.com/spec"
_WEIGHTS = (".safetensors", ".bin", ".h5", ".keras")


def check_folder(path: Path) -> None:
    """Raise InvalidInput for a folder that names code, another model, or weights elsewhere.

    Also for one that declares more layers or labels than any model has.

    Links are followed, as in the hub's cache: what they lead to is hashed and sent as their own.
    """
    files = weight_files(path)
    for file in files:
        if file.name == "adapter_config.json":
            raise InvalidInput(
                f"{file} makes the folder an adapter of another model; merge the two and save them "
                "as one folder"
            )
        if file.suffix != ".json":
            continue
        found = _settings(file)
        if file.name == "config.json":
            check_numbers(file, found)
        if code := found.get("auto_map"):
            raise InvalidInput(
                f"{file} names code that came with the model (auto_map: {_named(code)}), and Ember "
                "runs none; give a model of an architecture that transformers has"
            )
        for name in _weights_named(found):
            _check_place(path, file, name, files)


def _settings(file: Path) -> dict[str, Any]:
    """What a JSON file says; {} for one that is damaged, which its reader will say."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(code: Any) -> str:
    return str(next(iter(code.values()), code) if isinstance(code, dict) else code)[:100]


def _weights_named(settings: dict[str, Any]) -> set[str]:
    """The files of weights that an index, or a configuration, names."""
    places = settings.get("weight_map")
    named = list(places.values()) if isinstance(places, dict) else []
    named.append(settings.get("transformers_weights"))
    return {each for each in named if isinstance(each, str)}


def _check_place(folder: Path, index: Path, name: str, files: list[Path]) -> None:
    place = Path(os.path.normpath(index.parent / name))
    inside = place.is_relative_to(os.path.normpath(folder)) and not Path(name).is_absolute()
    if not inside or (place.exists() and place not in files):
        raise InvalidInput(
            f"{index} names the weights {name}, which are not among the folder's own files; copy "
            "them into the folder, not hidden, and correct the index"
        )


def plain_config(path: str, **changes: Any) -> Any:
    """The configuration of a transformers folder, without the code that it chooses.

    A folder may name an attention, or experts, that transformers would fetch from the hub and run.
    Here it gets those that a folder has which says nothing.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, **FILES_ONLY, **changes)
    config._attn_implementation = None
    config._experts_implementation = None
    return config


@contextmanager
def loading(name: str, path: str) -> Iterator[None]:
    """Whatever a library raises for a broken folder becomes InvalidInput that names the model.

    Errors for want of memory or a package are not the folder's fault, and pass unchanged.
    """
    try:
        yield
    except (EmberError, MemoryError, ModuleNotFoundError):
        raise
    except BaseException as error:
        kinds = {kind.__name__ for kind in type(error).__mro__}
        # Libraries written in Rust have an exception of their own beside Exception.
        if _MACHINE & kinds or not {"Exception", "PanicException"} & kinds:
            raise
        reason = _damage(Path(path)) or " ".join(str(error).split())[:300] or type(error).__name__
        raise InvalidInput(f"{name} cannot be loaded: {reason}") from None


def _damage(path: Path) -> str | None:
    """What is wrong with a file of weights, as far as its size and beginning show."""
    for file in weight_files(path):
        if file.suffix not in _WEIGHTS:
            continue
        with file.open("rb") as stream:
            start = stream.read(len(_POINTER))
        if start == _POINTER:
            return f"{file} is a pointer of Git LFS, not the file; fetch it with git lfs pull"
        if file.suffix == ".safetensors" and (whole := _tensors_end(file)) != file.stat().st_size:
            return f"{file} is cut off or damaged: it has {file.stat().st_size} bytes" + (
                f" of {whole}" if whole else ""
            )
    return None


def _tensors_end(file: Path) -> int | None:
    """The size that a safetensors file's header tells; None where it has none."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > file.stat().st_size:
            return None
        header = stream.read(length)
    try:
        tensors = [each for key, each in json.loads(header).items() if key != "__metadata__"]
        return 8 + length + max((int(each["data_offsets"][1]) for each in tensors), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError):
        return None
