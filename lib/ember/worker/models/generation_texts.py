"""Prompts to texts by a causal language model of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ember.worker.device import Device
from ember.worker.models.generation import Request
from ember.worker.models.generation_runtime import Item, TorchGenerator, alike
from ember.worker.models.text_call import TextCall
from ember.worker.models.text_fit import find_longest
from ember.worker.models.text_input import room_for_texts
from ember.worker.models.text_tokenizer import load_tokenizer, max_tokens
from ember.worker.models.text_tokens import TextTokens, Tokens
from ember.worker.models.text_trial import Trial, try_tables
from ember.worker.rows import RowError
from ember.worker.spec import ModelSpec

__all__ = ["TorchTextGenerator"]


class TorchTextGenerator(TorchGenerator):
    """Prompts to texts through AutoTokenizer and AutoModelForCausalLM. See `encoder.Encoder`."""

    chunk_rows = 256

    def __init__(self, spec: ModelSpec, device: Device, threads: int) -> None:
        super().__init__(spec, device, threads)
        self.tokenizer = load_tokenizer(spec.name, spec.transformer_path)
        longest = max_tokens(self.tokenizer, self.model.config)
        special = longest - room_for_texts(self.tokenizer, "", longest, spec.name)
        self._tokens = TextTokens(self.tokenizer, longest, side="left")
        longest = self._longest()
        self.max_prompt = longest - self.generation.max_new_tokens
        if self.max_prompt <= special:
            raise self.too_long(longest)
        self.batch_size = spec.batch_size or (128 if device == "cuda" else 32)
        self.batch_cost = self.batch_size * min(longest, 128 + self.generation.max_new_tokens)
        self.window_rows = 8 * self.batch_size
        self._try(self._tokens.example()[0, -self.max_prompt :])
        self._tokens.settle(self.max_prompt)

    def _longest(self) -> int:
        """The tokens that prompt and text may have together, by running the model."""
        call = TextCall(self.model, self._tokens.keys, self.feed.place)
        trial = Trial(self.model, self._tokens, call, tolerance=0)
        longest, _ = try_tables(trial, self.tokenizer, self.spec.name)
        return find_longest(trial, longest)

    def _kind(self, transformers: Any) -> Any:
        return transformers.AutoModelForCausalLM

    def prepare(self, raws: Sequence[Request]) -> list[tuple[Item, int, bool] | RowError]:
        """Token ids (t,) int64 of each prompt, its beginning cut off where it is too long."""
        cut = self._tokens.cut([self._prompt(request) for request in raws])
        return [self._item(*each) for each in zip(cut, raws, strict=True)]

    def _prompt(self, request: Request) -> str | RowError:
        try:
            return self.text_of(request)
        except RowError as error:
            return error

    def _item(
        self, outcome: tuple[Tokens, bool] | RowError, request: Request
    ) -> tuple[Item, int, bool] | RowError:
        if isinstance(outcome, RowError):
            return outcome
        (ids,), was_cut = outcome
        cost = len(ids) + self.generation.max_new_tokens
        return (ids, self.seed_of(request)), cost, was_cut

    def _groups(self, items: Sequence[Item]) -> Iterable[list[int]]:
        """All of them; or prompts of one length, where padding would count as something said."""
        config = self.model.generation_config
        if config.repetition_penalty in (None, 1.0) and not config.no_repeat_ngram_size:
            return [list(range(len(items)))]
        return alike([len(tokens) for tokens, _ in items])

    def _inputs(self, values: Sequence[Tokens]) -> dict[str, Any]:
        """Padded on the left to the longest, so that new tokens follow the prompts at once."""
        torch = self._torch
        shape = (len(values), max(len(ids) for ids in values))
        ids = np.full(shape, self.model.generation_config.pad_token_id, np.int64)
        mask = np.zeros(shape, np.int64)
        for row, each in enumerate(values):
            ids[row, -len(each) :] = each
            mask[row, -len(each) :] = 1
        return {
            "input_ids": torch.from_numpy(ids).to(self.torch_device),
            "attention_mask": torch.from_numpy(mask).to(self.torch_device),
        }
