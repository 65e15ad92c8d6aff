"""Texts cut before they are tokenized: the tokens are those of the whole text, cut."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ember.worker.models import text_tokens
from ember.worker.models.text_tokens import TextTokens
from ember.worker.rows import RowError

CORPUS = [
    "the cat sat on the mat, and 12 dogs ran 345 miles in 6789 days",
    "größte Straße naïve façade",
    "ひらがな カタカナ 漢字仮名交じり文",
    "съешь ещё этих мягких французских булок",
    "def f(x): return {'a': [1, 2], \"b\": x**2}",
] * 3


@cache
def tokenizer(kind: str) -> Any:
    """Trained on a few lines: as BERT, GPT-2, XLM-R (unigram) and Llama (no split) have it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    shared = {"vocab_size": 400, "special_tokens": special, "show_progress": False}
    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(**shared)
    elif kind == "bytes":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(**shared, initial_alphabet=alphabet)
    elif kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(**shared, unk_token="[UNK]")
    else:
        made = Tokenizer(models.BPE(unk_token="[UNK]"))
        made.normalizer = normalizers.Replace(" ", "▁")
        trainer = trainers.BpeTrainer(**shared)
    made.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]")


# Letters of all scripts, often those of the corpus, and now and then a word without end.
PIECES = st.one_of(
    st.sampled_from([word for line in CORPUS for word in line.split()]),
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.sampled_from(["  ", "\n\n", "x" * 150, "7" * 95, "漢" * 60, "e\u0301" * 40, "\u200d👩" * 9]),
)


@pytest.mark.parametrize("kind", ["wordpiece", "bytes", "unigram", "whole"])
@pytest.mark.parametrize("side", ["right", "left"])
@given(st.lists(PIECES, min_size=5, max_size=60), st.sampled_from([" ", "", "\n"]), st.data())
@settings(max_examples=40)
def test_cut_text_has_the_tokens_of_the_whole(
    kind: str, side: Literal["right", "left"], pieces: list[str], joint: str, data: st.DataObject
) -> None:
    text = joint.join(pieces)
    longest = data.draw(st.integers(3, 40))
    made = tokenizer(kind)
    tokens = TextTokens(made, longest, side=side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_tokens, "_FEWEST_CHARACTERS", 32)
        (actual,) = tokens.cut([text])
    whole = made(text, truncation=False, verbose=False)["input_ids"]
    expected = whole[:longest] if side == "right" else whole[-longest:]
    if not expected:
        assert isinstance(actual, RowError)
        return
    assert actual[0].tolist() == [expected]
    assert actual[1] == (len(whole) > longest)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("extra", range(4))
def test_a_word_without_end_is_read_whole(side: Literal["right", "left"], extra: int) -> None:
    """Parts of it agree with each other where they cut what repeats itself at the same place."""
    text = (
        "b" + "a" * (16 * 64 + 1 + extra) + "b" if side == "right" else "a" * (2050 + extra) + "b"
    )
    made = tokenizer("unigram" if side == "right" else "whole")
    (actual,) = TextTokens(made, 64, side=side)([text])
    whole = made(text, truncation=False, verbose=False)["input_ids"]
    assert not isinstance(actual, RowError)
    assert actual.tolist() == [whole[:64] if side == "right" else whole[-64:]]


class Reading:
    """A tokenizer that remembers how much it was given."""

    truncation_side = "right"

    def __init__(self, made: Any) -> None:
        made.truncation_side = self.truncation_side  # one tokenizer serves all tests
        self._made = made
        self.read = 0

    def __call__(self, texts: list[str], **options: Any) -> Any:
        self.read += sum(map(len, texts))
        return self._made(texts, **options)


@pytest.mark.parametrize(
    "text",
    [
        "the cat sat on the mat " * 4_000_000,
        "x" * 90_000_000,
        "漢字" * 30_000_000,
        "12" * 40_000_000,
        "the " * 60 + " " * 90_000_000,
    ],
    ids=["words", "one word", "no spaces", "one number", "spaces"],
)
@pytest.mark.parametrize("kind", ["wordpiece", "bytes", "unigram"])
def test_endless_text_is_read_no_further_than_its_tokens_need(kind: str, text: str) -> None:
    reading = Reading(tokenizer(kind))
    tokens = TextTokens(reading, 48)
    (outcome,) = tokens([text])
    assert reading.read < 3 * text_tokens.MOST_CHARACTERS
    if isinstance(outcome, RowError):
        assert str(outcome).startswith("too long: ")
        return
    assert outcome.shape == (1, 48)
    assert reading.read < 20_000


def test_texts_keep_their_order_whatever_their_length() -> None:
    texts = ["the cat", "mat " * 2000, "", "dogs", "ran " * 3000, "sat"]
    tokens = TextTokens(tokenizer("bytes"), 8, side="right")
    outcomes = tokens(texts)
    assert isinstance(outcomes[2], RowError)
    cuts = [each if isinstance(each, RowError) else each[1] for each in tokens.cut(texts)]
    assert cuts[:2] + cuts[3:] == [False, True, False, True, False]
    for text, outcome in zip(texts, outcomes, strict=True):
        if text:
            expected = tokenizer("bytes")(text, verbose=False)["input_ids"][:8]
            assert np.array_equal(outcome, [expected])
