"""The head: scores against scipy, and a folder that survives nothing but itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, softmax

from ember.errors import InvalidInput
from ember.worker.heads.head import Head


def head(*, multilabel=False, kind="mlp", parts=(3, 2), indicators=(1,)):
    rng = np.random.default_rng(1)
    d, c = sum(parts), 4

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    labels = () if kind == "similarity" else ("a", "b", "ç", "d")
    vector = normal(len(labels))
    return Head(
        kind=kind,
        labels=labels,
        multilabel=multilabel,
        parts=parts,
        indicators=indicators,
        mean=normal(d),
        scale=np.abs(normal(d)) + 1,
        layers=((normal(d + len(indicators), 6), normal(6)), (normal(6, c), normal(c))),
        slope=np.abs(vector),
        offset=vector,
        thresholds=np.full(len(labels), 0.5, np.float32),
        about={"metrics": {"accuracy": 0.5}},
    )


def reference(head, matrix):
    """In float64, row by row."""
    out = []
    for row in matrix.astype(np.float64):
        missing = [np.isnan(part).all() for part in np.split(row, np.cumsum(head.parts)[:-1])]
        z = np.nan_to_num((row - head.mean) / head.scale, nan=0.0)
        z = np.append(z, [float(missing[number]) for number in head.indicators])
        (first, one), (second, two) = head.layers
        out.append(np.maximum(z @ first + one, 0) @ second + two)
    return np.array(out)


@pytest.mark.parametrize("multilabel", [False, True])
def test_scores_are_those_of_float64(multilabel):
    it = head(multilabel=multilabel)
    matrix = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    matrix[2, 3:] = np.nan  # the second table is missing
    matrix[5, :3] = np.nan  # the first one is, which has no indicator
    logits = reference(it, matrix) * it.slope + it.offset
    expected = expit(logits) if multilabel else softmax(logits, axis=1)
    np.testing.assert_allclose(it.scores(matrix), expected, atol=1e-6)
    assert it.scores(matrix).dtype == np.float32
    assert it.scores(matrix[:0]).shape == (0, 4)


def test_extreme_logits_overflow_nowhere():
    it = head()
    scores = it.scores(np.full((1, 5), 1e30, np.float32))
    assert np.isfinite(scores).all()


def test_a_row_that_is_not_finite_gets_nan_and_no_other():
    matrix = np.zeros((3, 5), np.float32)
    matrix[1, 0] = np.nan
    assert np.isnan(head().scores(matrix)).any(axis=1).tolist() == [False, True, False]


def test_a_folder_gives_back_the_head(tmp_path):
    it = head(multilabel=True)
    it.save(str(tmp_path / "a b" / "head"))
    loaded = Head.load(str(tmp_path / "a b" / "head"))
    assert (loaded.labels, loaded.parts, loaded.about) == (it.labels, it.parts, it.about)
    assert loaded.fingerprint() == it.fingerprint()
    assert loaded.fingerprint() != head(multilabel=False).fingerprint()
    matrix = np.ones((2, 5), np.float32)
    np.testing.assert_array_equal(loaded.scores(matrix), it.scores(matrix))


def test_a_learned_metric_projects_and_gives_no_labels(tmp_path):
    it = head(kind="similarity", parts=(5,), indicators=())
    it.save(str(tmp_path))
    matrix = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    np.testing.assert_allclose(
        Head.load(str(tmp_path)).project(matrix), reference(it, matrix), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(InvalidInput, match="learned metric"):
        it.scores(matrix)
    with pytest.raises(InvalidInput, match="no projection"):
        head().project(matrix)
    with pytest.raises(InvalidInput, match="takes a similarity head of one table"):
        head().as_projection()


def _truncate(folder):
    path = folder / "head.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _rewrite(**changes):
    def change(folder):
        path = folder / "head.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")

    return change


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "head.json").unlink(), "there is no head.json"),
        (lambda folder: (folder / "head.safetensors").unlink(), "the folder is incomplete"),
        (lambda folder: (folder / "head.json").write_text("{"), "cannot read"),
        (lambda folder: (folder / "head.json").write_text("[" * 200_000), "nested too deeply"),
        (_rewrite(labels=["a", "\ud800"]), "not Unicode"),
        (_rewrite(labels=[None, 1]), "does not hold together"),
        (_rewrite(labels="ab"), "does not hold together"),
        (_rewrite(labels=["a", "a"]), "does not hold together"),
        (_rewrite(parts=[6, -1]), "does not hold together"),
        (_rewrite(parts=[float("inf")]), "does not hold together"),
        (_rewrite(multilabel="no"), "does not hold together"),
        (_truncate, "is damaged"),
        (_rewrite(format="other"), "does not describe a head"),
        (_rewrite(version=9), "is of version 9"),
        (_rewrite(kind="forest"), "unknown kind 'forest'"),
        (_rewrite(labels=["a"]), "does not hold together"),
        (_rewrite(parts=[4, 2]), "does not hold together"),
        (_rewrite(indicators=[7]), "does not hold together"),
    ],
)
def test_a_folder_that_is_not_whole_says_what_is_wrong(tmp_path, damage, words):
    head().save(str(tmp_path))
    damage(tmp_path)
    with pytest.raises(InvalidInput, match=words):
        Head.load(str(tmp_path))


def test_features_of_another_width_are_refused():
    with pytest.raises(InvalidInput, match=r"rows of 3 \+ 2 = 5 values"):
        head().scores(np.zeros((2, 4), np.float32))
