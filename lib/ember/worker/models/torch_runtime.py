"""Transformers models in torch: what loads and runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.errors import InvalidInput
from ember.worker.device import Device, require_cuda
from ember.worker.models.declared_size import bounded
from ember.worker.models.feeding import feed_for
from ember.worker.models.model_folder import FILES_ONLY, loading, plain_config
from ember.worker.spec import ModelSpec

__all__ = [
    "TorchModel",
    "probabilities",
    "start_torch",
]

Matrix = npt.NDArray[np.float32]


def probabilities(output: Any, problem_type: str | None) -> Any:
    """Scores of the classes of a transformers classifier's output: (n, classes) float32.

    As transformers' own pipelines have it: a sigmoid for each label where the model was trained for
    several at once or has one only, the number itself of a regression, else a softmax.
    """
    logits = output.logits.float()
    if problem_type == "regression":
        return logits
    several = problem_type == "multi_label_classification" or logits.shape[-1] == 1
    return logits.sigmoid() if several else logits.softmax(dim=-1)


def start_torch(device: Device, threads: int) -> tuple[Any, Any]:
    """The modules torch, on so many threads, and transformers, quiet.

    Raises DeviceMissing where a GPU is asked for and torch sees none.
    """
    import torch
    import transformers

    if device == "cuda":
        require_cuda(torch.cuda.is_available(), "torch")
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return torch, transformers


class TorchModel:
    """What runs a transformers model: loading, device, precision, memory errors.

    Of `encoder.Overlapping`, what `start` returns is a function that waits for the result.
    """

    def __init__(self, spec: ModelSpec, device: Device, threads: int) -> None:
        torch, transformers = start_torch(device, threads)
        # float32 is float32: by default convolutions on a GPU take 10 of its 23 bits (TF32).
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self.spec = spec
        self.torch_device = torch.device(device)
        self.device = torch.cuda.get_device_name(0) if device == "cuda" else "cpu"
        self._torch = torch
        self.model = self._load(transformers)
        self.feed = feed_for(self.torch_device)
        # CLIP and its kin: a tower for images and one for texts, projected to one space.
        self._dual = spec.task == "embed" and all(
            hasattr(self.model, f"get_{kind}_features") for kind in ("image", "text")
        )
        if self._dual and spec.layer != "pooler":
            raise InvalidInput(
                f"{spec.name} embeds images and texts in one space; model.layer is pooler for it"
            )

    def _load(self, transformers: Any) -> Any:
        torch, spec = self._torch, self.spec
        with loading(spec.name, spec.path), bounded(spec.transformer_path):
            model, info = self._kind(transformers).from_pretrained(
                spec.transformer_path,
                config=plain_config(spec.transformer_path),
                dtype=getattr(torch, spec.precision),
                output_loading_info=True,
                weights_only=True,
                **FILES_ONLY,
            )
        part = self._part(model)
        # Transformers fills what the folder lacks with random numbers. Only what is not used may
        # be missing: a pooler that is not asked for, the decoder beside an encoder.
        needs_pooler = spec.layer == "pooler"
        used = {id(parameter) for parameter in part.parameters()}
        unused = {
            key
            for key, parameter in model.named_parameters(remove_duplicate=False)
            if id(parameter) not in used or (key.startswith("pooler") and not needs_pooler)
        }
        missing = [key for key in info["missing_keys"] if key not in unused]
        if missing and spec.task == "classify":
            raise InvalidInput(
                f"{spec.name} has no classification head (it lacks {sorted(missing)[0]}); give "
                "`head`, a folder that train wrote, or a model that finetune wrote"
            )
        if missing:
            raise InvalidInput(
                f"{spec.name} lacks the weights {', '.join(sorted(missing)[:3])}"
                f"{' …' if len(missing) > 3 else ''} that layer {spec.output!r} needs"
            )
        return self._moved(part.eval().requires_grad_(False))

    def _moved(self, model: Any) -> Any:
        """The model on the device."""
        return model.to(self.torch_device)

    def _part(self, model: Any) -> Any:
        """What of a loaded model is used: all of it."""
        return model

    def _kind(self, transformers: Any) -> Any:
        """The class of transformers that makes this model of its folder."""
        if self.spec.task == "classify" and self.spec.modality == "image":
            return transformers.AutoModelForImageClassification
        if self.spec.task == "classify":
            return transformers.AutoModelForSequenceClassification
        return transformers.AutoModel

    def _auto(self, kind: Any, **settings: Any) -> Any:
        """The processor or tokenizer of the model's folder."""
        with loading(self.spec.name, self.spec.path):
            return kind.from_pretrained(self.spec.transformer_path, **FILES_ONLY, **settings)

    @property
    def in_flight(self) -> int:
        """Batches that may be under way at a time; see `encoder.Overlapping`."""
        return self.feed.in_flight

    def _features(self, output: Any, pool: Callable[[], Any]) -> Any:
        """Probabilities of classes, or what `pool` makes of the output: (n, d) float32."""
        if self.spec.task == "classify":
            return probabilities(output, self.model.config.problem_type)
        try:
            features = pool()
        except (AttributeError, IndexError, TypeError):
            features = None
        if features is None:
            raise InvalidInput(f"{self.spec.name} has no layer {self.spec.layer!r}")
        return features.float()

    def is_out_of_memory(self, error: Exception) -> bool:
        if isinstance(error, self._torch.OutOfMemoryError | MemoryError):
            return True
        # What CUDA and its libraries say where they allocate by themselves: pinned memory, say.
        said = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED")
        return isinstance(error, RuntimeError) and any(each in str(error) for each in said)
