"""Transformers models in torch, and its text encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ember.engine.device import Device, require_cuda
from ember.engine.rows import RowError, to_text
from ember.engine.spec import CLASSES, GENERATED, ModelSpec
from ember.errors import InvalidInput

__all__ = [
    "TorchModel",
    "TorchTextEncoder",
    "max_tokens",
    "pool_text",
    "probabilities",
]

Matrix = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int64]


def pool_text(output: Any, mask: Any, layer: str) -> Any:
    """Text features of a transformers output: (n, d).

    `mean`: the mean over the tokens that `mask` (n, t) marks with 1. `cls`: the first token.
    `pooler`: the model's own pooler.
    """
    hidden = output.last_hidden_state
    if layer == "pooler":
        return output.pooler_output
    if layer == "cls":
        return hidden[:, 0]
    # In float32: bfloat16 cannot count beyond 256 tokens, float16 sums may overflow.
    weights = mask.unsqueeze(-1).float()
    return (hidden.float() * weights).sum(1) / weights.sum(1).clamp(min=1)


def probabilities(output: Any, problem_type: str | None) -> Any:
    """Class probabilities of a transformers classifier's output: (n, classes) float32.

    A sigmoid for each label where the model was trained for several at once, else a softmax.
    """
    logits = output.logits.float()
    several = problem_type == "multi_label_classification"
    return logits.sigmoid() if several else logits.softmax(dim=-1)


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


class TorchModel:
    """What runs a transformers model: loading, device, precision, memory errors."""

    def __init__(self, spec: ModelSpec, device: Device, threads: int) -> None:
        import torch
        import transformers

        if device == "cuda":
            require_cuda(torch.cuda.is_available(), "torch")
        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self.spec = spec
        self.torch_device = torch.device(device)
        self.device = torch.cuda.get_device_name(0) if device == "cuda" else "cpu"
        self._torch = torch
        self.model = self._load(transformers)
        # CLIP and its kin: a tower for images and one for texts, projected to one space.
        self._dual = spec.layer not in (CLASSES, GENERATED) and all(
            hasattr(self.model, f"get_{kind}_features") for kind in ("image", "text")
        )
        if self._dual and spec.layer != "pooler":
            raise InvalidInput(
                f"{spec.name} embeds images and texts in one space; model.layer is pooler for it"
            )

    def _load(self, transformers: Any) -> Any:
        from safetensors import SafetensorError

        torch, spec = self._torch, self.spec
        try:
            model, info = self._kind(transformers).from_pretrained(
                spec.path,
                dtype=getattr(torch, spec.precision),
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise self._unusable(error) from None
        # Transformers fills what the folder lacks with random numbers; only a pooler that is not
        # asked for may be missing.
        needs_pooler = spec.layer == "pooler"
        missing = [
            key for key in info["missing_keys"] if needs_pooler or not key.startswith("pooler")
        ]
        if missing and spec.layer == CLASSES:
            raise InvalidInput(
                f"{spec.name} has no classification head (it lacks {sorted(missing)[0]}); give "
                "`head`, a folder that train wrote, or a model that finetune wrote"
            )
        if missing:
            raise InvalidInput(
                f"{spec.name} lacks the weights {', '.join(sorted(missing)[:3])}"
                f"{' …' if len(missing) > 3 else ''} that layer {spec.layer!r} needs"
            )
        model = model.eval().requires_grad_(False)
        return model.to(self.torch_device)

    def _kind(self, transformers: Any) -> Any:
        """The class of transformers that makes this model of its folder."""
        if self.spec.layer == CLASSES and self.spec.modality == "image":
            return transformers.AutoModelForImageClassification
        if self.spec.layer == CLASSES:
            return transformers.AutoModelForSequenceClassification
        return transformers.AutoModel

    def _auto(self, kind: Any) -> Any:
        """The processor or tokenizer of the model's folder."""
        try:
            return kind.from_pretrained(self.spec.path, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> InvalidInput:
        return InvalidInput(
            f"{self.spec.name} cannot be loaded: {' '.join(str(error).split())[:300]}"
        )

    def _features(self, output: Any, pool: Callable[[], Any]) -> Matrix:
        if self.spec.layer == CLASSES:
            scores = probabilities(output, self.model.config.problem_type)
            classes: Matrix = scores.cpu().numpy()
            return classes
        try:
            features = pool()
        except (AttributeError, IndexError, TypeError):
            features = None
        if features is None:
            raise InvalidInput(f"{self.spec.name} has no layer {self.spec.layer!r}")
        vectors: Matrix = features.float().cpu().numpy()
        return vectors

    def is_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, self._torch.OutOfMemoryError | MemoryError)


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

        self._counting = Lock()
        self.tokenizer = self._auto(AutoTokenizer)
        # Without its files transformers makes an empty tokenizer, which knows no word.
        if len(self.tokenizer) <= len(self.tokenizer.all_special_ids):
            raise InvalidInput(f"{spec.name} cannot be loaded: the folder holds no tokenizer")
        self.max_tokens = max_tokens(self.tokenizer, self.model.config)
        # SigLIP was trained on texts of full length, padding unmasked, and pools the last token.
        full = self._dual and self.model.config.model_type.startswith("siglip")
        self._padded_to = self.max_tokens if full else None
        self.batch_size = spec.batch_size or (256 if device == "cuda" else 32)
        self.batch_cost = self.batch_size * min(self.max_tokens, 128)
        self.window_rows = 32 * self.batch_size
        # The first call sets the truncation, which other threads must not see half done.
        self._tokenize(["warm-up"])
        self.truncated = 0

    def prepare(self, raws: Sequence[bytes | None]) -> list[tuple[Tokens, int] | RowError]:
        """Token ids (t,) int64 of each row, truncated at the model's length, counted."""
        outcomes: list[Any] = []
        for raw in raws:
            try:
                outcomes.append(to_text(raw, self.spec.max_bytes))
            except RowError as error:
                outcomes.append(error)
        texts = [outcome for outcome in outcomes if isinstance(outcome, str)]
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
                return self._features(output, lambda: output.pooler_output)
            output = self.model(**inputs)
            return self._features(
                output, lambda: pool_text(output, inputs["attention_mask"], self.spec.layer)
            )
