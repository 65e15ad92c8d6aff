"""A sentence-transformers folder as its author set it, read as plain data: no torch, no weights.

`modules.json` names the modules in the order they are applied, each with the folder of its own
settings; the formats are those of sentence-transformers 1.0 to 6.2. What Ember does not know is
refused by name, since without it the vectors would be others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ember.errors import InvalidInput
from ember.worker.json_files import read_settings
from ember.worker.models.sentence_modules import INSTEAD, Module, modules_of, unknown
from ember.worker.models.text_prompts import Prompts, Role
from ember.worker.recipe import (
    SENTENCE,
    TOKENS,
    Dense,
    LayerNorm,
    Normalize,
    Pooling,
    Step,
    TextRecipe,
    ends_in_unit_length,
    of_layer,
)
from ember.worker.spec import MODULES

__all__ = ["recipe_of"]

_POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
# Earlier versions have a flag for each mode; several are concatenated in this order.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Of torch.nn: without weights, without chance, and as many numbers out as in.
_ACTIVATIONS = (
    *("CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity"),
    *("LeakyReLU", "LogSigmoid", "Mish", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus"),
    *("Softshrink", "Softsign", "Tanh", "Tanhshrink"),
)
_TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_EARLIER_NAMES = {
    "model_args": "model_kwargs",
    "tokenizer_args": "processor_kwargs",
    "config_args": "config_kwargs",
}
# How files are found and loaded, which Ember decides itself; nothing of it changes the vectors.
# Settings of a tokenizer by which a folder would have files read that are not its own.
_ELSEWHERE = re.compile("_file$|^subfolder$|_dir$|^revision$|_path$")
_LOADING = (
    *("torch_dtype", "dtype", "attn_implementation", "device_map", "low_cpu_mem_usage"),
    *("use_safetensors", "use_cache", "use_fast", "add_pooling_layer", "trust_remote_code"),
    *("revision", "token", "cache_dir", "local_files_only"),
)
_SECTIONS = (
    "model_kwargs",
    "processor_kwargs",
    "config_kwargs",
    "processing_kwargs",
    "modality_config",
)
# How a text goes through a transformer from which its tokens come.
_FORWARD = [
    {"method": "forward", "method_output_name": name}
    for name in ("last_hidden_state", ["last_hidden_state"])
]


def recipe_of(
    folder: Path, layer: str, role: Role | None, prompt: str | None, dimension: int | None
) -> tuple[TextRecipe, str | None]:
    """What is done to a text, by the folder's modules (layer MODULES) or by the layer alone.

    role, prompt, dimension: see `settings.embedding.ModelConfig`.

    Also returns the name of a prompt that is meant for documents and is not used for them, if any.
    Raises InvalidInput and InvalidConfig as `Prompts` does, and InvalidInput for files that are
    damaged or not there and any module or setting that Ember does not know, by its name.
    """
    prompts = Prompts.read(folder)
    authored = layer == MODULES
    if authored:
        recipe = _read(folder, role, dimension)
    else:
        deeper = not (folder / "config.json").is_file()
        at = modules_of(folder, role)[0].folder if deeper else ""
        recipe = replace(of_layer(layer), transformer=at, dimension=dimension)
    text = prompts.choose(role, prompt, by_default=authored)
    return replace(recipe, prompt=text), prompts.passed_over(role, prompt)


def _read(folder: Path, role: Role | None, dimension: int | None) -> TextRecipe:
    """What the folder says is done to a text in this role, but for the prompt."""
    settings = read_settings(folder / "config_sentence_transformers.json")
    if (kind := settings.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        raise InvalidInput(
            f"{folder} is a {kind} of sentence-transformers, whose result is no embedding; "
            f"{INSTEAD}"
        )
    first, *others = modules_of(folder, role)
    modules: list[Step] = []
    made = {TOKENS}
    for module in others:
        for step in _steps(folder, module):
            if step.source not in made:
                raise InvalidInput(
                    f"{folder}: its {step.kind} reads {step.source}, which nothing has made"
                )
            made.add(step.target)
            modules.append(step)
    if SENTENCE not in made:
        raise InvalidInput(f"{folder}: its modules make no vector of a text; {INSTEAD}")
    own = settings.get("truncate_dim")
    if dimension is None and own is not None:
        own = _natural(folder, "truncate_dim", own)
    return replace(
        _transformer(folder, first, role),
        modules=tuple(modules),
        dimension=dimension or own,
        unit_after=dimension is not None and ends_in_unit_length(modules),
    )


def _transformer(folder: Path, module: Module, role: Role | None) -> TextRecipe:
    """The recipe so far: what the settings of the first module, a Transformer, say."""
    at = folder / module.folder
    found = next(filter(None, (read_settings(at / name) for name in _TRANSFORMER_FILES)), {})
    settings = {
        _EARLIER_NAMES.get(key, key): value for key, value in found.items() if value is not None
    }
    for name in _SECTIONS:
        if not isinstance(settings.get(name, {}), dict):
            raise InvalidInput(f"{at}: {name} of its Transformer holds no names with values")
    for name in _strange_settings(settings, role):
        raise unknown(folder, f"the setting {name} of its Transformer")
    tokenizer = settings.get("processor_kwargs", {})
    lengths = (
        settings.get("processing_kwargs", {}).get("text", {}).get("max_length"),
        settings.get(f"{role}_length"),
        tokenizer.get("model_max_length"),
        settings.get("max_seq_length"),
    )
    length = next((each for each in lengths if each is not None), None)
    return TextRecipe(
        "modules.json",
        max_tokens=None if length is None else _natural(at, "max_seq_length", length),
        lower_case=bool(settings.get("do_lower_case", False)),
        transformer=module.folder,
        tokenizer=tuple(
            (key, value)
            for key, value in sorted(tokenizer.items())
            if key not in _LOADING and key != "model_max_length"
        ),
    )


def _leads_away(key: str) -> bool:
    """Would this setting of a tokenizer have a file read that is not the folder's own?"""
    return key not in _LOADING and bool(_ELSEWHERE.search(key))


def _strange_settings(settings: Mapping[str, Any], role: Role | None) -> Iterator[str]:
    """Names of a Transformer's settings that change its vectors in ways Ember does not know."""
    for name, usual in (("transformer_task", "feature-extraction"), ("module_output_name", TOKENS)):
        if settings.get(name, usual) != usual:
            yield f"{name} {settings[name]}"
    for section in ("model_kwargs", "config_kwargs"):
        yield from (f"{section} {key}" for key in settings.get(section, {}) if key not in _LOADING)
    called = settings.get("processing_kwargs", {})
    if called and not (called.keys() == {"text"} and called["text"].keys() == {"max_length"}):
        yield f"processing_kwargs {called}"
    modality = settings.get("modality_config", {"text": _FORWARD[0]})
    if modality.get("text") not in _FORWARD:
        yield f"modality_config {modality.get('text')}"
    if "message" in modality:  # texts would go through a chat template
        yield "modality_config message"
    given = settings.get("processor_kwargs", {})
    yield from (f"processor_kwargs {key}" for key in given if _leads_away(key))
    if "tokenizer_name_or_path" in settings:
        yield "tokenizer_name_or_path"
    if "query_expansion" in settings and role == "query":
        yield "query_expansion"


def _steps(folder: Path, module: Module) -> Iterator[Step]:
    """What one module after the transformer does; nothing, where it acts in training only."""
    at = folder / module.folder
    settings = read_settings(at / "config.json")
    if module.kind == "Pooling":
        yield _pooling(at, settings)
    elif module.kind == "Dense":
        yield _dense(at, module.folder, settings)
    elif module.kind == "LayerNorm":
        yield LayerNorm(module.folder, _natural(at, "dimension", settings.get("dimension")))
    elif module.kind == "Normalize":
        yield Normalize(*_names(settings))
    elif module.kind != "Dropout":
        raise unknown(folder, f"the module {module.kind}")


def _pooling(at: Path, settings: Mapping[str, Any]) -> Pooling:
    if not settings:
        raise InvalidInput(f"{at} has no config.json that says how tokens are pooled")
    modes = settings.get("pooling_mode")
    if modes is None:
        on = {key for key, value in settings.items() if key.startswith("pooling_mode_") and value}
        if strange := on - _FLAGS.keys():
            raise unknown(at, f"the pooling {min(strange)}")
        modes = [mode for flag, mode in _FLAGS.items() if flag in on] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes:
        raise InvalidInput(
            f"{at}/config.json: its pooling_mode is neither a name nor a list of some"
        )
    for mode in modes:
        if mode not in _POOLING_MODES:
            raise unknown(at, f"the pooling {mode}")
    return Pooling(tuple(modes), bool(settings.get("include_prompt", True)))


def _dense(at: Path, folder: str, settings: Mapping[str, Any]) -> Dense:
    name = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = name.rpartition(".")[2]
    if not name.startswith("torch.nn.") or activation not in _ACTIVATIONS:
        raise unknown(at, f"the activation {name}")
    return Dense(
        folder,
        _natural(at, "in_features", settings.get("in_features")),
        _natural(at, "out_features", settings.get("out_features")),
        bool(settings.get("bias", True)),
        activation,
        bool(settings.get("use_residual", False)),
        *_names(settings),
    )


def _names(settings: Mapping[str, Any]) -> tuple[str, str]:
    """What a module reads and what it makes."""
    source = str(settings.get("module_input_name") or SENTENCE)
    return source, str(settings.get("module_output_name") or source)


def _natural(at: Path, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput(f"{at}: {name} is {value}, and must be a whole number from 1")
    return value
