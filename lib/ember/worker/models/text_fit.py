"""What a text encoder takes, found by running it: how long a text, and which texts side by side.

Architectures differ in both, and neither a model's configuration nor its class tells reliably:
positions may start behind the padding's, attention may read what is masked, a model may take no
mask at all. So a worker tries its model once, when it is loaded, always on the same tokens:

 1. Two short texts go in while the tables that the model looks up are watched (`try_tables`).
 2. The longest text goes through the first layer; where that fails, shorter ones do.
 3. Short texts go through the whole model and long ones through the first layer, alone and in a
    batch. Where the company that a text is in changes its vector, the company is restricted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ember.errors import InvalidInput
from ember.worker.models.first_layer import first_layers, states_after
from ember.worker.models.text_tokens import Tokens
from ember.worker.models.text_trial import LONGER, SHORT, Trial, passes_first_layer, resized

__all__ = ["Fit", "find_fit", "find_longest"]

Matrix = npt.NDArray[np.float32]

# Longer ones would take seconds and gigabytes; of those the tables of positions tell.
_LONGEST_ALONE, _LONGEST_PAIR = 4096, 2048
# Floating-point operations of a trial, about a second of two processors.
_TRIAL_COST = 3e11
_FEWEST = 3
_WIDTHS = (0, 4, 8, 16, 32, 64)


Together = Literal["any", "equal", "alone"]
# In the order of preference.
_WAYS: tuple[Together, ...] = ("any", "equal", "alone")


@dataclass(frozen=True)
class Fit:
    """How texts are given to a model.

    longest: most tokens of a text, special ones included.
    fewest, least: a text of fewer than `fewest` tokens is padded to `least`; 0 where any will do.
    together: texts of any lengths in a batch, padded; or of one length; or each alone.
    fresh: each call starts from the model as it was loaded and from the same random numbers.
    """

    longest: int
    fewest: int = 0
    least: int = 0
    together: Together = "any"
    fresh: bool = False

    def groups(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """The rows of each call of the model, for a batch of texts with so many tokens each."""
        if self.together == "any":
            yield list(range(len(lengths)))
            return
        alone = self.together == "alone"
        keys = range(len(lengths)) if alone else [self.width([each]) for each in lengths]
        for key in dict.fromkeys(keys):
            yield [row for row, each in enumerate(keys) if each == key]

    def width(self, lengths: Sequence[int]) -> int:
        """The tokens, padding included, of each line of a call for texts with so many tokens."""
        return max(*lengths, self.least if min(lengths) < self.fewest else 0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is out of the ordinary, for the log and the manifest."""
        together = {
            "any": "",
            "equal": "texts of equal length in a batch, since padding changes this model's vectors",
            "alone": "one text at a time, since company changes this model's vectors",
        }[self.together]
        least = f"texts of fewer than {self.fewest} tokens padded to {self.least}, as it needs"
        fresh = "the model put back before each batch, since batches change it"
        return tuple(filter(None, (together, least * bool(self.least), fresh * self.fresh)))


def find_fit(trial: Trial, longest: int, name: str, *, full: bool = False) -> Fit:
    """How texts are to be given to the model under trial.

    longest: most tokens of a text, as far as files and tables tell.
    full: every text is padded to that length.
    name: of the model, for the error.

    Raises InvalidInput, with the model's own words, when it cannot embed a text, or not the same
    one twice.
    """
    fewest, least = (longest, longest) if full else _least(trial, longest, name)
    trial.restore()
    fit = Fit(_longest(trial, longest, max(LONGER, least)), fewest, least)
    cases = _Cases(trial, fit)
    for fresh, together in product((False, True), _WAYS):
        fit = replace(fit, fresh=fresh, together=together)
        if cases.hold(fit):
            trial.restore()
            return fit
    raise InvalidInput(f"{name} gives another vector for the same text each time")


def find_longest(trial: Trial, longest: int) -> int:
    """Most tokens of a text, by running the model; `longest` by files and tables."""
    trial.restore()
    found = _longest(trial, longest, min(LONGER, longest))
    trial.restore()
    return found


class _Cases:
    """Texts whose vectors, alone and from the model as it was loaded, are known."""

    def __init__(self, trial: Trial, fit: Fit) -> None:
        self._trial = trial
        self._restore = trial.restore
        short, longer = (resized(trial.example, min(n, fit.longest)) for n in (SHORT, LONGER))
        self._short = [short, longer, _turned(short)]
        most = min(fit.longest, _LONGEST_PAIR, _affordable(trial.model))
        self._long = [resized(trial.example, most * 5 // 8), resized(trial.example, most)]
        self._vectors = [self._alone(fit, trial.scores, item) for item in self._short]
        self._states = [self._alone(fit, self._first, item) for item in self._long]

    def hold(self, fit: Fit) -> bool:
        """Are the vectors the same when texts are given like this?"""
        self._restore(1)
        try:
            vectors = self._batch(fit, self._trial.scores, self._short)
            states = self._batch(fit, self._first, self._long)
        except Exception as error:
            if self._trial.is_out_of_memory(error):
                raise
            return False
        pairs = [*zip(vectors, self._vectors, strict=True)]
        for item, ours, alone in zip(self._long, states, self._states, strict=True):
            if ours is not None and alone is not None:
                pairs.append((ours[: item.shape[1]], alone[: item.shape[1]]))
        return all(_same(ours, alone, self._trial.tolerance) for ours, alone in pairs)

    def _alone(self, fit: Fit, run: Callable[..., Any], item: Tokens) -> Any:
        self._restore()
        return run([item], fit.width([item.shape[1]]))[0]

    def _batch(self, fit: Fit, run: Callable[..., Any], items: Sequence[Tokens]) -> list[Any]:
        results: list[Any] = [None] * len(items)
        lengths = [item.shape[1] for item in items]
        for rows in fit.groups(lengths):
            if fit.fresh:
                self._restore()
            made = run([items[row] for row in rows], fit.width([lengths[row] for row in rows]))
            for row, each in zip(rows, made, strict=True):
                results[row] = each
        return results

    def _first(self, items: Sequence[Tokens], width: int) -> Any:
        states = states_after(
            self._trial.model, lambda: self._trial.forward(items, width), len(items)
        )
        return [None] * len(items) if states is None else states.float().cpu().numpy()


def _least(trial: Trial, longest: int, name: str) -> tuple[int, int]:
    """Fit.fewest and Fit.least: (0, 0) where short texts run as they are.

    Else `least` is the smallest width at which they run padded, and `fewest` the length from which
    on a text runs without.
    """
    reason = ""

    def runs(length: int, width: int) -> bool:
        nonlocal reason
        try:
            trial.scores([resized(trial.example, length)], width)
        except InvalidInput:
            raise
        except Exception as error:
            if trial.is_out_of_memory(error):
                raise
            reason = reason or f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return False
        return True

    widths = [*(each for each in _WIDTHS if each < longest), min(longest, _LONGEST_ALONE)]
    for width in widths:
        lengths = [each for each in (_FEWEST, SHORT) if each <= width or not width]
        if all(runs(length, width) for length in lengths) and (not width or runs(width, 0)):
            if not width:
                return 0, 0
            return next((each for each in widths if each and runs(each, 0)), 0), width
    raise InvalidInput(f"{name} cannot embed a text: {reason}")


def _longest(trial: Trial, stated: int, good: int) -> int:
    """`stated`, or fewer tokens where the model does not take so many; it takes `good`."""

    def runs(length: int) -> bool:
        return passes_first_layer(trial, [resized(trial.example, length)])

    bad = min(stated, _LONGEST_ALONE, max(_affordable(trial.model), good))
    if runs(bad) or bad <= good:
        return stated
    step = 1
    while bad - step > good:  # mostly a few positions are reserved
        if runs(bad - step):
            good = bad - step
            break
        bad, step = bad - step, 2 * step
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if runs(middle) else (good, middle)
    return good


def _affordable(model: Any) -> int:
    """So many tokens may go through the first layer in a trial."""
    parts = first_layers(model) or [model]
    size = max(sum(each.numel() for each in part.parameters()) for part in parts)
    return max(int(_TRIAL_COST / (8 * max(size, 1))), 256)


def _turned(item: Tokens) -> Tokens:
    """Another text of the same length."""
    return np.concatenate([item[:, :1], item[:, -2:0:-1], item[:, -1:]], axis=1)[:, : item.shape[1]]


def _same(ours: Matrix, alone: Matrix, tolerance: float) -> bool:
    if ours.shape != alone.shape:
        return False
    scale = float(np.abs(alone).max(initial=0, where=np.isfinite(alone)))
    return np.allclose(ours, alone, rtol=0, atol=tolerance * scale, equal_nan=True)
