"""Fine-tuning transformers models in torch: images and texts, one process or several."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.errors import InvalidInput
from ember.worker.device import Device
from ember.worker.finetune.learner import Batch, Stage, Tuning
from ember.worker.images.decoding import decode
from ember.worker.models.declared_size import bounded
from ember.worker.models.feeding import Feed
from ember.worker.models.model_folder import FILES_ONLY, loading, plain_config
from ember.worker.models.text_call import TextCall, accepted_keys
from ember.worker.models.text_fit import Fit, find_fit
from ember.worker.models.text_input import room_for_texts
from ember.worker.models.text_tokenizer import load_tokenizer, max_tokens
from ember.worker.models.text_tokens import TextTokens, Tokens
from ember.worker.models.text_trial import Trial, try_tables
from ember.worker.models.torch_runtime import start_torch
from ember.worker.rows import RowError, to_text
from ember.worker.spec import RELATIVE_TOLERANCE, ModelSpec

__all__ = ["TorchLearner"]

Float32 = npt.NDArray[np.float32]
_WEIGHT_DECAY = 0.01


class TorchLearner:
    """A transformers model with a new classification head. See `learner.Learner`.

    Where the folder's own labels are the ones to be learnt, its head is kept.
    With several processes the gradients of a step are summed over them, each of its share of the
    batch's mean loss, so that a step is the same whatever their number.
    """

    def __init__(
        self, spec: ModelSpec, tuning: Tuning, device: Device, threads: int, *, group: Any = None
    ) -> None:
        torch, transformers = start_torch(device, threads)
        self.spec = spec
        self.tuning = tuning
        self.device = torch.device(device)
        self._torch = torch
        self._group = group
        torch.manual_seed(tuning.seed)
        self.model = self._load(transformers).to(self.device)
        self._base = self.model.base_model
        self._inputs: _Images | _Texts = (
            _Images(spec, tuning)
            if spec.modality == "image"
            else _Texts(spec, self.model, self.device)
        )
        self._trained: dict[str, Any] = {}
        self._optimizer: Any = None

    def _load(self, transformers: Any) -> Any:
        kind = transformers.AutoModelForSequenceClassification
        if self.spec.modality == "image":
            kind = transformers.AutoModelForImageClassification
        labels = dict(enumerate(self.tuning.labels))
        with loading(self.spec.name, self.spec.path), bounded(self.spec.transformer_path):
            own = plain_config(self.spec.transformer_path)
            config = plain_config(
                self.spec.transformer_path,
                id2label=labels,
                label2id={label: index for index, label in labels.items()},
                problem_type="single_label_classification",
            )
            model, info = kind.from_pretrained(
                self.spec.transformer_path,
                config=config,
                ignore_mismatched_sizes=True,
                dtype=self._torch.float32,
                output_loading_info=True,
                weights_only=True,
                **FILES_ONLY,
            )
        prefix = f"{model.base_model_prefix}."
        lacking = [key for key in info["missing_keys"] if key.startswith(prefix)]
        if any("pooler" not in key for key in lacking):
            raise InvalidInput(f"{self.spec.name} lacks the weights {', '.join(lacking[:3])}")
        self._new = set(lacking)  # a pooler that the folder lacks is learnt with the head
        if own.id2label != labels or info["missing_keys"]:
            for name, module in model.named_modules():
                if not f"{name}.".startswith(prefix) and hasattr(module, "reset_parameters"):
                    module.reset_parameters()
        return model

    # What is trained

    def begin(self, stage: Stage) -> None:
        torch = self._torch
        chosen = self._head() | (self._last_stages() if stage == "full" else set())
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in chosen)
        self._trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        decayed = [p for p in self._trained.values() if p.ndim > 1]
        others = [p for p in self._trained.values() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": _WEIGHT_DECAY},
            {"params": others, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW([each for each in groups if each["params"]])

    def _head(self) -> set[str]:
        prefix = f"{self.model.base_model_prefix}."
        names = (name for name, _ in self.model.named_parameters())
        return {name for name in names if not name.startswith(prefix)} | self._new

    def _last_stages(self) -> set[str]:
        """Names of the parameters of the backbone's last stages, and of what follows them.

        The stages are the members of its outermost list of modules: ResNet's stages, BERT's layers.
        """
        names = [name for name, _ in self.model.named_parameters()]
        if self.tuning.unfreeze is None:
            return set(names)
        torch, prefix = self._torch, self.model.base_model_prefix
        found = (
            (f"{prefix}.{name}.", module)
            for name, module in self._base.named_modules()
            if isinstance(module, torch.nn.ModuleList) and len(module) > 1
        )
        path, stages = next(found, ("", ()))
        if not stages:  # one layer, or the same one several times, as ALBERT has it
            return set(names)
        first = max(0, len(stages) - self.tuning.unfreeze)
        kept = {name for name in names if name.startswith(path)}
        kept -= {name for name in kept if int(name.removeprefix(path).split(".")[0]) >= first}
        start = min(names.index(name) for name in names if name.startswith(path))
        before = set(names[:start]) if first else set()
        return set(names) - kept - before

    def seed(self, seed: int) -> None:
        self._torch.manual_seed(seed)

    def _training_mode(self) -> None:
        """What is frozen stays as when it is used: no dropout, no new statistics."""
        torch = self._torch
        norms = torch.nn.modules.batchnorm._BatchNorm
        self.model.train()
        for module in self.model.modules():
            own = list(module.parameters())
            frozen = bool(own) and not any(each.requires_grad for each in own)
            if frozen or (isinstance(module, norms) and self.tuning.batch_norm == "frozen"):
                module.eval()

    # A step

    def prepare(self, content: bytes, rng: np.random.Generator | None) -> Any:
        return self._inputs.prepare(content, rng)

    def encode(self, items: Sequence[Any]) -> Float32 | None:
        """The input of the head's first layer, where the head is one module `classifier`."""
        head = self._head()
        if self._new or not all(name.startswith("classifier.") for name in head):
            return None
        taken: list[Any] = []
        hook = self.model.classifier.register_forward_pre_hook(
            lambda _, inputs: taken.append(inputs[0])
        )
        try:
            self.model.eval()
            with self._torch.inference_mode():
                self.model(**self._inputs.batch(items, self.device))
        finally:
            hook.remove()
        features: Float32 = taken[0].float().cpu().numpy()
        # More than one vector a row: the head reads all tokens.
        return features if features.size == features.shape[0] * features.shape[1] else None

    def train(self, batch: Batch, rate: float, rows: int) -> tuple[float, int]:
        self._training_mode()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        loss, right = self._torch.zeros(()), 0
        if len(batch):
            with self._mixed():
                loss, right = self._loss(batch)
            (loss / rows).backward()
        if self._group is not None:
            self._group.sum_gradients(self._trained.values())
        self._torch.nn.utils.clip_grad_norm_(self._trained.values(), 1.0)
        self._optimizer.step()
        return float(loss.detach()), right

    def score(self, batch: Batch) -> tuple[float, int]:
        self.model.eval()
        with self._torch.inference_mode(), self._mixed():
            loss, right = self._loss(batch)
        return float(loss), right

    def _loss(self, batch: Batch) -> tuple[Any, int]:
        torch = self._torch
        targets = torch.from_numpy(batch.targets).to(self.device)
        if batch.encoded:
            head = self.model.classifier
            logits = head(torch.from_numpy(np.stack(batch.items)).to(self.device))
        else:
            logits = self.model(**self._inputs.batch(batch.items, self.device)).logits
        loss = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
        return loss, int((logits.argmax(-1) == targets).sum())

    @contextmanager
    def _mixed(self) -> Iterator[None]:
        low = self.spec.precision == "bfloat16"
        with self._torch.autocast(self.device.type, self._torch.bfloat16, enabled=low):
            yield

    def end_epoch(self) -> None:
        """Average the statistics of batch normalization, which each process gathers for itself."""
        if self._group is not None and self.tuning.batch_norm == "trained":
            self._group.average(each for each in self.model.buffers() if each.is_floating_point())

    # Going on, and the result

    def state(self) -> bytes:
        stream = io.BytesIO()
        kept = {
            "weights": {name: value.detach() for name, value in self._trained.items()},
            "buffers": dict(self.model.named_buffers()),
            "optimizer": self._optimizer.state_dict(),
        }
        self._torch.save(kept, stream)
        return stream.getvalue()

    def restore(self, state: bytes, *, optimizer: bool) -> None:
        kept = self._torch.load(io.BytesIO(state), map_location=self.device, weights_only=True)
        self.model.load_state_dict({**kept["weights"], **kept["buffers"]}, strict=False)
        if optimizer:
            self._optimizer.load_state_dict(kept["optimizer"])

    def save(self, folder: str) -> None:
        self.model.save_pretrained(folder)
        self._inputs.save(folder)


class _Images:
    """Pictures through the model's own processor; augmented ones cropped to its size."""

    def __init__(self, spec: ModelSpec, tuning: Tuning) -> None:
        from PIL import Image
        from transformers import AutoImageProcessor

        with loading(spec.name, spec.path):
            self.processor = AutoImageProcessor.from_pretrained(spec.transformer_path, **FILES_ONLY)
        self.max_pixels = spec.max_pixels
        self.augmentation = tuning.augmentation
        shape, other = (self._pixels(Image.new("RGB", size)).shape for size in ((64, 64), (96, 64)))
        if shape != other:
            raise InvalidInput(
                f"{spec.name} cannot be fine-tuned: its image processor leaves pictures of several "
                "sizes; set do_resize and do_center_crop in the folder's preprocessor_config.json"
            )
        self.size = (shape[2], shape[1])

    def prepare(self, content: bytes, rng: np.random.Generator | None) -> Float32:
        """Pixel values (3, h, w) float32."""
        image = decode(content, self.max_pixels)
        if rng is None or self.augmentation is None:
            return self._pixels(image)
        cropped = self.augmentation.apply(image, self.size, rng)
        return self._pixels(cropped, do_resize=False, do_center_crop=False)

    def _pixels(self, image: Any, **steps: bool) -> Float32:
        pixels: Float32 = self.processor(image, return_tensors="np", **steps)["pixel_values"][0]
        return pixels

    def batch(self, items: Sequence[Any], device: Any) -> dict[str, Any]:
        import torch

        pixels = torch.from_numpy(np.stack(items)).to(device, memory_format=torch.channels_last)
        return {"pixel_values": pixels}

    def save(self, folder: str) -> None:
        self.processor.save_pretrained(folder)


class _Texts:
    """Texts through the model's own tokenizer, cut and padded as `embed` and `classify` do it."""

    def __init__(self, spec: ModelSpec, model: Any, device: Any) -> None:
        self.tokenizer = load_tokenizer(spec.name, spec.transformer_path)
        keys = accepted_keys(model, self.tokenizer, spec.name)
        longest = max_tokens(self.tokenizer, model.config)
        room_for_texts(self.tokenizer, "", longest, spec.name)
        self._tokens = TextTokens(self.tokenizer, longest, keys)
        self._call = TextCall(model, keys, Feed(device).place)
        self._fit = self._try(spec, model)
        self._tokens.settle(self._fit.longest)  # before there are threads

    def _try(self, spec: ModelSpec, model: Any) -> Fit:
        trial = Trial(model, self._tokens, self._call, RELATIVE_TOLERANCE["float32"])
        longest, self._vocabulary = try_tables(trial, self.tokenizer, spec.name)
        return find_fit(trial, longest, spec.name)

    def prepare(self, content: bytes, _: np.random.Generator | None) -> Tokens:
        """Tokens (keys, t), cut at the model's length. Raises InvalidInput for a text without."""
        (tokens,) = self._tokens([to_text(content)])
        if isinstance(tokens, RowError):
            raise InvalidInput(f"the model cannot learn from a text of the corpus: {tokens}")
        if (largest := int(tokens[0].max())) >= self._vocabulary:
            raise InvalidInput(
                "the model cannot learn from a text of the corpus: the tokenizer says "
                f"{largest}, the model has vectors for {self._vocabulary}"
            )
        return tokens

    def batch(self, items: Sequence[Any], device: Any) -> dict[str, Any]:
        width = self._fit.width([each.shape[1] for each in items])
        inputs, _ = self._call.inputs(items, width)
        return inputs

    def save(self, folder: str) -> None:
        self.tokenizer.save_pretrained(folder)
