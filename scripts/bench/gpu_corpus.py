"""What gpu.py runs on, made from nothing: models with random weights, pictures, texts."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["bert", "pictures", "resnet", "texts"]

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_WORDS = 30_000
_LONGEST = 256


def resnet(folder: Path, *, tiny: bool) -> None:
    """ResNet-50 with its processor for 224 × 224 pixels; tiny: of two stages, for 32 × 32."""
    import torch
    import transformers
    from transformers import AutoModel, ResNetConfig

    torch.manual_seed(0)
    small = {"embedding_size": 8, "hidden_sizes": [16, 24], "depths": [1, 1]}
    model = AutoModel.from_config(ResNetConfig(**(small if tiny else {}))).eval()
    for module in model.modules():
        if type(module).__name__ == "ResNetBottleNeckLayer":
            # Or the residuals add up over the blocks to more than float16 holds.
            torch.nn.init.constant_(module.layer[-1].normalization.weight, 0.3)
    model.save_pretrained(folder)
    size = {"shortest_edge": 32 if tiny else 224}
    # Earlier versions of transformers 5 have the one with Pillow under the plain name.
    name = "ConvNextImageProcessor"
    processor = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    processor(size=size, crop_pct=0.875).save_pretrained(folder)


def bert(folder: Path, *, hidden: int, layers: int, tiny: bool) -> None:
    """A BERT of 12 heads, with a tokenizer to which each word of `texts` is one token."""
    import torch
    from transformers import AutoModel, BertConfig, BertTokenizerFast

    torch.manual_seed(0)
    words = [*_SPECIAL, *_words(), *ascii_lowercase, *(f"##{each}" for each in ascii_lowercase)]
    tokenizer = BertTokenizerFast(
        vocab={word: number for number, word in enumerate(dict.fromkeys(words))},
        model_max_length=_LONGEST,
    )
    tokenizer.save_pretrained(folder)
    hidden, layers = (24, 2) if tiny else (hidden, layers)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=4 * hidden,
    )
    AutoModel.from_config(config).eval().save_pretrained(folder)


def pictures(count: int) -> list[bytes]:
    """JPEGs of 500 × 375 pixels, as large as photographs are."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(noisy).save(stream, "JPEG", quality=85)
        made.append(stream.getvalue())
    return made


def texts(count: int) -> list[bytes]:
    """Texts whose lengths are those of short news: 40 words on average, 2 to 250."""
    rng = np.random.default_rng(2)
    words = np.asarray(_words())
    lengths = np.clip(np.exp(rng.normal(np.log(34), 0.6, count)), 2, _LONGEST - 6).astype(int)
    made: list[Any] = [" ".join(rng.choice(words, length)).encode() for length in lengths]
    return made


def _words() -> list[str]:
    letters = itertools.product(ascii_lowercase, repeat=4)
    return ["".join(each) for each in itertools.islice(letters, 0, None, 15)][:_WORDS]
