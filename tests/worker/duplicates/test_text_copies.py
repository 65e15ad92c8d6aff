"""Normal forms, shingles, signatures and bands of texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ember.worker.duplicates.texts import banding, normalized, shingles, signature, text_bands


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The  Quick\tfox\n", "the quick FOX"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("Straße", "STRASSE"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("\ufb01ne", "fine"),
    ],
)
def test_texts_that_differ_in_case_spacing_or_form_are_one(one, other):
    assert normalized(one) == normalized(other)


def test_other_differences_stay():
    assert normalized("a cat") != normalized("a cat.")
    assert normalized("re-sign") != normalized("resign")


@given(st.text())
def test_a_normal_form_is_its_own(text):
    assert normalized(normalized(text)) == normalized(text)


def words(text: str) -> set[tuple[str, ...]]:
    """Shingles by hand, of texts of plain words."""
    parts = text.split()
    size = min(3, len(parts))
    return {tuple(parts[n : n + size]) for n in range(len(parts) - size + 1)}


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12).map(" ".join))
def test_shingles_are_each_three_words_once(text):
    assert len(shingles(text)) == len(words(text))


def test_marks_do_not_count_and_scripts_without_spaces_are_cut_by_letters():
    assert np.array_equal(shingles("a cat, a dog!"), shingles("a cat a dog"))
    assert len(shingles("東京都に住む")) == 4
    assert len(shingles("?!")) == 1
    assert not np.array_equal(shingles("?!"), shingles("!?"))


def test_signatures_estimate_the_jaccard_similarity():
    drawn = np.random.default_rng(0)
    one = np.unique(drawn.integers(-(2**63), 2**63 - 1, 5000))
    other = np.unique(np.concatenate([one[:2500], drawn.integers(-(2**63), 2**63 - 1, 2500)]))
    # 128 values that agree with probability 1/3 each: a standard deviation of 0.042.
    assert (signature(one) == signature(other)).mean() == pytest.approx(1 / 3, abs=0.17)
    assert np.array_equal(signature(one), signature(one[::-1]))


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.8, 0.95, 1.0])
def test_a_pair_at_the_threshold_is_missed_seldom(threshold):
    cut = banding(threshold)
    assert cut.bands * cut.rows <= 128
    assert cut.miss(threshold) == (1 - threshold**cut.rows) ** cut.bands <= 0.01


def test_texts_share_a_band_where_their_signatures_agree_in_it():
    drawn = np.random.default_rng(1)
    signatures = list(drawn.integers(0, 2, (40, 128)).astype(np.uint32))
    cut = banding(0.7)
    keys = text_bands(signatures, cut)
    assert keys.shape == (40, cut.bands)
    for one in range(40):
        for other in range(one):
            for band in range(cut.bands):
                part = slice(band * cut.rows, (band + 1) * cut.rows)
                same = np.array_equal(signatures[one][part], signatures[other][part])
                assert same == (keys[one, band] == keys[other, band])
    assert len(np.intersect1d(keys[:, 0], keys[:, 1])) == 0  # equal values of two bands
