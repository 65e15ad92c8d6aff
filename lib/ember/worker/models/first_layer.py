"""Looking into a torch model while it runs: its first layer's output, the tables it looks up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Lookup",
    "first_layers",
    "has_class_token",
    "keeps_tensors",
    "lookups",
    "states_after",
    "unchanged",
]


@dataclass(frozen=True)
class Lookup:
    """One use of an embedding table: how many rows it has, the largest that was asked for."""

    table: int
    rows: int
    largest: int


class _Enough(Exception):
    """The first layer is done."""


def states_after(model: Any, call: Callable[[], Any], rows: int) -> Any:
    """What the first layer of `model` returns in `call()`, which ends there: (rows, t, d).

    The first layer is the first of `first_layers` that returns such states. Where none does, the
    last states of the whole model; None where it has none.
    rows: texts in the call.
    """
    caught: list[Any] = []

    def catch(_: Any, __: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        if getattr(states, "ndim", 0) != 3:
            return
        if states.shape[0] == rows:
            caught.append(states)
        elif states.shape[1] == rows:  # time first, as XLNet has it
            caught.append(states.transpose(0, 1))
        else:
            return
        raise _Enough

    hooks = [layer.register_forward_hook(catch) for layer in first_layers(model)]
    try:
        return getattr(call(), "last_hidden_state", None)
    except _Enough:
        return caught[0]
    finally:
        for hook in hooks:
            hook.remove()


def has_class_token(model: Any, call: Callable[[], Any]) -> bool:
    """Is the first of the tokens that `call()` returns for two pictures a class token?

    Such a token is the same for all pictures before the first layer in which it takes part, and the
    tokens of patches are not. call: runs the model on two pictures that have nothing in common.
    """
    seen: list[tuple[int, bool]] = []

    def watch(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for states in (*args, *kwargs.values()):
            if getattr(states, "ndim", 0) == 3 and states.shape[0] == 2 and states.shape[1] > 1:
                apart = (states[0] - states[1]).float().abs().amax(-1)
                least = 1e-5 * float(states.float().abs().amax())
                seen.append((states.shape[1], bool(apart[0] <= least < apart[1:].amax())))

    hooks = [each.register_forward_pre_hook(watch, with_kwargs=True) for each in model.modules()]
    try:
        hidden: Any = getattr(call(), "last_hidden_state", None)
    finally:
        for hook in hooks:
            hook.remove()
    return hidden is not None and hidden.ndim == 3 and (hidden.shape[1], True) in seen


def first_layers(model: Any) -> Sequence[Any]:
    """The first member of each list of modules that lies in no other list."""
    from torch.nn import ModuleList

    found: list[Any] = []
    for child in model.children():
        if not isinstance(child, ModuleList):
            found.extend(first_layers(child))
            continue
        first = child
        while isinstance(first, ModuleList) and len(first):
            first = first[0]
        found.append(first)
    return found


@contextmanager
def lookups() -> Iterator[list[Lookup]]:
    """The uses of embedding tables inside the block, in order, those that fail included.

    Raises IndexError inside for a row that a table does not have: on a GPU that would otherwise
    end the process.
    """
    from torch.nn.functional import embedding
    from torch.overrides import TorchFunctionMode

    seen: list[Lookup] = []

    class Watching(TorchFunctionMode):  # type: ignore[misc]  # torch has no types for it
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is embedding and len(args) > 1 and args[0].numel():
                index, weight = args[:2]
                seen.append(Lookup(id(weight), len(weight), int(index.max())))
                if seen[-1].largest >= len(weight):
                    raise IndexError(f"row {seen[-1].largest} of a table of {len(weight)}")
            return func(*args, **(kwargs or {}))

    with Watching():
        yield seen


def keeps_tensors(model: Any, call: Callable[[], Any]) -> bool:
    """Are there other tensors in the modules of `model` after `call()`, for the next call?"""
    import torch

    def tensors() -> dict[tuple[int, str], Any]:
        return {
            (id(module), name): value
            for module in model.modules()
            for name, value in {**vars(module), **module._buffers}.items()
            if isinstance(value, torch.Tensor)
        }

    before = tensors()
    call()
    after = tensors()
    return before.keys() != after.keys() or any(after[key] is not before[key] for key in before)


def unchanged(model: Any) -> Callable[..., None]:
    """A function that puts the model back to what it is now, and the random numbers to a seed.

    Attributes of its modules and the modules themselves are put back, not the weights' values.
    """
    import torch

    saved = [
        (module, dict(vars(module)), dict(module._modules), dict(module._buffers))
        for module in model.modules()
    ]

    def restore(seed: int = 0) -> None:
        for module, attributes, modules, buffers in saved:
            vars(module).clear()
            vars(module).update(attributes)
            for kept, before in ((module._modules, modules), (module._buffers, buffers)):
                kept.clear()
                kept.update(before)
        torch.manual_seed(seed)

    return restore
