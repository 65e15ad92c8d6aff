"""Fitting a head on the rows of one worker; and choosing its penalty, wherever the rows are."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ember.errors import InvalidInput
from ember.worker.heads.head import Float32, Head, Kind, standardize
from ember.worker.heads.objective import INTERCEPT_SCALING, Layers, Loss, Problem, minimize
from ember.worker.heads.rows import ColumnMoments, Float64, Rows, check_scale, scaling
from ember.worker.heads.weighting import fit_weighted

__all__ = [
    "PENALTIES",
    "Fitter",
    "Recipe",
    "class_weights",
    "fit",
    "fit_on_worker",
    "fold_loss",
    "fold_of",
    "problem_of",
    "targets_of",
    "to_head",
]

PENALTIES = tuple(10.0**power for power in range(-3, 5))
"""What cross-validation tries; then half a decade to either side of the best."""
STRETCHES = (1.0, 1.5, 2.0, 3.0, 4.0)
"""What the weights of a multi-label head may be multiplied by, once they are fitted."""

_LINEAR_ITERATIONS = 10_000
# Bias of a label that no row of a fold has: a probability of e^-50.
_NEVER = -50.0


@dataclass(frozen=True)
class Recipe:
    """What is to be trained, and how; see `TrainConfig` for what the keys mean.

    parts: dimension of each feature table. indicators: the tables that some training rows lack.
    penalty: None has it chosen by cross-validation, of `penalties`. weights: of the tables, None:
    chosen too. dimension: of a learned metric's output.
    """

    kind: Kind
    labels: tuple[str, ...]
    multilabel: bool
    parts: tuple[int, ...]
    indicators: tuple[int, ...] = ()
    scaling: Literal["table", "feature"] = "table"
    penalty: float | None = 1.0
    penalties: tuple[float, ...] = PENALTIES
    weights: tuple[float, ...] | None = ()
    folds: int = 5
    balanced: bool = False
    hidden: tuple[int, ...] = (128,)
    iterations: int = 200
    dimension: int = 128
    seed: int = 0

    @property
    def one_output(self) -> bool:
        """Two labels of which each row has one: the linear heads have one output for both."""
        return len(self.labels) == 2 and not self.multilabel and self.kind != "mlp"

    @property
    def loss(self) -> Loss:
        if self.kind == "svm":
            return "squared_hinge"
        return "sigmoid" if self.multilabel or self.one_output else "softmax"


class Fitter(Protocol):
    """Training rows, somewhere, on one scale."""

    def fit(self, penalty: float, without: int | None) -> Layers:
        """Layers fitted on all rows, or on those outside one fold."""

    def loss(self, layers: Layers, fold: int) -> tuple[float, int]:
        """The head's own loss, summed over a fold, every row counting once; and its rows."""


def fit(recipe: Recipe, fitter: Fitter) -> tuple[Layers, dict[str, Any]]:
    """The fitted layers, and what to note about the choice of the penalty.

    Cross-validation tries `recipe.penalties`, then half a decade to either side of the best, and
    takes the largest penalty whose mean loss is within one standard error of the least: the
    one-standard-error rule (Breiman et al. 1984; Hastie, Tibshirani and Friedman, The Elements of
    Statistical Learning, section 7.10). The error is that of the mean over folds.

    For a multi-label head it tries stretches instead, and takes the least loss: what orders rows
    best by a label that few rows have is a penalty under which the scores hardly vary, so that
    their loss would speak against it. The weights of the last layer, not its bias, are multiplied
    by that of `STRETCHES` with the least loss (the idea of the relaxed lasso, Meinshausen, 2007,
    for a penalty on squares).
    """
    if recipe.penalty is not None:
        return fitter.fit(recipe.penalty, None), {"penalty": recipe.penalty}
    several = recipe.multilabel and recipe.kind != "svm"
    stretches = STRETCHES if several else STRETCHES[:1]
    tried = {penalty: _judge(recipe, fitter, penalty, stretches) for penalty in recipe.penalties}
    best = min(tried, key=lambda penalty: (tried[penalty].loss, -penalty))
    for penalty in (best / 10**0.5, best * 10**0.5):
        tried[penalty] = _judge(recipe, fitter, penalty, stretches)
    least, error = min((each.loss, each.error) for each in tried.values())
    most = least if several else least + error
    chosen = max(penalty for penalty, each in tried.items() if each.loss <= most)
    losses = {f"{penalty:.3g}": round(tried[penalty].loss, 6) for penalty in sorted(tried)}
    notes: dict[str, Any] = {
        "penalty": chosen,
        "cross_validation": {"folds": recipe.folds, "loss": losses, "error": round(error, 6)},
    }
    if several:
        notes["stretch"] = tried[chosen].stretch
    return stretched(fitter.fit(chosen, None), tried[chosen].stretch), notes


@dataclass(frozen=True)
class _Judged:
    """Of a penalty: the stretch with the least mean loss, that loss, and its standard error."""

    stretch: float
    loss: float
    error: float


def _judge(recipe: Recipe, fitter: Fitter, penalty: float, stretches: tuple[float, ...]) -> _Judged:
    sums = np.zeros((len(stretches), recipe.folds))
    rows = np.zeros(recipe.folds)
    for fold in range(recipe.folds):
        layers = fitter.fit(penalty, fold)
        for number, factor in enumerate(stretches):
            sums[number, fold], rows[fold] = fitter.loss(stretched(layers, factor), fold)
    best = int(sums.sum(axis=1).argmin())
    means = sums[best, rows > 0] / rows[rows > 0]
    error = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else 0.0
    return _Judged(stretches[best], float(sums[best].sum() / rows.sum()), float(error))


def stretched(layers: Layers, factor: float) -> Layers:
    """The layers with the weights of the last one multiplied."""
    *before, (weights, bias) = layers
    return [*before, (weights * factor, bias)]


def fit_on_worker(rows: Rows, recipe: Recipe) -> Head:
    """A head fitted on training rows that are all here; not calibrated yet.

    The order of the rows counts (floating-point sums): have them sorted by id.
    """
    mean, scale = scaling(ColumnMoments.of(rows.matrix), list(recipe.parts), recipe.scaling)
    check_scale(rows.matrix, recipe.parts, scale)

    def attempt(recipe: Recipe, scale: Float32) -> tuple[Layers, dict[str, Any]]:
        matrix = standardize(rows.matrix, recipe.parts, recipe.indicators, mean, scale)
        return fit(recipe, _OnWorker(matrix, rows, recipe))

    layers, scale, notes = fit_weighted(recipe, scale, attempt)
    return to_head(recipe, layers, mean, scale, notes)


def to_head(
    recipe: Recipe, layers: Layers, mean: Float32, scale: Float32, notes: dict[str, Any]
) -> Head:
    """A head with a column for each label, and calibration that changes nothing."""
    if recipe.one_output:
        ((weights, bias),) = layers
        # Half each way, so that their difference is the one output.
        layers = [(weights * [[-0.5, 0.5]], bias * [-0.5, 0.5])]
    c = len(recipe.labels)
    return Head(
        kind=recipe.kind,
        labels=recipe.labels,
        multilabel=recipe.multilabel,
        parts=recipe.parts,
        indicators=recipe.indicators,
        mean=mean,
        scale=scale,
        layers=tuple((w.astype(np.float32), b.astype(np.float32)) for w, b in layers),
        slope=np.ones(c, np.float32),
        offset=np.zeros(c, np.float32),
        thresholds=np.full(c, 0.5, np.float32),
        about=notes,
    )


def targets_of(rows: Rows, recipe: Recipe) -> NDArray[Any]:
    """Targets as `Problem` takes them: positions for softmax, else one bool for each output."""
    if recipe.multilabel or recipe.loss == "softmax":
        return rows.targets
    if recipe.one_output:
        return np.asarray(rows.targets[:, None] == 1)
    return _one_hot(rows.targets, recipe)


def class_weights(recipe: Recipe, counts: Float64, rows: int) -> Float64:
    """What rows count for, as `Problem` takes it.

    counts: (c,) training rows with each label. Balanced as in scikit-learn: rows / (k * rows of
    the class), where k is the number of labels, and 2 where each label is decided by itself.
    """
    if recipe.loss == "softmax":
        even = rows / (len(counts) * np.maximum(counts, 1))
        return even if recipe.balanced else np.ones(len(counts))
    if recipe.one_output:
        counts = counts[1:]
    both = np.stack([rows - counts, counts])
    return rows / (2 * np.maximum(both, 1)) if recipe.balanced else np.ones_like(both)


def problem_of(recipe: Recipe, counts: Float64, rows: int) -> Problem:
    """The problem of a recipe; counts and rows as for `class_weights`."""
    width = sum(recipe.parts) + len(recipe.indicators)
    hidden = recipe.hidden if recipe.kind == "mlp" else ()
    outputs = 1 if recipe.one_output else len(recipe.labels)
    return Problem((width, *hidden, outputs), recipe.loss, class_weights(recipe, counts, rows))


def fold_of(draw: Float64, folds: int) -> NDArray[np.int64]:
    """(n,) the fold of each row, from the draw of its id."""
    return (draw * folds).astype(np.int64)


def fold_loss(
    problem: Problem, layers: Layers, matrix: Float32, targets: NDArray[Any]
) -> tuple[float, int]:
    """See `Fitter.loss`, of (n, features) rows on one scale."""
    flat = np.concatenate([part.ravel() for layer in layers for part in layer])
    plain = replace(problem, weights=np.ones_like(problem.weights))
    return float(plain.value(flat, matrix, targets)[0]), len(matrix)


class _OnWorker:
    """Rows in this process: linear heads by scikit-learn, networks by `minimize`."""

    def __init__(self, matrix: Float32, rows: Rows, recipe: Recipe) -> None:
        self._matrix = matrix
        self._targets = targets_of(rows, recipe)
        self._folds = fold_of(rows.draw, recipe.folds)
        self._recipe = recipe
        one_hot = rows.targets if recipe.multilabel else _one_hot(rows.targets, recipe)
        self._problem = problem_of(recipe, one_hot.sum(axis=0).astype(np.float64), len(rows))

    def fit(self, penalty: float, without: int | None) -> Layers:
        chosen = self._folds != without
        matrix, targets = self._matrix[chosen], self._targets[chosen]
        if self._recipe.kind != "mlp":
            return _linear(matrix, targets, self._problem, penalty, self._recipe)
        problem = self._problem
        flat = minimize(
            problem,
            lambda now: problem.value(now, matrix, targets),
            rows=len(matrix),
            penalty=penalty,
            start=problem.start(self._recipe.seed),
            iterations=self._recipe.iterations,
        )
        return problem.layers(flat)

    def loss(self, layers: Layers, fold: int) -> tuple[float, int]:
        chosen = self._folds == fold
        return fold_loss(self._problem, layers, self._matrix[chosen], self._targets[chosen])


def _one_hot(targets: NDArray[Any], recipe: Recipe) -> NDArray[np.bool_]:
    return np.asarray(targets[:, None] == np.arange(len(recipe.labels)))


def _linear(
    matrix: Float32, targets: NDArray[Any], problem: Problem, penalty: float, recipe: Recipe
) -> Layers:
    """One layer by scikit-learn: LogisticRegression for softmax, else a model for each output."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.svm import LinearSVC
    except ImportError:
        raise InvalidInput(
            "training needs scikit-learn on the workers; install ember-spark[learn] there"
        ) from None
    rows = matrix.astype(np.float64)
    given: dict[str, Any] = {"C": 1 / penalty, "max_iter": _LINEAR_ITERATIONS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Many labels of a row each are what was asked for.
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        if problem.loss == "softmax":
            model = LogisticRegression(**given)
            counts = problem.weights[targets]
            return [_softmax_layer(model, rows, targets, counts, problem.sizes[-1])]
        outputs = []
        for number in range(targets.shape[1]):
            wanted = targets[:, number]
            absent, present = problem.weights[:, number]
            counts = np.where(wanted, present, absent)
            model = (
                LinearSVC(**given, random_state=recipe.seed, intercept_scaling=INTERCEPT_SCALING)
                if problem.loss == "squared_hinge"
                else LogisticRegression(**given)
            )
            outputs.append(_one_output(model, rows, wanted, counts))
    weights, bias = zip(*outputs, strict=True)
    return [(np.stack(weights, axis=1), np.array(bias))]


def _softmax_layer(
    model: Any, rows: Float64, targets: NDArray[Any], counts: Float64, c: int
) -> tuple[Float64, Float64]:
    """Weights (features, c) and bias (c,) of the softmax over c labels; a fold may lack some.

    targets: (n,) positions. counts: (n,), what each row counts for.
    """
    seen = np.unique(targets)
    weights, bias = np.zeros((rows.shape[1], c)), np.full(c, _NEVER)
    if len(seen) > 2:
        model.fit(rows, targets, sample_weight=counts)
        weights[:, seen], bias[seen] = model.coef_.T, model.intercept_
    elif len(seen) == 2:
        model.fit(rows, targets, sample_weight=counts)
        weights[:, seen] = model.coef_.T * [[-0.5, 0.5]]
        bias[seen] = model.intercept_ * [-0.5, 0.5]
    else:
        bias[seen] = 0
    return weights, bias


def _one_output(
    model: Any, rows: Float64, wanted: NDArray[np.bool_], counts: Float64
) -> tuple[Float64, float]:
    """Weights (features,) and bias of an output that is wanted (n,) or not.

    One that is always or never wanted has its log odds by the rule of succession, whatever the row.
    """
    if wanted.all() or not wanted.any():
        odds = (wanted.sum() + 1) / (len(wanted) - wanted.sum() + 1)
        return np.zeros(rows.shape[1]), float(np.log(odds))
    model.fit(rows, wanted, sample_weight=counts)
    return model.coef_[0], float(np.ravel(model.intercept_)[0])
