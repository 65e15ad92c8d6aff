"""Images, and prompts where the model takes them, to texts by a model of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from ember.errors import InvalidInput
from ember.worker.device import Device
from ember.worker.models.generation import Request
from ember.worker.models.generation_runtime import Item, TorchGenerator, alike
from ember.worker.models.pictures import picture_of, processing
from ember.worker.models.text_tokenizer import check_tokenizer, load_tokenizer
from ember.worker.row_paths import PathRules
from ember.worker.rows import RowError
from ember.worker.spec import ModelSpec

__all__ = ["TorchImageDescriber"]

_TRIED = (64, 64)


class TorchImageDescriber(TorchGenerator):
    """Images to texts through the folder's processor and AutoModelForImageTextToText.

    A VisionEncoderDecoderModel has an image processor and a tokenizer of its own, and a prompt
    begins what its decoder says. Other models take image and prompt together. See
    `encoder.Encoder`; a row's cost is the number of tokens of its prompt.
    """

    chunk_rows = 8

    def __init__(
        self, spec: ModelSpec, device: Device, threads: int, *, paths: PathRules | None
    ) -> None:
        super().__init__(spec, device, threads)
        from transformers import AutoImageProcessor, AutoProcessor, ProcessorMixin

        self.paths = paths
        self.apart = self.model.config.model_type == "vision-encoder-decoder"
        if self.apart:
            self.processor = self._auto(AutoImageProcessor)
            self.tokenizer = load_tokenizer(spec.name, spec.transformer_path)
        else:
            self.processor = self._auto(AutoProcessor)
            self.tokenizer = getattr(self.processor, "tokenizer", None)
            if not isinstance(self.processor, ProcessorMixin) or self.tokenizer is None:
                raise InvalidInput(
                    f"{spec.name} cannot be loaded: the folder holds no processor of images and "
                    "texts"
                )
            check_tokenizer(self.tokenizer, spec.name)
        text_config = self.model.config.get_text_config(decoder=True)
        self.longest = getattr(text_config, "max_position_embeddings", None)
        if self.longest and self.longest <= self.generation.max_new_tokens:
            raise self.too_long(self.longest)
        self.batch_size = spec.batch_size or (64 if device == "cuda" else 16)
        self.batch_cost = self.batch_size * (self.longest or 4096)
        self.window_rows = 2 * self.batch_size
        self._try_prompts()

    def _try_prompts(self) -> None:
        """Have it describe a picture, with a prompt where it needs one.

        Raises what the libraries raise for a model that cannot. Where a prompt has a mark for the
        image, as only rows know how to place it, a model that took none of these may still do.
        """
        mark = getattr(self.processor, "image_token", None)
        problems: list[Exception] = []
        for prompt in (None,) if self.apart else (None, "a", f"{mark or ''} a"):
            try:
                self._try(self._processed(Image.new("RGB", _TRIED), prompt))
            except Exception as error:
                if self.is_out_of_memory(error):
                    raise
                problems.append(error)
            else:
                return
        others = [each for each in problems if not isinstance(each, RowError)]
        if others and mark is None:
            raise others[0]

    def _kind(self, transformers: Any) -> Any:
        return transformers.AutoModelForImageTextToText

    def prepare(self, raws: Sequence[Request]) -> list[tuple[Item, int] | RowError]:
        """The processor's tensors of each row, each with a first axis of rows."""
        return [self._prepare(request) for request in raws]

    def _prepare(self, request: Request) -> tuple[Item, int] | RowError:
        try:
            if request.problem is not None:
                raise RowError(request.problem)
            image = picture_of(request.content, self.paths, self.spec)
            prompt = None
            if request.prompt is not None:
                prompt = self.text_of(Request(request.prompt))
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
        return (tensors, self.seed_of(request)), length

    def _processed(self, image: Any, prompt: str | None) -> dict[str, Any]:
        if self.apart:
            with processing():
                tensors = dict(self.processor(image, return_tensors="pt"))
            if prompt is not None:
                said = self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
                tensors["decoder_input_ids"] = said["input_ids"]
            return tensors
        given = {"images": image} if prompt is None else {"images": image, "text": prompt}
        # Of a model that needs a prompt, say, or one with a mark where the image belongs.
        with processing("unusable input"):
            tensors = dict(self.processor(**given, return_tensors="pt"))
        if self.model.config.model_type == "git" and prompt is not None:
            # Its tokenizer ends a text, which the model is to go on with.
            tensors["input_ids"] = tensors["input_ids"][:, :-1]
            tensors = {name: tensors[name] for name in ("pixel_values", "input_ids")}
        return tensors

    def _groups(self, items: Sequence[Item]) -> Iterable[list[int]]:
        """Rows whose tensors have the same shapes: nothing is padded."""
        return alike(
            [sorted((name, each.shape) for name, each in tensors.items()) for tensors, _ in items]
        )

    def _inputs(self, values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {name: self._placed([each[name] for each in values]) for name in values[0]}

    def _placed(self, tensors: Sequence[Any]) -> Any:
        together = self._torch.cat(tuple(tensors)).to(self.torch_device)
        return together.to(self.model.dtype) if together.is_floating_point() else together
