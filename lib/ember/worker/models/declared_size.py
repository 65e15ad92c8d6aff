"""Models that declare more than their files hold: refused before they are built.

A config.json of a few bytes can ask for a billion layers or words. Transformers would build them,
fill what the files lack with random numbers, and only then say that they do not fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ember.errors import InvalidInput
from ember.worker.spec import weight_files

__all__ = ["bounded", "check_numbers"]

# Some configurations make a list of their layers or labels as they are read. The deepest models
# have some hundreds of layers, and the largest heads some 10,000 labels.
_MOST = {"layer": 10_000, "layers": 10_000, "labels": 1_000_000}
# Places of layers, as `vision_feature_layer`, may count from the end.
_COUNTED = frozenset({"layers", "heads", "labels"})
_SIZES = frozenset({"n_layer", "n_head", "hidden_size", "vocab_size", "intermediate_size"})
# Numbers of a model for each byte of its files: 0.25 for float32, 2 for 4 bits. The rest is for
# parts that a folder may lack: a pooler, a decoder, a head, one matrix in two places.
_PER_BYTE = 2
_SPARE = 2**24
# Masks and positions are buffers that no file holds.
_BUFFERS = 2**30


def check_numbers(file: Path, settings: dict[str, Any]) -> None:
    """Raise InvalidInput where a config.json declares more layers or labels than any model has.

    Also for fewer than none: of lists of no layers and of negative sizes libraries make something
    else in each model.
    """
    sections = [settings]
    while sections:
        for key, value in sections.pop().items():
            if isinstance(value, dict):
                sections.append(value)
            kind = key.rpartition("_")[2]
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and value < 0 and (kind in _COUNTED or key in _SIZES):
                raise InvalidInput(f"{file} declares {key} {value:.6g}; make it a number from 0")
            most = _MOST.get(kind)
            if most and isinstance(value, int | float) and value > most:
                raise InvalidInput(f"{file} declares {key} {value:.6g}; Ember takes up to {most}")


@contextmanager
def bounded(path: str) -> Iterator[None]:
    """While a model of the folder `path` is built, stop as soon as it outgrows the files there.

    Raises InvalidInput then. Counted is what is laid out without memory (torch's meta device), as
    transformers does it, so that the weights which then take its place do not count again.
    """
    from torch.nn.modules import module

    held = sum(file.stat().st_size for file in weight_files(Path(path)))
    room = {"parameters": _PER_BYTE * held + _SPARE, "buffers": _PER_BYTE * held + _BUFFERS}

    def count(kind: str, tensor: Any) -> None:
        if tensor is not None and tensor.is_meta:
            room[kind] -= tensor.numel()
            if room[kind] < 0:
                raise InvalidInput(
                    f"{path}/config.json declares a model with many more {kind} than its files "
                    f"hold, which have {held} bytes; give the config.json of these weights"
                )

    hooks = [
        module.register_module_parameter_registration_hook(
            lambda _module, _name, tensor: count("parameters", tensor)
        ),
        module.register_module_buffer_registration_hook(
            lambda _module, _name, tensor: count("buffers", tensor)
        ),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
