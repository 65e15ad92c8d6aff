"""Generating texts with models of transformers: in batches, and rows in doubt again alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from ember.errors import InvalidInput
from ember.worker.device import Device
from ember.worker.models.generation import Generated, Request
from ember.worker.models.generation_steps import Stops, TokenSampler, row_seed
from ember.worker.models.torch_runtime import TorchModel
from ember.worker.rows import RowError, to_text
from ember.worker.spec import Generation, ModelSpec

__all__ = ["Item", "TorchGenerator", "alike"]

# A row ready for the model: its input, and the seed of its random numbers.
Item = tuple[Any, int]
_Outcome = Generated | RowError


class TorchGenerator(TorchModel):
    """What both kinds share: batches through `generate`, and rows in doubt again alone."""

    tokenizer: Any
    # A call takes a step for each new token, beside which padding is little.
    most_padding: int | None = None

    def __init__(self, spec: ModelSpec, device: Device, threads: int) -> None:
        super().__init__(spec, device, threads)
        if spec.generation is None:
            raise InvalidInput(f"{spec.name} is to write texts, and nothing says how")
        self.generation: Generation = spec.generation
        self.ends = _end_tokens(self.model)
        config = self.model.generation_config
        if config.pad_token_id is None:  # masked in prompts and cut off behind texts
            config.pad_token_id = min(self.ends, default=0)

    def text_of(self, request: Request) -> str:
        """The prompt of a row. Raises RowError where there is none, and for one too long."""
        if request.problem is not None:
            raise RowError(request.problem)
        return to_text(request.content, self.spec.max_bytes)

    def seed_of(self, request: Request) -> int:
        """Where the random numbers of a row start; 0 where nothing is drawn."""
        sampling = self.generation.sampling
        return row_seed(sampling.seed, request.key) if sampling else 0

    def too_long(self, longest: int) -> InvalidInput:
        """The error of a model that takes no more than `longest` tokens."""
        return InvalidInput(
            f"generation.max_new_tokens is {self.generation.max_new_tokens} and {self.spec.name} "
            f"takes {longest} tokens in all, prompt included; give a smaller number"
        )

    def _try(self, value: Any) -> None:
        """Have it write two tokens. Raises what the libraries raise for a model that cannot."""
        asked = self.generation
        self.generation = replace(asked, max_new_tokens=2, min_new_tokens=0)
        try:
            self.run([(value, 0)])
        finally:
            self.generation = asked

    def run(self, items: Sequence[Item]) -> list[_Outcome]:
        """The text of each row, as it would be if the row were alone."""
        outcomes = self._batch(items)
        return [
            self._alone(item) if outcome is None else outcome
            for item, outcome in zip(items, outcomes, strict=True)
        ]

    def _alone(self, item: Item) -> _Outcome:
        (outcome,) = self._batch([item])
        return replace(outcome, alone=True) if isinstance(outcome, Generated) else _not_finite()

    def _batch(self, items: Sequence[Item]) -> list[_Outcome | None]:
        """A text for each item; None for one that has to be run alone."""
        outcomes: list[_Outcome | None] = [None] * len(items)
        for rows in self._groups(items):
            inputs = self._inputs([items[row][0] for row in rows])
            written = self._write(inputs, [items[row][1] for row in rows])
            for row, outcome in zip(rows, written, strict=True):
                outcomes[row] = outcome
        return outcomes

    def _groups(self, items: Sequence[Item]) -> Iterable[list[int]]:
        """The items that can go through the model together, by their places."""
        raise NotImplementedError

    def _inputs(self, values: Sequence[Any]) -> dict[str, Any]:
        """What `generate` takes for these rows, on the device."""
        raise NotImplementedError

    def _write(self, inputs: Mapping[str, Any], seeds: Sequence[int]) -> list[_Outcome | None]:
        how = self.generation
        # In lower precisions nearly every row would be in doubt.
        careful = len(seeds) > 1 and self.spec.precision == "float32"
        sampler = TokenSampler(self._torch, how.sampling, seeds, careful=careful)
        stops = Stops(self._torch, self.tokenizer, how.stop, sampler) if how.stop else None
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
                logits_processor=[sampler],
                stopping_criteria=[stops] if stops else [],
            )
        outcomes: list[_Outcome | None] = []
        doubts, broken = sampler.in_doubt(), sampler.not_finite()
        for row, tokens in enumerate(sequences[:, sampler.width :].tolist()):
            steps = self._steps(tokens, stops.ended.get(row) if stops else None)
            if any(broken[row][:steps]):
                outcomes.append(_not_finite())
            elif any(doubts[row][:steps]):
                outcomes.append(None)
            else:
                text = self._text(tokens[:steps])
                outcomes.append(Generated(stops.cut(text) if stops else text, steps))
        return outcomes

    def _steps(self, tokens: list[int], stopped: int | None) -> int:
        """How many tokens were generated before the row was done; padding follows them."""
        end = next((n for n, token in enumerate(tokens, 1) if token in self.ends), len(tokens))
        return end if stopped is None else min(end, stopped)

    def _text(self, tokens: list[int]) -> str:
        kept = tokens[:-1] if tokens and tokens[-1] in self.ends else tokens
        text: str = self.tokenizer.decode(kept, skip_special_tokens=True)
        return text


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


def alike(signs: Sequence[Any]) -> Iterator[list[int]]:
    """Places of equal signs together, in the order of the signs."""
    for _, places in groupby(sorted(range(len(signs)), key=signs.__getitem__), signs.__getitem__):
        yield list(places)


def _not_finite() -> RowError:
    return RowError("not finite", "the model returned NaN or infinity")
