"""What training minimizes, as a sum over rows, so that rows may be anywhere.

    F = sum over rows of s_i loss(layers(x_i), y_i)  +  penalty / 2 * |weights|^2

The losses are softmax cross-entropy (one label a row), sigmoid cross-entropy of each output (many
labels) and the squared hinge of each output (the linear SVM of liblinear). Minimized by L-BFGS
(Liu and Nocedal 1989), as scikit-learn does with its default solver; its penalty is 1 / C there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ember.worker.heads.head import Float32
from ember.worker.heads.rows import Float64

__all__ = ["INTERCEPT_SCALING", "Layers", "Loss", "Problem", "minimize"]

Loss = Literal["softmax", "sigmoid", "squared_hinge"]
Layers = list[tuple[Float64, Float64]]
# Of the SVM. With 1, scikit-learn's default, the penalty on the bias costs 3 points of accuracy on
# centered features (ResNet-18, caltech101-20); from 30 on nothing changes any more.
INTERCEPT_SCALING = 30.0
_CHUNK_ROWS = 2048
_GRADIENT_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Problem:
    """A stack of layers and a loss.

    sizes: features, hidden units of each layer, outputs. weights: what a row counts for: (c,) by
    its label for softmax, else (2, c) for an output that is absent [0] or present [1].
    """

    sizes: tuple[int, ...]
    loss: Loss
    weights: Float64

    def start(self, seed: int) -> Float64:
        """Where to begin: zeros for one layer, else uniform by Glorot and Bengio (2010)."""
        if len(self.sizes) == 2:
            return np.zeros(sum((a + 1) * b for a, b in self._shapes()))
        rng = np.random.default_rng(seed)
        flat = []
        for a, b in self._shapes():
            bound = np.sqrt(6 / (a + b))
            flat += [rng.uniform(-bound, bound, a * b), np.zeros(b)]
        return np.concatenate(flat)

    def layers(self, flat: Float64) -> Layers:
        """The parameters as (weights, bias) of each layer; views."""
        out, start = [], 0
        for a, b in self._shapes():
            weights = flat[start : start + a * b].reshape(a, b)
            out.append((weights, flat[start + a * b : start + (a + 1) * b]))
            start += (a + 1) * b
        return out

    def penalized(self) -> Float64:
        """Share of the penalty for each parameter: 1 for weights, for an SVM's bias next to none.

        liblinear has a bias under the penalty, scaled by its intercept_scaling.
        """
        bias = INTERCEPT_SCALING**-2 if self.loss == "squared_hinge" else 0.0
        flat = [part for a, b in self._shapes() for part in (np.ones(a * b), np.full(b, bias))]
        return np.concatenate(flat)

    def value(self, flat: Float64, rows: Float32, targets: NDArray[Any]) -> Float64:
        """The sum over rows, and after it its gradient: (1 + parameters,).

        rows: (n, features) standardized; targets: (n,) positions for softmax, else (n, c) bool.
        """
        layers = self.layers(flat)
        total = np.zeros(1 + len(flat))
        for start in range(0, len(rows), _CHUNK_ROWS):  # float64 copies of a few rows only
            part = slice(start, start + _CHUNK_ROWS)
            total += self._chunk(layers, rows[part].astype(np.float64), targets[part])
        return total

    def logits(self, flat: Float64, rows: Float32) -> Float64:
        """(n, outputs) for (n, features) standardized rows."""
        layers = self.layers(flat)
        parts = range(0, len(rows), _CHUNK_ROWS)
        chunks = (rows[start : start + _CHUNK_ROWS].astype(np.float64) for start in parts)
        out = [_forward(layers, chunk)[-1] for chunk in chunks]
        return np.concatenate(out) if out else np.empty((0, self.sizes[-1]))

    def _chunk(self, layers: Layers, rows: Float64, targets: NDArray[Any]) -> Float64:
        """As `value`, by backpropagation."""
        acts = _forward(layers, rows)  # (n, width) each
        loss, delta = self._loss(acts.pop(), targets)  # (n, outputs)
        flat: list[Float64] = []
        for (weights, _), act in zip(reversed(layers), reversed(acts), strict=True):
            flat = [(act.T @ delta).ravel(), delta.sum(axis=0), *flat]
            delta = (delta @ weights.T) * (act > 0)  # of a ReLU; of the rows it is not used
        return np.concatenate([[loss], *flat])

    def _loss(self, logits: Float64, targets: NDArray[Any]) -> tuple[float, Float64]:
        """The loss of n rows, and its gradient by their logits (n, outputs)."""
        from scipy.special import expit, log_softmax

        if self.loss == "softmax":
            row = np.arange(len(logits))
            logs = log_softmax(logits, axis=1)
            counts = self.weights[targets]
            delta = np.exp(logs)
            delta[row, targets] -= 1
            return float(-(counts * logs[row, targets]).sum()), delta * counts[:, None]
        counts = np.where(targets, self.weights[1], self.weights[0])
        if self.loss == "sigmoid":
            loss = counts * (np.logaddexp(0, logits) - np.where(targets, logits, 0))
            return float(loss.sum()), counts * (expit(logits) - targets)
        sign = np.where(targets, 1.0, -1.0)
        margin = np.maximum(1 - sign * logits, 0)
        return float((counts * margin**2).sum()), -2 * counts * sign * margin

    def _shapes(self) -> list[tuple[int, int]]:
        return list(zip(self.sizes[:-1], self.sizes[1:], strict=True))


def _forward(layers: Layers, rows: Float64) -> list[Float64]:
    """The rows, what each hidden layer makes of them, and the outputs."""
    acts = [rows]
    for number, (weights, bias) in enumerate(layers):
        out = acts[-1] @ weights + bias
        acts.append(out if number == len(layers) - 1 else np.maximum(out, 0))
    return acts


def minimize(
    problem: Problem,
    total: Callable[[Float64], Float64],
    *,
    rows: int,
    penalty: float,
    start: Float64,
    iterations: int,
) -> Float64:
    """The parameters that minimize the sum over `rows` rows that `total` gives, and the penalty.

    total: parameters to `Problem.value`, summed over all rows, wherever they are.
    """
    from scipy.optimize import minimize

    under = penalty * problem.penalized()

    def mean(flat: Float64) -> tuple[float, Float64]:
        sums = total(flat)
        value = sums[0] + 0.5 * float(under @ flat**2)
        return value / rows, (sums[1:] + under * flat) / rows

    options = {"maxiter": iterations, "gtol": _GRADIENT_TOLERANCE, "ftol": 1e-12, "maxls": 50}
    found = minimize(mean, start, jac=True, method="L-BFGS-B", options=options)
    best: Float64 = found.x
    return best
