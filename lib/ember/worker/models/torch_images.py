"""Image models of transformers in torch, through their own processor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ember.errors import InvalidInput
from ember.worker.device import Device
from ember.worker.models.first_layer import has_class_token
from ember.worker.models.model_folder import loading
from ember.worker.models.picture_bytes import PictureBytes, picture_bytes
from ember.worker.models.pictures import picture_of, processing
from ember.worker.models.torch_runtime import Matrix, TorchModel
from ember.worker.row_paths import PathRules
from ember.worker.rows import RowError
from ember.worker.spec import ModelSpec

__all__ = ["TorchImageEncoder", "pool_image"]

Item = Mapping[str, Any]
Shapes = tuple[tuple[str, tuple[int, ...]], ...]

# Numbers that one row may give the model: 2,048 x 2,048 pixels of three colors. What a
# convolution makes of them at full resolution takes about a gigabyte.
_MOST_INPUT = 3 * 2048 * 2048
_PROBES = ((64, 64), (96, 64))


def pool_image(output: Any, layer: str, mask: Any = None) -> Any:
    """Image features of a transformers output: (n, d).

    `avg_pool`: the mean over the last feature map (n, d, h, w), or over the tokens (n, t, d), those
    that `mask` (n, t) marks with 1 where there is one.
    `cls`: the first token; None where there are no tokens. `pooler`: the model's own pooler.
    """
    hidden = output.last_hidden_state
    if layer == "pooler":
        return output.pooler_output.flatten(1)
    if layer == "cls":
        return hidden[:, 0] if hidden.ndim == 3 else None
    if hidden.ndim == 4:
        return hidden.mean(dim=(2, 3))
    if mask is not None and mask.shape == hidden.shape[:2]:
        weights = mask.unsqueeze(-1).float()
        return (hidden.float() * weights).sum(1) / weights.sum(1).clamp(min=1)
    return hidden.mean(dim=1)


class TorchImageEncoder(TorchModel):
    """Image rows to vectors through AutoImageProcessor and AutoModel. See `encoder.Encoder`.

    Most processors make every picture one size. Of those that do not, pictures of equal size run
    together, a row's cost is its size in pictures of the usual one, and a picture that the
    processor or the model cannot take is an error row.

    takes_pixels_alone: are `pixel_values` of one size all that the model is given?
    """

    chunk_rows = 8
    most_padding: int | None = None

    def __init__(
        self, spec: ModelSpec, device: Device, threads: int, *, paths: PathRules | None
    ) -> None:
        super().__init__(spec, device, threads)
        from transformers import AutoImageProcessor

        self.paths = paths
        self.processor = self._auto(AutoImageProcessor)
        self.batch_size = spec.batch_size or (128 if device == "cuda" else 16)
        self.batch_cost = self.window_rows = self.batch_size
        self._encode: Callable[..., Any] = (
            self.model.get_image_features if self._dual else self.model
        )
        taken = inspect.signature(self._encode if self._dual else self.model.forward).parameters
        self._taken = frozenset(taken)
        self._bytes: PictureBytes | None = None
        self._learn_sizes()
        if self.feed.in_flight > 1:
            self._use_bytes()

    def _moved(self, model: Any) -> Any:
        # Convolutions run up to a third faster so; for other models it changes nothing.
        return model.to(self.torch_device, memory_format=self._torch.channels_last)

    def _learn_sizes(self) -> None:
        """What the processor makes of pictures of two shapes.

        Raises InvalidInput where it makes nothing of them.
        """
        with loading(self.spec.name, self.spec.path):
            made = [self.processed(Image.new("RGB", size)) for size in _PROBES]
        self._usual: Shapes
        self._usual, other = map(_shapes, made)
        self._fixed = self._usual == other
        self.takes_pixels_alone = self._fixed and made[0].keys() == {"pixel_values"}
        shape = made[1]["pixel_values"].shape
        self._keeps_size = shape[1:] == (_PROBES[1][1], _PROBES[1][0])
        self._numbers = made[0]["pixel_values"].size
        self._most = max(_MOST_INPUT, self._numbers)
        rng, (width, height) = np.random.default_rng(0), _PROBES[0]
        noise = rng.integers(0, 256, (2, height, width, 3), np.uint8)
        with loading(self.spec.name, self.spec.path):
            items = [self.processed(Image.fromarray(each)) for each in noise]
        try:
            self._check_class_token(items)
            self._refuse_chance(items[0])
        except (RuntimeError, ValueError, IndexError):
            if self._fixed:
                raise
            # Pictures of its own kind tell what is wrong.

    def _use_bytes(self) -> None:
        """Have pictures go to the device as bytes, where the processor allows it."""
        if not self.takes_pixels_alone:
            return
        self._bytes = picture_bytes(
            self.processor, lambda image: self.processed(image)["pixel_values"], self.feed
        )
        if self._bytes is not None:
            self._usual = (("pixels", self._bytes.shape),)

    def _check_class_token(self, items: Sequence[Item]) -> None:
        """Raise InvalidInput where the layer is `cls` and the first token is but a patch."""
        if self.spec.layer != "cls" or self._dual:
            return
        outputs: list[Any] = []

        def call() -> Any:
            with self._torch.inference_mode():
                outputs.append(self._encode(**self._inputs(items)))
            return outputs[0]

        if not has_class_token(self.model, call):
            pooler = getattr(outputs[0], "pooler_output", None) is not None
            raise InvalidInput(
                f"{self.spec.name} has no layer 'cls': it has no class token; use avg_pool"
                + (" or pooler" if pooler else "")
            )

    def _refuse_chance(self, item: Item) -> None:
        """Raise InvalidInput for a model that draws at random, as masked autoencoders do."""
        torch, found = self._torch, []
        for seed in (0, 1):
            torch.manual_seed(seed)
            found.append(np.asarray(self._run_alike([item])))
        scale = float(np.abs(found[0]).max(initial=0))
        first, second = found
        if not np.allclose(first, second, rtol=0, atol=1e-3 * scale, equal_nan=True):
            raise InvalidInput(
                f"{self.spec.name} gives another vector for the same picture each time, as masked "
                "autoencoders do; set its mask_ratio to 0, or give a folder of the encoder alone"
            )

    def prepare(self, raws: Sequence[bytes | None]) -> list[tuple[Item, int] | RowError]:
        """What the processor makes of each row, by name: `pixel_values` (3, h, w) float32, …

        On a GPU `pixels` (h, w, 3) uint8 where the processor makes no more of them than numbers.
        """
        return [self._prepare(raw) for raw in raws]

    def _prepare(self, raw: bytes | None) -> tuple[Item, int] | RowError:
        try:
            image = picture_of(raw, self.paths, self.spec)
            self._check_scaled(image)
            if self._bytes is not None:
                with processing():
                    return {"pixels": self._bytes.plan(image)}, 1
            item = self.processed(image)
        except RowError as error:
            return error
        return item, max(1, -(-item["pixel_values"].size // self._numbers))

    def _check_scaled(self, image: Image.Image) -> None:
        """Raise RowError for what would be too large for the model, before it is made."""
        if self._fixed:
            return
        width, height = image.size
        scaled = self._numbers * max(width, height) // min(width, height)
        numbers = 3 * width * height if self._keeps_size else scaled
        if numbers > self._most:
            raise RowError(
                "too many pixels",
                f"{width}x{height} is {numbers // 3:,} pixels to the model, which takes "
                f"{self._most // 3:,} of a row; have the folder's processor scale or crop it",
            )

    def processed(self, image: Image.Image) -> Item:
        with processing():
            made = self.processor(image, return_tensors="np")
            names = ["pixel_values", *sorted(self._taken & set(made) - {"pixel_values"})]
            return {name: np.asarray(made[name][0]) for name in names}

    def run(self, items: Sequence[Item]) -> Iterable[Any]:
        """A vector (d,) float32, or a RowError, for each item."""
        return self._begin(items, alone=True)()

    def start(self, items: Sequence[Item]) -> Callable[[], Iterable[Any]]:
        """Begin with a batch; see `encoder.Overlapping`."""
        return self._begin(items, alone=False)

    def finish(self, started: Callable[[], Iterable[Any]]) -> Iterable[Any]:
        """What `run` returns."""
        return started()

    def _begin(self, items: Sequence[Item], *, alone: bool) -> Callable[[], Iterable[Any]]:
        """A function that waits for the batch. alone: no other is under way."""
        groups: dict[Shapes, list[int]] = {}
        for row, item in enumerate(items):
            groups.setdefault(_shapes(item), []).append(row)
        with self.feed.batch():
            if list(groups) == [self._usual]:
                return self._begin_alike(items)
            started = [
                (rows, self._begin_odd([items[row] for row in rows], shapes, alone))
                for shapes, rows in groups.items()
            ]

        def wait() -> Iterable[Any]:
            found: list[Any] = [None] * len(items)
            for rows, vectors in started:
                for row, vector in zip(rows, vectors(), strict=True):
                    found[row] = vector
            return found

        return wait

    def _begin_odd(
        self, items: Sequence[Item], shapes: Shapes, alone: bool
    ) -> Callable[[], Iterable[Any]]:
        """Items of one size, of which the model may take none: too small for it, or too large."""
        try:
            return self._begin_alike(items)
        except (RuntimeError, ValueError, IndexError, MemoryError) as error:
            # Fewer at a time may fit; what fails for usual pictures is not the fault of these.
            fewer = len(items) > 1 or not alone
            if shapes == self._usual or (fewer and self.is_out_of_memory(error)):
                raise
            size = "x".join(map(str, dict(shapes)["pixel_values"]))
            refused = RowError("unusable image", f"the model says of {size}: {error}")
            return lambda: [refused] * len(items)

    def _run_alike(self, items: Sequence[Item]) -> Matrix:
        with self.feed.batch():
            return self._begin_alike(items)()

    def _begin_alike(self, items: Sequence[Item]) -> Callable[[], Matrix]:
        inputs = self._inputs(items)
        self.feed.in_order()  # with the copy beside the batch before
        with self._torch.inference_mode():
            return self.feed.fetch(self.features(inputs))

    def features(self, inputs: Mapping[str, Any]) -> Any:
        """What the model makes of its inputs by name, tensors (n, …): (n, d) float32."""
        output = self._encode(**inputs)
        if self._dual:
            return self._features(output, lambda: output.pooler_output)
        mask = inputs.get("pixel_attention_mask")
        return self._features(output, lambda: pool_image(output, self.spec.output, mask))

    def _inputs(self, items: Sequence[Item]) -> dict[str, Any]:
        if self._bytes is not None and "pixels" in items[0]:
            pixels = self.feed.stack([item["pixels"] for item in items])
            return {"pixel_values": self._bytes.numbers(pixels).to(self.model.dtype)}
        return {name: self._placed([item[name] for item in items]) for name in items[0]}

    def _placed(self, arrays: Sequence[Any]) -> Any:
        """The arrays as one tensor where the model is, numbers in its precision."""
        stacked = self.feed.stack(arrays)
        if not stacked.is_floating_point():
            return stacked
        form = self._torch.channels_last if stacked.ndim == 4 else self._torch.contiguous_format
        return stacked.to(self.model.dtype, memory_format=form)


def _shapes(item: Item) -> Shapes:
    return tuple((name, array.shape) for name, array in item.items())
