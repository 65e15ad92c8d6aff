"""Tiny text models of many architectures, with random weights and a tokenizer of numbered words."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase
from typing import Any

from tiny_models import stir

# Positions by the configuration; what a model makes of them is its own affair.
POSITIONS = 40
VOCABULARY = 120

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
_BART = {
    "d_model": 32,
    **{f"{part}_layers": 2 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")},
}
_XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 4}

# Settings of each architecture beside the sizes that most share.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "albert": {**_SIZES, "embedding_size": 16},
    "bart": _BART,
    "bert": _SIZES,
    "big_bird": {**_SIZES, "block_size": 4, "num_random_blocks": 1},
    "camembert": _SIZES,
    "canine": {**_SIZES, "local_transformer_stride": 8},
    "convbert": {**_SIZES, "embedding_size": 32},
    "data2vec-text": _SIZES,
    "deberta": {**_SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {**_SIZES, "relative_attention": True, "position_buckets": 8},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "electra": {**_SIZES, "embedding_size": 16},
    "flaubert": _XLM,
    "fnet": _SIZES,
    "funnel": {
        "block_sizes": [2, 2],
        "d_model": 32,
        "n_head": 4,
        "d_head": 8,
        "d_inner": 64,
        "architectures": ["FunnelModel"],
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "ibert": _SIZES,
    "led": {**_BART, "attention_window": 8, "max_encoder_position_embeddings": POSITIONS},
    "longformer": {**_SIZES, "attention_window": 8},
    "longt5": {**_T5, "encoder_attention_type": "transient-global", "local_radius": 4},
    "modernbert": _SIZES,
    "mpnet": _SIZES,
    "nystromformer": {**_SIZES, "segment_means_seq_len": 8, "num_landmarks": 8},
    "reformer": {
        **_SIZES,
        "attn_layers": ["local", "lsh"],
        "attention_head_size": 8,
        "axial_pos_shape": [5, 8],
        "axial_pos_embds_dim": [16, 16],
        "feed_forward_size": 64,
        "num_buckets": 4,
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
    },
    "rembert": {**_SIZES, "input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": _SIZES,
    "roformer": _SIZES,
    "t5": _T5,
    "xlm": _XLM,
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    "xmod": {**_SIZES, "languages": ["a", "b"], "default_language": "b"},
}


def text_model(folder: Path, kind: str, **changes: Any) -> Path:
    """A folder with a model of this architecture and its tokenizer, which states no length."""
    import torch
    from transformers import AutoConfig, AutoModel

    settings = {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 3,
        **ARCHITECTURES[kind],
        **changes,
    }
    if kind in ("t5", "longt5", "funnel", "xlnet"):  # by relative positions
        del settings["max_position_embeddings"]
    if kind == "gpt2":
        settings["n_positions"] = settings.pop("max_position_embeddings")
    torch.manual_seed(21)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **settings)).eval()
    stir(model)
    model.save_pretrained(folder)
    word_tokenizer(folder, types=kind == "xlnet")
    return folder


def word_tokenizer(
    folder: Path, *, special: bool = True, types: bool = False, **settings: Any
) -> Any:
    """Saves a tokenizer of the words w0, w1, …; others are unknown.

    special: with a token before each text, one behind it, and one for padding and for unknown
        words; else each small letter is a token, and all else is left out.
    types: as XLNet has them, on the left of its padding.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["[UNK]", "[PAD]", "[CLS]", "[SEP]"]
    words = [*names, *(f"w{number}" for number in range(VOCABULARY - len(names)))]
    ids = {word: number for number, word in enumerate(words)}
    if special:
        made = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
        template = "$A:0 [SEP]:0 [CLS]:2" if types else "[CLS] $A [SEP]"
        made.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")]
        )
        settings |= {"unk_token": "[UNK]", "pad_token": "[PAD]"}
        settings |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        letters = {letter: number for number, letter in enumerate(ascii_lowercase)}
        made = Tokenizer(models.BPE(letters, []))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if types:
        settings |= {"padding_side": "left", "pad_token_type_id": 3}
        settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **settings)
    tokenizer.save_pretrained(folder)
    return tokenizer
