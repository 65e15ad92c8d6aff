"""Tiny models with random weights, saved as the real ones are. Each builder returns its folder."""

from __future__ import annotations

import json
import re
import string
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ember.worker.spec import ModelSpec, hash_files

MAX_TOKENS = 24

needs_keras = pytest.mark.skipif(
    not (find_spec("keras") and find_spec("tensorflow")), reason="tensorflow is not installed"
)
needs_openvino = pytest.mark.skipif(not find_spec("openvino"), reason="openvino is not installed")

_WORDS = "the a cat dog sat on mat is blue small big runs of and in house tree ##s ##ing ##ed"


def vocabulary() -> list[str]:
    """The words that tiny BERT knows; any lower-case ASCII word splits into its pieces."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    return [*special, *_WORDS.split(), *letters, *(f"##{letter}" for letter in letters)]


def tiny_resnet(folder: Path, *, dtype: str = "float32") -> Path:
    """ResNetForImageClassification: 2 stages, 24 features, 32 × 32 pixels, 5 labels."""
    import torch
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 24],
        depths=[1, 1],
        layer_type="basic",
        id2label=dict(enumerate(["ant", "bee", "cow", "dog", "elk"])),
        label2id={"ant": 0, "bee": 1, "cow": 2, "dog": 3, "elk": 4},
    )
    model = ResNetForImageClassification(config).eval()
    stir(model)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    ConvNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_pct=0.875, image_mean=[0.5] * 3, image_std=[0.25] * 3
    ).save_pretrained(folder)
    return folder


def tiny_bert(folder: Path, *, pooler: bool = True, labels: tuple[str, ...] = ()) -> Path:
    """BertModel: 2 layers, 32 features, 24 tokens, a WordPiece vocabulary of its own.

    With labels, BertForSequenceClassification that gives any number of them to a text.
    """
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        BertModel,
        BertTokenizerFast,
    )

    torch.manual_seed(1)
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", "utf-8")
    tokenizer = BertTokenizerFast(
        vocab={word: index for index, word in enumerate(vocabulary())},
        model_max_length=MAX_TOKENS,
    )
    config = BertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_TOKENS + 8,
    )
    if labels:
        config.id2label = dict(enumerate(labels))
        config.problem_type = "multi_label_classification"
        model = BertForSequenceClassification(config).eval()
    else:
        model = BertModel(config, add_pooling_layer=pooler).eval()
    stir(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_roberta(folder: Path) -> Path:
    """RobertaModel: 2 layers, 32 features, 26 positions of which 2 are spent on padding."""
    import torch
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

    torch.manual_seed(2)
    letters = [*string.ascii_letters, *string.digits, *string.punctuation, "Ġ"]
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters]
    tokenizer = RobertaTokenizerFast(
        vocab={word: index for index, word in enumerate(words)}, merges=[]
    )
    config = RobertaConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=MAX_TOKENS + 2,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = RobertaModel(config).eval()
    stir(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_dual(folder: Path, kind: str) -> Path:
    """CLIPModel, SiglipModel or ChineseCLIPModel: 2 layers a tower, 16 projected features."""
    import torch
    import transformers

    torch.manual_seed(3)
    words = vocabulary()
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    tower |= {"num_attention_heads": 4}
    text = {**tower, "vocab_size": len(words), "max_position_embeddings": MAX_TOKENS}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": words.index("[SEP]")}
    if kind == "Siglip":
        text["projection_size"] = tower["hidden_size"]
    vision = {**tower, "image_size": 32, "patch_size": 8}
    sizes = {} if kind == "Siglip" else {"projection_dim": 16}
    config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=vision, **sizes)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    stir(model)
    model.save_pretrained(folder)
    transformers.BertTokenizerFast(
        vocab={word: index for index, word in enumerate(words)}, model_max_length=MAX_TOKENS
    ).save_pretrained(folder)
    transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder


def tiny_gpt2(folder: Path, **settings: Any) -> Path:
    """GPT2LMHeadModel: 2 layers, 32 features, 48 tokens, each letter a token, texts that end."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(51)
    model = GPT2LMHeadModel(GPT2Config(**_gpt2_settings())).eval()
    stir(model)
    model.generation_config.update(**settings)
    model.save_pretrained(folder)
    _letters().save_pretrained(folder)
    return folder


def tiny_captioner(folder: Path) -> Path:
    """VisionEncoderDecoderModel: a ViT for 32 × 32 pixels and a GPT-2 of 48 tokens."""
    import torch
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessorPil,
    )

    torch.manual_seed(13)
    decoder = GPT2Config(**_gpt2_settings(), is_decoder=True, add_cross_attention=True)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(_vit(ViTConfig), decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = 1, 0, 0
    model = VisionEncoderDecoderModel(config).eval()
    stir(model)
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    _letters().save_pretrained(folder)
    return folder


def tiny_blip(folder: Path) -> Path:
    """BlipForConditionalGeneration: 32 × 32 pixels, the words of tiny BERT, 40 tokens."""
    import torch
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessorPil,
        BlipProcessor,
    )

    torch.manual_seed(7)
    words = {word: index for index, word in enumerate(vocabulary())}
    text = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "encoder_hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 40,
        "bos_token_id": words["[CLS]"],
        "eos_token_id": words["[UNK]"],
        "sep_token_id": words["[SEP]"],
        "pad_token_id": words["[PAD]"],
    }
    vision = {**_vit(dict), "projection_dim": 16, "initializer_range": 0.02}
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).eval()
    stir(model)
    model.save_pretrained(folder)
    tokenizer = BertTokenizerFast(vocab=words, model_max_length=40)
    images = BlipImageProcessorPil(size={"height": 32, "width": 32})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def tiny_git(folder: Path) -> Path:
    """GitForCausalLM: 32 × 32 pixels, the words of tiny BERT, 40 tokens."""
    import torch
    from transformers import (
        BertTokenizerFast,
        CLIPImageProcessorPil,
        GitConfig,
        GitForCausalLM,
        GitProcessor,
    )

    torch.manual_seed(12)
    words = {word: index for index, word in enumerate(vocabulary())}
    config = GitConfig(
        vision_config=_vit(dict),
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=40,
        bos_token_id=words["[CLS]"],
        eos_token_id=words["[SEP]"],
        pad_token_id=words["[PAD]"],
    )
    model = GitForCausalLM(config).eval()
    stir(model)
    model.save_pretrained(folder)
    tokenizer = BertTokenizerFast(vocab=words, model_max_length=40)
    size = {"height": 32, "width": 32}
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size)
    GitProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def _vit(kind: Any) -> Any:
    return kind(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=16,
    )


def _gpt2_settings() -> dict[str, Any]:
    return {
        "vocab_size": len(_letters()),
        "n_positions": 48,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "bos_token_id": 1,
        "eos_token_id": 0,
        # Else it says the last letter again and again.
        "tie_word_embeddings": False,
    }


def _letters() -> Any:
    from transformers import GPT2TokenizerFast

    letters = [*string.ascii_letters, *string.digits, *string.punctuation, "Ġ"]
    tokens = ["<|end|>", "<|start|>", *letters]
    return GPT2TokenizerFast(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        bos_token="<|start|>",
        eos_token="<|end|>",
        unk_token="<|start|>",
    )


def keras_weights(file: Path, architecture: str, *, top: bool) -> Path:
    """Random weights of a model of keras.applications, as .weights.h5 or .keras."""
    import keras

    keras.utils.set_random_seed(3)
    model = getattr(keras.applications, architecture)(weights=None, include_top=top)
    stir_keras(model)
    save_keras(model, file)
    return file


def save_keras(model: Any, file: Path) -> None:
    (model.save if file.suffix == ".keras" else model.save_weights)(file)


def stir_keras(model: Any) -> None:
    """Random weights through which a picture still shows in the features, as after training.

    Keras's own let the signal fade over the layers until all pictures have the same vector.
    """
    import numpy as np

    rng = np.random.default_rng(4)
    for weight in model.weights:
        shape = tuple(weight.shape)
        if "kernel" in weight.name:
            fan_in = np.prod(shape[:2] if "depthwise" in weight.path else shape[:-1])
            weight.assign(rng.standard_normal(shape, np.float32) * np.float32((2 / fan_in) ** 0.5))
        elif re.search("gamma|variance", weight.name):
            weight.assign(rng.uniform(0.7, 1.4, shape))
        elif re.search("beta|mean|bias", weight.name):
            weight.assign(rng.uniform(-0.1, 0.1, shape))


def stir(model: Any) -> None:
    """The same in torch; without it, an error in loading the statistics would not show."""
    import torch

    for name, value in model.state_dict().items():
        if value.is_floating_point():
            if value.ndim == 1 and name.endswith(("weight", "running_var")):
                value.copy_(torch.rand_like(value) * 0.7 + 0.7)
            elif value.ndim == 1:
                value.copy_(torch.rand_like(value) * 0.4 - 0.2)
            elif value.ndim == 2:
                value.mul_(5)  # transformers starts small, where every text looks alike


def spec_of(path: Path, **changes: Any) -> ModelSpec:
    """The spec of a transformers folder, or with `name="keras:…"` of a Keras weights file."""
    keras = str(changes.get("name", "")).startswith("keras:")
    modality = changes.pop("modality", None) or ("image" if keras else _modality(path))
    values: dict[str, Any] = {
        "name": f"hf:{path}",
        "family": "keras" if keras else "hf",
        "modality": modality,
        "path": str(path),
        "layer": "avg_pool" if modality == "image" else "mean",
        "runtime": "tensorflow" if keras else "torch",
        "precision": "float32",
        "batch_size": None,
        "normalize": False,
        "max_pixels": 1_000_000,
        "weights_sha256": hash_files(path),
        "preprocessing": "",
    }
    return ModelSpec(**{**values, **changes})


def _modality(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return "image" if config["model_type"] == "resnet" else "text"
