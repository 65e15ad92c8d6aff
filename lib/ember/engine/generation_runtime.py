"""Models of transformers that write texts: of prompts, or of images and prompts, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.engine.device import Device
from ember.engine.generation import Ask, Written
from ember.engine.generation_steps import Chooser, Stops, stream_key
from ember.engine.images import decode
from ember.engine.rows import RowError, read_uri, to_text
from ember.engine.spec import Generation, ModelSpec
from ember.engine.torch_runtime import TorchModel, check_shape, max_tokens
from ember.errors import InvalidInput

__all__ = ["TorchImageDescriber", "TorchTextGenerator"]

Tokens = npt.NDArray[np.int64]
# A row ready for the model: its input, and the key of its random numbers.
_Item = tuple[Any, int]
_Outcome = Written | RowError


class _TorchWriter(TorchModel):
    """What both kinds share: batches through `generate`, and rows in doubt once more alone."""

    tokenizer: Any

    def __init__(self, spec: ModelSpec, device: Device, threads: int) -> None:
        super().__init__(spec, device, threads)
        if spec.generation is None:
            raise InvalidInput(f"{spec.name} is to write texts, and nothing says how")
        self.generation: Generation = spec.generation
        self.ends = _end_tokens(self.model)
        config = self.model.generation_config
        if config.pad_token_id is None:  # masked in prompts and cut off behind texts
            config.pad_token_id = min(self.ends, default=0)

    def run(self, items: Sequence[_Item]) -> list[_Outcome]:
        """The text of each row, as it would be if the row were alone."""
        outcomes = self._batch(items)
        return [
            self._alone(item) if outcome is None else outcome
            for item, outcome in zip(items, outcomes, strict=True)
        ]

    def _alone(self, item: _Item) -> _Outcome:
        (outcome,) = self._batch([item])
        return replace(outcome, alone=True) if isinstance(outcome, Written) else _not_finite()

    def _batch(self, items: Sequence[_Item]) -> list[_Outcome | None]:
        """A text for each item; None for one that has to be run alone."""
        outcomes: list[_Outcome | None] = [None] * len(items)
        for rows in self._groups(items):
            inputs = self._inputs([items[row][0] for row in rows])
            written = self._write(inputs, [items[row][1] for row in rows])
            for row, outcome in zip(rows, written, strict=True):
                outcomes[row] = outcome
        return outcomes

    def _groups(self, items: Sequence[_Item]) -> Iterable[list[int]]:
        """The items that can go through the model together, by their places."""
        raise NotImplementedError

    def _inputs(self, values: Sequence[Any]) -> dict[str, Any]:
        """What `generate` takes for these rows, on the device."""
        raise NotImplementedError

    def _write(self, inputs: Mapping[str, Any], keys: Sequence[int]) -> list[_Outcome | None]:
        how = self.generation
        # In lower precisions nearly every row would be in doubt.
        careful = len(keys) > 1 and self.spec.precision == "float32"
        chooser = Chooser(self._torch, how.sampling, keys, careful=careful)
        stops = Stops(self._torch, self.tokenizer, how.stop, chooser) if how.stop else None
        with self._torch.inference_mode():
            sequences = self.model.generate(
                **inputs,
                # What the folder may ask for otherwise, which is not what `generation` says.
                do_sample=False,
                num_beams=1,
                num_return_sequences=1,
                return_dict_in_generate=False,
                max_new_tokens=how.max_new_tokens,
                min_new_tokens=how.min_new_tokens or None,
                logits_processor=[chooser],
                stopping_criteria=[stops] if stops else [],
            )
        outcomes: list[_Outcome | None] = []
        doubts, broken = chooser.in_doubt(), chooser.not_finite()
        for row, tokens in enumerate(sequences[:, chooser.width :].tolist()):
            steps = self._steps(tokens, stops.ended.get(row) if stops else None)
            if any(broken[row][:steps]):
                outcomes.append(_not_finite())
            elif any(doubts[row][:steps]):
                outcomes.append(None)
            else:
                text = self._text(tokens[:steps])
                outcomes.append(Written(stops.cut(text) if stops else text, steps))
        return outcomes

    def _steps(self, tokens: list[int], stopped: int | None) -> int:
        """How many tokens were generated before the row was done; padding follows them."""
        end = next((n for n, token in enumerate(tokens, 1) if token in self.ends), len(tokens))
        return end if stopped is None else min(end, stopped)

    def _text(self, tokens: list[int]) -> str:
        kept = tokens[:-1] if tokens and tokens[-1] in self.ends else tokens
        text: str = self.tokenizer.decode(kept, skip_special_tokens=True)
        return text


class TorchTextGenerator(_TorchWriter):
    """Prompts to texts through AutoTokenizer and AutoModelForCausalLM. See `batching.Encoder`."""

    chunk_rows = 256
    truncated = 0

    def __init__(self, spec: ModelSpec, device: Device, threads: int) -> None:
        super().__init__(spec, device, threads)
        from transformers import AutoTokenizer

        self._counting = Lock()
        self.tokenizer = self._auto(AutoTokenizer)
        # Without its files transformers makes an empty tokenizer, which knows no word.
        if len(self.tokenizer) <= len(self.tokenizer.all_special_ids):
            raise InvalidInput(f"{spec.name} cannot be loaded: the folder holds no tokenizer")
        self.tokenizer.truncation_side = "left"
        longest = max_tokens(self.tokenizer, self.model.config)
        self.max_prompt = longest - self.generation.max_new_tokens
        if self.max_prompt < 1:
            raise _too_long(spec, self.generation, longest)
        self.batch_size = spec.batch_size or (128 if device == "cuda" else 32)
        self.batch_cost = self.batch_size * min(longest, 128 + self.generation.max_new_tokens)
        self.window_rows = 8 * self.batch_size
        # The first call sets the truncation, which other threads must not see half done.
        self._tokenize(["warm-up"])
        self.truncated = 0

    def _kind(self, transformers: Any) -> Any:
        return transformers.AutoModelForCausalLM

    def prepare(self, raws: Sequence[Ask]) -> list[tuple[_Item, int] | RowError]:
        """Token ids (t,) int64 of each prompt, its beginning cut off where it is too long."""
        outcomes: list[Any] = []
        for ask in raws:
            try:
                outcomes.append(_text_of(ask))
            except RowError as error:
                outcomes.append(error)
        texts = [outcome for outcome in outcomes if isinstance(outcome, str)]
        tokens = iter(self._tokenize(texts) if texts else [])
        return [
            self._item(next(tokens), ask) if isinstance(outcome, str) else outcome
            for outcome, ask in zip(outcomes, raws, strict=True)
        ]

    def _item(self, tokens: Tokens, ask: Ask) -> tuple[_Item, int] | RowError:
        if not len(tokens):
            return RowError("empty content", "the tokenizer finds no token in it")
        cost = len(tokens) + self.generation.max_new_tokens
        return (tokens, _key(self.generation, ask)), cost

    def _tokenize(self, texts: list[str]) -> list[Tokens]:
        encoded = self.tokenizer(
            texts, truncation=True, max_length=self.max_prompt, return_attention_mask=False
        )
        cut = sum(1 for each in encoded.encodings or () if each.overflowing)
        with self._counting:  # threads tokenise side by side
            self.truncated += cut
        return [np.asarray(ids, np.int64) for ids in encoded["input_ids"]]

    def _groups(self, items: Sequence[_Item]) -> Iterable[list[int]]:
        """All of them; or prompts of one length, where padding would count as something said."""
        config = self.model.generation_config
        if config.repetition_penalty in (None, 1.0) and not config.no_repeat_ngram_size:
            return [list(range(len(items)))]
        return _alike([len(tokens) for tokens, _ in items])

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


class TorchImageDescriber(_TorchWriter):
    """Images to texts through the folder's processor and AutoModelForImageTextToText.

    A VisionEncoderDecoderModel has an image processor and a tokenizer of its own, and a prompt
    begins what its decoder says. Other models take image and prompt together. See
    `batching.Encoder`; a row's cost is the number of tokens of its prompt.
    """

    chunk_rows = 8
    truncated = 0

    def __init__(self, spec: ModelSpec, device: Device, threads: int, *, paths: bool) -> None:
        super().__init__(spec, device, threads)
        from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin

        self.paths = paths
        self.apart = self.model.config.model_type == "vision-encoder-decoder"
        if self.apart:
            self.processor = self._auto(AutoImageProcessor)
            self.tokenizer = self._auto(AutoTokenizer)
        else:
            self.processor = self._auto(AutoProcessor)
            self.tokenizer = getattr(self.processor, "tokenizer", None)
            if not isinstance(self.processor, ProcessorMixin) or self.tokenizer is None:
                raise InvalidInput(
                    f"{spec.name} cannot be loaded: the folder holds no processor of both"
                )
        text_config = self.model.config.get_text_config(decoder=True)
        self.longest = getattr(text_config, "max_position_embeddings", None)
        if self.longest and self.longest <= self.generation.max_new_tokens:
            raise _too_long(spec, self.generation, self.longest)
        self.batch_size = spec.batch_size or (64 if device == "cuda" else 16)
        self.batch_cost = self.batch_size * (self.longest or 4096)
        self.window_rows = 2 * self.batch_size

    def _kind(self, transformers: Any) -> Any:
        return transformers.AutoModelForImageTextToText

    def prepare(self, raws: Sequence[Ask]) -> list[tuple[_Item, int] | RowError]:
        """The processor's tensors of each row, each with a first axis of rows."""
        return [self._prepare(ask) for ask in raws]

    def _prepare(self, ask: Ask) -> tuple[_Item, int] | RowError:
        try:
            if ask.problem is not None:
                raise RowError(ask.problem)
            data = read_uri(ask.content) if self.paths else ask.content
            image = decode(data, self.spec.max_pixels)
            check_shape(image, self.spec.max_pixels)
            prompt = None if ask.prompt is None else _text_of(Ask(ask.prompt))
            tensors = self._processed(image, prompt)
            said = tensors.get("decoder_input_ids", tensors.get("input_ids"))
            length = 1 if said is None else said.shape[1] + int(self.apart)
            if self.longest and length + self.generation.max_new_tokens > self.longest:
                raise RowError(
                    "prompt too long",
                    f"{length} tokens and max_new_tokens = {self.generation.max_new_tokens} are "
                    f"over the model's {self.longest}",
                )
        except RowError as error:
            return error
        return (tensors, _key(self.generation, ask)), length

    def _processed(self, image: Any, prompt: str | None) -> dict[str, Any]:
        if self.apart:
            tensors = dict(self.processor(image, return_tensors="pt"))
            if prompt is not None:
                said = self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
                tensors["decoder_input_ids"] = said["input_ids"]
            return tensors
        given = {"images": image} if prompt is None else {"images": image, "text": prompt}
        try:
            tensors = dict(self.processor(**given, return_tensors="pt"))
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            # Such as a model that needs a prompt, or one with a mark where the image belongs.
            raise RowError("unusable input", f"the processor says: {error}") from error
        if self.model.config.model_type == "git" and prompt is not None:
            # Its tokenizer ends a text, which the model is to go on with.
            tensors["input_ids"] = tensors["input_ids"][:, :-1]
            tensors = {name: tensors[name] for name in ("pixel_values", "input_ids")}
        return tensors

    def _groups(self, items: Sequence[_Item]) -> Iterable[list[int]]:
        """Rows whose tensors have the same shapes: nothing is padded."""
        return _alike(
            [sorted((name, each.shape) for name, each in tensors.items()) for tensors, _ in items]
        )

    def _inputs(self, values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {name: self._placed([each[name] for each in values]) for name in values[0]}

    def _placed(self, tensors: Sequence[Any]) -> Any:
        together = self._torch.cat(tuple(tensors)).to(self.torch_device)
        return together.to(self.model.dtype) if together.is_floating_point() else together


def _end_tokens(model: Any) -> frozenset[int]:
    """The tokens with which the model ends a text."""
    text_config = model.config.get_text_config(decoder=True)
    found = model.generation_config.eos_token_id
    if model.config.model_type == "blip":  # which has its own idea of it
        found = text_config.sep_token_id
    if found is None:
        found = text_config.eos_token_id
    if found is None:
        return frozenset()
    return frozenset([found] if isinstance(found, int) else found)


def _text_of(ask: Ask) -> str:
    """The prompt of a row. Raises RowError where there is none."""
    if ask.problem is not None:
        raise RowError(ask.problem)
    return to_text(ask.content)


def _key(generation: Generation, ask: Ask) -> int:
    return stream_key(generation.sampling.seed, ask.key) if generation.sampling else 0


def _alike(signs: Sequence[Any]) -> Iterator[list[int]]:
    """Places of equal signs together, in the order of the signs."""
    for _, places in groupby(sorted(range(len(signs)), key=signs.__getitem__), signs.__getitem__):
        yield list(places)


def _too_long(spec: ModelSpec, generation: Generation, longest: int) -> InvalidInput:
    return InvalidInput(
        f"generation.max_new_tokens is {generation.max_new_tokens} and {spec.name} takes {longest} "
        "tokens in all, prompt included; give a smaller number"
    )


def _not_finite() -> RowError:
    return RowError("not finite", "the model returned NaN or infinity")
