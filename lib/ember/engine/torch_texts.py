"""Text encoders of transformers in torch: texts to tokens, tokens to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.engine.chunks import Chunking, Splitter
from ember.engine.device import Device
from ember.engine.recipe import of_layer
from ember.engine.rows import RowError, to_text
from ember.engine.spec import ModelSpec
from ember.engine.text_input import prompt_tokens, room_for_texts, set_up_tokenizer
from ember.engine.text_modules import TextModules
from ember.engine.torch_runtime import TorchModel
from ember.errors import InvalidInput

__all__ = ["TorchTextEncoder", "max_tokens"]

Matrix = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]


def max_tokens(tokenizer: Any, config: Any) -> int:
    """The longest input the model takes, in tokens, special tokens included.

    The smaller of what the tokenizer states and the number of position embeddings; RoBERTa and
    its kin spend the positions up to the padding id on padding.
    """
    config = getattr(config, "text_config", None) or config  # of a dual encoder
    limits = []
    if tokenizer.model_max_length < 1_000_000:  # larger stands for "not stated"
        limits.append(tokenizer.model_max_length)
    positions = getattr(config, "max_position_embeddings", None)
    if positions and positions > 0:
        shifted = "roberta" in config.model_type or config.model_type in {"camembert", "mpnet"}
        reserved = (config.pad_token_id or 0) + 1 if shifted else 0
        limits.append(positions - reserved)
    return min(limits, default=512)


class TorchTextEncoder(TorchModel):
    """Text rows to vectors through AutoTokenizer and AutoModel. See `batching.Encoder`.

    A row's cost is its number of tokens, so that batches hold texts of similar length and as many
    as an average batch's worth of tokens allows.
    """

    chunk_rows = 256
    truncated = 0

    def __init__(self, spec: ModelSpec, device: Device, threads: int) -> None:
        super().__init__(spec, device, threads)
        from transformers import AutoTokenizer

        self.recipe = spec.text or of_layer(spec.layer)
        self._counting = Lock()
        self.tokenizer = self._auto(AutoTokenizer, **dict(self.recipe.tokenizer))
        # Without its files transformers makes an empty tokenizer, which knows no word.
        if len(self.tokenizer) <= len(self.tokenizer.all_special_ids):
            raise InvalidInput(f"{spec.name} cannot be loaded: the folder holds no tokenizer")
        set_up_tokenizer(self.tokenizer, self.recipe)
        self.max_tokens = max_tokens(self.tokenizer, self.model.config)
        # SigLIP was trained on texts of full length, padding unmasked, and pools the last token.
        full = self._dual and self.model.config.model_type.startswith("siglip")
        self._padded_to = self.max_tokens if full else None
        self.batch_size = spec.batch_size or (256 if device == "cuda" else 32)
        self.batch_cost = self.batch_size * min(self.max_tokens, 128)
        self.window_rows = 32 * self.batch_size
        prompt = self.recipe.prompt
        self._room = room_for_texts(self.tokenizer, prompt, self.max_tokens, spec.name)
        skipped = prompt_tokens(self.tokenizer, prompt)
        self._modules = TextModules(spec.path, self.recipe, self.torch_device, skipped)
        # The first call sets the truncation, which other threads must not see half done.
        self._tokenize(["warm-up"])
        self.truncated = 0
        if spec.text and spec.text.dimension:
            self._check_dimension(spec.text.dimension)

    def prepare(self, raws: Sequence[bytes | None]) -> list[tuple[Tokens, int] | RowError]:
        """Token ids (t,) int64 of each row, truncated at the model's length, counted."""
        outcomes: list[Any] = []
        for raw in raws:
            try:
                outcomes.append(to_text(raw, self.spec.max_bytes))
            except RowError as error:
                outcomes.append(error)
        prompt = self.recipe.prompt
        texts = [prompt + outcome for outcome in outcomes if isinstance(outcome, str)]
        tokens = iter(self._tokenize(texts) if texts else [])
        return [next(tokens) if isinstance(each, str) else each for each in outcomes]

    def _tokenize(self, texts: list[str]) -> list[tuple[Tokens, int]]:
        encoded = self.tokenizer(
            texts, truncation=True, max_length=self.max_tokens, return_attention_mask=False
        )
        cut = sum(1 for each in encoded.encodings or () if each.overflowing)
        with self._counting:  # threads tokenise side by side
            self.truncated += cut
        return [(np.asarray(ids, np.int64), len(ids)) for ids in encoded["input_ids"]]

    def run(self, items: Sequence[Tokens]) -> Matrix:
        """Vectors (n, d) float32 of token ids n × (t,), padded here to the longest."""
        torch = self._torch
        shape = (len(items), self._padded_to or max(len(ids) for ids in items))
        ids = np.full(shape, self.tokenizer.pad_token_id or 0, np.int64)
        mask = np.zeros(shape, np.int64)
        for row, each in enumerate(items):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = 1
        inputs = {
            "input_ids": torch.from_numpy(ids).to(self.torch_device),
            "attention_mask": torch.from_numpy(mask).to(self.torch_device),
        }
        with torch.inference_mode():
            if self._dual:
                given = {"input_ids": inputs["input_ids"]} if self._padded_to else inputs
                output = self.model.get_text_features(**given)
                return self._features(output, lambda: self._modules.cut(output.pooler_output))
            output = self.model(**inputs)
            return self._features(output, lambda: self._pool(output, inputs["attention_mask"]))

    def _pool(self, output: Any, mask: Any) -> Any:
        if not self.recipe.modules:
            return self._modules.cut(output.pooler_output)
        return self._modules.vectors(output.last_hidden_state, mask)

    def splitter(self, chunking: Chunking) -> Splitter:
        """What cuts texts into chunks that fit this model. Raises InvalidInput; see `Splitter`."""
        return Splitter(self.tokenizer, self._room, chunking)

    def _check_dimension(self, dimension: int) -> None:
        """Raise InvalidInput when the model's vectors have fewer numbers."""
        (found,) = self.run([tokens for tokens, _ in self._tokenize(["warm-up"])])
        if len(found) < dimension:
            raise InvalidInput(
                f"model.dimension is {dimension}, and the vectors of {self.spec.name} have "
                f"{len(found)} numbers"
            )
