"""Text encoders of transformers in torch: texts to tokens, tokens to vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.errors import InvalidInput
from ember.worker.device import Device
from ember.worker.models.chunks import Chunking, Splitter
from ember.worker.models.first_layer import keeps_tensors
from ember.worker.models.text_call import TextCall, accepted_keys, parameters
from ember.worker.models.text_fit import Fit, find_fit
from ember.worker.models.text_input import prompt_tokens, room_for_texts, set_up_tokenizer
from ember.worker.models.text_modules import TextModules
from ember.worker.models.text_rows import TextRows
from ember.worker.models.text_tokenizer import load_tokenizer, max_tokens, stated_length
from ember.worker.models.text_tokens import TextTokens, Tokens
from ember.worker.models.text_trial import LONGER, SHORT, Trial, resized, try_tables
from ember.worker.models.torch_runtime import TorchModel
from ember.worker.recipe import of_layer
from ember.worker.rows import RowError
from ember.worker.spec import RELATIVE_TOLERANCE, ModelSpec

__all__ = ["TorchTextEncoder", "max_tokens"]

Matrix = npt.NDArray[np.float32]

# Tokens of the longest text where neither tokenizer nor model states a length. The library takes
# any there, as long as memory suffices, of which attention takes some 0.2 GB at this length.
_UNSTATED = 2048


class TorchTextEncoder(TorchModel):
    """Text rows to vectors through AutoTokenizer and AutoModel. See `encoder.Encoder`.

    A row's cost is its number of tokens, so that batches hold texts of similar length and as many
    as the tokens of a batch allow. Of an encoder-decoder only the encoder is used,
    but for its classes.

    Raises InvalidInput for a folder whose model does not embed texts; it is tried (`text_fit`).
    """

    chunk_rows = 256

    def __init__(self, spec: ModelSpec, device: Device, threads: int) -> None:
        super().__init__(spec, device, threads)
        self.recipe = spec.text or of_layer(spec.output)
        settings = dict(self.recipe.tokenizer)
        self.tokenizer = load_tokenizer(spec.name, spec.transformer_path, **settings)
        set_up_tokenizer(self.tokenizer, self.recipe)
        call = self.model.get_text_features if self._dual else self.model
        keys = accepted_keys(call, self.tokenizer, spec.name)
        longest = max_tokens(self.tokenizer, self.model.config, _UNSTATED)
        room_for_texts(self.tokenizer, "", longest, spec.name)
        self._tokens = TextTokens(self.tokenizer, longest, keys)
        # SigLIP was trained on texts of full length, padding unmasked, and pools the last token.
        full = self._dual and self.model.config.model_type.startswith("siglip")
        self.call = TextCall(call, keys, self.feed.place, masked=not full)
        # Tried on texts without the prompt, so that none of their tokens is left out.
        self._modules = TextModules(spec.path, self.recipe, self.torch_device, 0)
        self.fit, vocabulary = self._try(full)
        self.max_tokens = self.fit.longest
        self._ordered = self._keeps_tensors()
        prompt = self.recipe.prompt
        self.room = room_for_texts(self.tokenizer, prompt, self.max_tokens, spec.name)
        if prompt:
            skipped = prompt_tokens(self.tokenizer, prompt)
            self._modules = TextModules(spec.path, self.recipe, self.torch_device, skipped)
        self._tokens.settle(self.max_tokens)
        self.rows = TextRows(self._tokens, prompt, spec.max_bytes, self.fit, vocabulary)
        self._size_batches(device)
        if spec.text and spec.text.dimension:
            self._check_dimension(spec.text.dimension)

    def _size_batches(self, device: Device) -> None:
        """Set what batches and windows hold.

        On a CPU a call of 1,024 tokens is as fast as any: of 4,096 it is 15% slower with MiniLM,
        whose layers then leave the cache, and no faster with BERT-base. In itself a call takes as
        long as some 16 to 30 tokens. A window holds all rows of a task, as tasks are by default.
        """
        most = {"rows": 128, "tokens": 1024, "window": 2048}
        if device == "cuda":
            most = {"rows": 1024, "tokens": 32_768, "window": 8192}
        sizes = self.rows.batches(self.spec.batch_size, **most)
        self.batch_size, self.batch_cost, self.window_rows = sizes
        self.most_padding: int | None = self.rows.most_padding(self.batch_cost)

    def _part(self, model: Any) -> Any:
        """Of an encoder-decoder the encoder, unless its classes are asked for."""
        if self.spec.task == "classify" or "decoder_input_ids" not in parameters(model):
            return model
        return model.get_encoder()

    def _try(self, full: bool) -> tuple[Fit, int]:
        """How texts are to be given to the model, by running it, and how many ids it knows."""
        tolerance = RELATIVE_TOLERANCE[self.spec.precision]
        trial = Trial(self.model, self._tokens, self.call, tolerance, self._scores)
        self._restore = trial.restore
        longest, vocabulary = try_tables(trial, self.tokenizer, self.spec.name)
        return find_fit(trial, longest, self.spec.name, full=full), vocabulary

    def _keeps_tensors(self) -> bool:
        """Must a batch on a GPU wait for the one before, since the model keeps tensors?"""
        if self.feed.in_flight == 1:
            return False
        item = self.examples()[0]
        width = self.fit.width([item.shape[1]])
        kept = keeps_tensors(self.model, lambda: self._scores([item], width))
        self._restore()
        return kept

    def _scores(self, items: Sequence[Tokens], width: int) -> Matrix:
        """The vectors, or the scores of classes before they become probabilities."""
        output, mask = self.call(items, width)
        if self.spec.task == "classify":
            scores: Matrix = output.logits.float().cpu().numpy()
            return scores
        vectors: Matrix = self._pooled(output, mask).cpu().numpy()
        return vectors

    @property
    def in_flight(self) -> int:
        """One batch at a time where each starts from the model as it was loaded."""
        return 1 if self.fit.fresh else super().in_flight

    @property
    def notes(self) -> tuple[str, ...]:
        """What is out of the ordinary, for the log and the manifest."""
        if self.fit.longest < _UNSTATED or stated_length(self.tokenizer):
            return self.fit.notes
        return (*self.fit.notes, f"texts cut at {_UNSTATED} tokens; neither file states a length")

    def prepare(
        self, raws: Sequence[bytes | RowError | None]
    ) -> list[tuple[Tokens, int, bool] | RowError]:
        """See `TextRows.prepare`."""
        return self.rows.prepare(raws)

    def run(self, items: Sequence[Tokens]) -> Matrix:
        """Vectors (n, d) float32 of tokens n × (keys, t), in groups that the model allows."""
        return self.finish(self.start(items))

    def start(self, items: Sequence[Tokens]) -> Callable[[], Matrix]:
        """Begin with a batch; see `encoder.Overlapping`."""
        with self.feed.batch():
            if self._ordered:
                self.feed.in_order()
            return self.rows.start(items, self._begin)

    def finish(self, started: Callable[[], Matrix]) -> Matrix:
        """What `run` returns."""
        return started()

    def _begin(self, items: Sequence[Tokens], width: int) -> Callable[[], Matrix]:
        if self.fit.fresh:
            self._restore()
        return self.feed.fetch(self._pooled(*self.call(items, width)))

    def features(self, inputs: Mapping[str, Any], mask: Any) -> Any:
        """What the model makes of its inputs by name, tensors (n, t): (n, d) float32.

        mask: (n, t), 0 for padding.
        """
        return self._pooled(self.call.model(**inputs), mask)

    def _pooled(self, output: Any, mask: Any) -> Any:
        if not self.recipe.modules:  # of a dual encoder, or the transformer's own pooler
            return self._features(output, lambda: self._modules.cut(output.pooler_output))
        return self._features(output, lambda: self._modules.vectors(output.last_hidden_state, mask))

    def examples(self) -> list[Tokens]:
        """Texts of two lengths, or of one where this model takes no others together."""
        short = resized(self._tokens.example(), min(SHORT, self.max_tokens))
        if self.fit.together != "any":
            return [short, short]
        return [short, resized(short, min(LONGER, self.max_tokens))]

    def splitter(self, chunking: Chunking) -> Splitter:
        """What cuts texts into chunks that fit this model. Raises InvalidInput; see `Splitter`."""
        return Splitter(self.tokenizer, self.room, chunking, max_bytes=self.spec.max_bytes)

    def _check_dimension(self, dimension: int) -> None:
        """Raise InvalidInput when the model's vectors have fewer numbers."""
        (found,) = self._scores([self._tokens.example()], 0)
        if len(found) < dimension:
            raise InvalidInput(
                f"model.dimension is {dimension}, and the vectors of {self.spec.name} have "
                f"{len(found)} numbers"
            )
