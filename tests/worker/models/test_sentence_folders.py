"""Texts in sentence-transformers folders: each vector is the library's own, one text at a time."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from converted import converted
from ember.errors import InvalidConfig, InvalidInput
from ember.settings.embedding import ModelConfig
from ember.spark import models
from ember.worker import task
from sentence_folders import (
    BUILDERS,
    edit,
    ours,
    resolved,
    routed_folder,
    sentence_folder,
    theirs,
)
from tiny_models import MAX_TOKENS, needs_openvino, spec_of

TEXTS = [
    "the cat sat on a mat",
    "A Dog",
    "blue",
    "!?.,;",
    "the big dog runs in the small house of a cat and the dog sits",
    "the " * 60,
    "[SEP] x",
    "a",
]
POOLINGS = (
    *("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"),
    ("cls", "mean"),
    ("max", "lasttoken", "mean_sqrt_len_tokens"),
)
CHAINS = ("pooling", "normalize", "dense", "gelu", "residual")
PROMPTS = {"query": "find: the ", "document": "", "other": "of "}
# How the library is asked, and how Ember is.
ASKED = (
    ({}, "encode", {}),
    ({"role": "query"}, "encode_query", {}),
    ({"role": "document"}, "encode_document", {}),
    ({"prompt": "query"}, "encode", {"prompt_name": "query"}),
    ({"prompt": "see this: "}, "encode", {"prompt": "see this: "}),
    ({"prompt": ""}, "encode", {"prompt": ""}),
    ({"normalize": True}, "encode", {"normalize_embeddings": True}),
)


@pytest.fixture(scope="session")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: build(tmp_path_factory.mktemp(name)) for name, build in BUILDERS.items()}


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * max(1, np.abs(expected).max())


def differ(vectors: np.ndarray) -> bool:
    """Do the texts have vectors of their own, so that a mix-up would show?"""
    return bool(vectors.std(axis=0).max() > 0.01)


def cases():
    prompts = itertools.product((True, False), (None, "other"))
    turns = zip(*map(itertools.cycle, (BUILDERS, prompts, ASKED)), strict=False)
    grid = itertools.product(POOLINGS, CHAINS)
    return [
        (pooling, modules, architecture, include_prompt, default, asked)
        for (pooling, modules), (architecture, (include_prompt, default), asked) in zip(
            grid, turns, strict=False
        )
    ]


@pytest.mark.parametrize(
    ("pooling", "modules", "architecture", "include_prompt", "default", "asked"), cases()
)
def test_every_pooling_with_all_modules_after_it(
    transformers, tmp_path, pooling, modules, architecture, include_prompt, default, asked
):
    folder = sentence_folder(
        tmp_path / "model",
        transformers[architecture],
        pooling,
        modules,
        include_prompt=include_prompt,
        prompts=PROMPTS,
        default_prompt_name=default,
    )
    settings, how, given = asked
    expected = theirs(folder, TEXTS, how, **given)
    spec = resolved(folder, **settings)
    vectors = ours(spec, TEXTS)
    if spec.normalize:  # done where the output is made
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    close(vectors, expected)
    if not (architecture == "gpt2" and pooling == "cls"):  # which sees no token after the first
        assert differ(expected)


@pytest.mark.parametrize("modules", ["dense", "residual"])
def test_a_dense_module_on_tokens_and_weights_that_are_pickled(transformers, tmp_path, modules):
    base = transformers["bert"]
    folder = sentence_folder(
        tmp_path / "model", base, ("mean", "max"), modules, tokens_first=True, safe=False
    )
    assert list(folder.glob("*/pytorch_model.bin"))
    close(ours(resolved(folder), TEXTS), theirs(folder, TEXTS))


@needs_openvino
@pytest.mark.parametrize(
    ("pooling", "modules", "asked"),
    [
        ("mean", "normalize", ASKED[0]),
        (("cls", "max", "lasttoken"), "dense", ASKED[0]),
        (("weightedmean", "mean_sqrt_len_tokens"), "residual", ASKED[4]),
    ],
)
def test_openvino_goes_through_all_modules_and_prompts(
    transformers, tmp_path, pooling, modules, asked
):
    folder = sentence_folder(
        tmp_path / "model",
        transformers["bert"],
        pooling,
        modules,
        include_prompt=False,
        prompts=PROMPTS,
    )
    settings, how, given = asked
    spec = converted(resolved(folder, **settings), tmp_path / "converted")
    close(ours(spec, TEXTS), theirs(folder, TEXTS, how, **given))


@pytest.mark.parametrize("pooling", POOLINGS[:6])
def test_low_precision_is_as_close_to_the_exact_vectors_as_the_library_s(
    transformers, tmp_path, pooling
):
    # The library rounds to bfloat16 after every module and Ember after the transformer only, so
    # they differ; neither may be farther from float32 than bfloat16 itself takes it.
    folder = sentence_folder(tmp_path / "model", transformers["bert"], pooling, "dense")
    exact = theirs(folder, TEXTS)
    low = ours(resolved(folder, precision="bfloat16"), TEXTS)
    close(low, exact, 0.1)
    assert (low * exact).sum(1).min() > 0.995
    farthest = np.abs(theirs(folder, TEXTS, precision="bfloat16") - exact).max()
    assert np.abs(low - exact).max() <= 1.5 * farthest + 0.01


@pytest.mark.parametrize("architecture", BUILDERS)
def test_the_length_and_the_lower_case_of_the_folder(transformers, tmp_path, architecture):
    folder = sentence_folder(tmp_path / "model", transformers[architecture])
    edit(folder / "sentence_bert_config.json", max_seq_length=9, do_lower_case=True)
    spec = resolved(folder)
    assert (spec.text.max_tokens, spec.text.lower_case) == (9, True)
    close(ours(spec, TEXTS), theirs(folder, TEXTS))
    encoder = task._build(spec, None, 1, False)
    prepared = encoder.prepare([text.encode() for text in TEXTS])
    long = [text for text in TEXTS if len(encoder.tokenizer(text)["input_ids"]) > 9]
    assert sum(was_cut for _, _, was_cut in prepared) == len(long) > 0


def test_a_folder_of_the_first_versions(transformers, tmp_path):
    new = sentence_folder(tmp_path / "new", transformers["bert"], ("cls", "mean"), "normalize")
    old = tmp_path / "old"
    shutil.copytree(transformers["bert"], old / "0_Transformer")
    edit(old / "0_Transformer" / "sentence_distilbert_config.json", max_seq_length=MAX_TOKENS)
    for name in ("1_Pooling", "2_Normalize"):
        (old / name).mkdir()
    flags = {f"pooling_mode_{mode}": False for mode in ("max_tokens", "mean_sqrt_len_tokens")}
    flags |= {f"pooling_mode_{mode}": True for mode in ("mean_tokens", "cls_token")}
    edit(old / "1_Pooling" / "config.json", word_embedding_dimension=32, **flags)
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{path[2:]}"}
        for n, path in enumerate(["0_Transformer", "1_Pooling", "2_Normalize"])
    ]
    (old / "modules.json").write_text(json.dumps(modules))
    expected = theirs(new, TEXTS)
    close(ours(resolved(old), TEXTS), expected)
    close(expected, theirs(old, TEXTS))
    # The transformer alone is found as well.
    close(ours(resolved(old, layer="cls"), TEXTS), ours(resolved(new, layer="cls"), TEXTS))


@pytest.mark.parametrize("modules", ["pooling", "normalize", "gelu"])
def test_the_leading_numbers_of_a_vector_have_unit_length_where_the_model_s_have(
    transformers, tmp_path, modules
):
    folder = sentence_folder(tmp_path / "model", transformers["bert"], "mean", modules)
    spec = resolved(folder, dimension=5)
    unit = modules == "normalize"
    assert spec.text.normalizes is unit
    expected = theirs(folder, TEXTS, truncate_dim=5, normalize_embeddings=unit)
    close(ours(spec, TEXTS), expected)
    with pytest.raises(
        InvalidInput, match=r"model\.dimension is 33, and the vectors .* have \d+ num"
    ):
        ours(resolved(folder, dimension=33), TEXTS)


def test_the_folder_s_own_dimension_is_the_library_s(transformers, tmp_path):
    folder = sentence_folder(
        tmp_path / "model", transformers["bert"], "mean", "normalize", truncate_dim=7
    )
    spec = resolved(folder)
    assert spec.text.normalizes is False
    close(ours(spec, TEXTS), theirs(folder, TEXTS))
    assert ours(resolved(folder, dimension=20), TEXTS).shape == (len(TEXTS), 20)


def test_each_role_goes_its_own_way(transformers, tmp_path):
    folder = routed_folder(tmp_path / "model", transformers["bert"], transformers["roberta"])
    for role, how in (("query", "encode_query"), ("document", "encode_document"), (None, "encode")):
        close(ours(resolved(folder, role=role), TEXTS), theirs(folder, TEXTS, how))
    edit(folder / "router_config.json", parameters={"allow_empty_key": False})
    with pytest.raises(InvalidConfig, match=r"set model\.role \(its routes are query, document\)"):
        resolved(folder)


def test_a_layer_that_is_asked_for_is_of_the_transformer_alone(transformers, tmp_path):
    base = transformers["bert"]
    folder = sentence_folder(
        tmp_path / "model", base, "max", "dense", prompts=PROMPTS, default_prompt_name="other"
    )
    edit(folder / "sentence_bert_config.json", max_seq_length=9)
    for layer in ("mean", "cls", "pooler"):
        spec = resolved(folder, layer=layer)
        assert spec.text.source == "model.layer"
        close(ours(spec, TEXTS), ours(spec_of(base, layer=layer), TEXTS))
    plain = ours(resolved(base), TEXTS)
    assert resolved(base, layer=None).fingerprint == resolved(base, layer="auto").fingerprint
    close(plain, ours(spec_of(base, layer="mean"), TEXTS))
    named = ours(resolved(folder, layer="mean", prompt="query"), TEXTS)
    close(named, ours(resolved(base, prompt=PROMPTS["query"]), TEXTS))
    assert not np.allclose(named, plain)


@pytest.mark.parametrize(
    ("settings", "prompt"),
    [
        ({}, "of "),
        ({"prompt": "query"}, "find: the "),
        ({"prompt": "document"}, ""),
        ({"prompt": ""}, ""),
        ({"prompt": "query "}, "query "),
        ({"role": "query"}, "find: the "),
        ({"role": "document"}, ""),
        ({"role": "query", "prompt": "other"}, "of "),
        ({"layer": "mean"}, ""),
    ],
)
def test_the_prompt_is_the_one_asked_for(transformers, tmp_path, settings, prompt):
    folder = sentence_folder(
        tmp_path / "m", transformers["bert"], prompts=PROMPTS, default_prompt_name="other"
    )
    assert resolved(folder, **settings).text.prompt == prompt


def test_a_single_word_that_is_no_prompt_s_name_is_refused(transformers, tmp_path):
    folder = sentence_folder(tmp_path / "model", transformers["bert"], prompts=PROMPTS)
    expected = r"no prompt of the name 'qeury' \(its prompts: document, other, query\)"
    with pytest.raises(InvalidConfig, match=expected):
        resolved(folder, prompt="qeury")


def test_a_prompt_that_leaves_no_room_for_a_text_is_refused(transformers):
    with pytest.raises(InvalidInput, match=r"model\.prompt has 82 tokens, and .* takes 24 with"):
        ours(resolved(transformers["bert"], prompt="the cat " * 40), TEXTS)


def test_all_that_a_vector_depends_on_is_in_the_fingerprint(transformers, tmp_path):
    folder = sentence_folder(
        tmp_path / "m", transformers["bert"], "mean", "normalize", prompts=PROMPTS
    )
    settings = (
        {},
        {"prompt": "see: "},
        {"role": "query"},
        {"dimension": 8},
        {"layer": "mean"},
        {"layer": "cls"},
    )
    prints = {resolved(folder, **each).fingerprint for each in settings}
    edit(folder / "sentence_bert_config.json", max_seq_length=9)
    prints.add(resolved(folder).fingerprint)
    edit(folder / "1_Pooling" / "config.json", pooling_mode="max")
    prints.add(resolved(folder).fingerprint)
    assert len(prints) == len(settings) + 2


POOLING, DENSE, BERT = "1_Pooling/config.json", "2_Dense/config.json", "sentence_bert_config.json"


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        (POOLING, {"pooling_mode": "attention"}, "the pooling attention"),
        (POOLING, {"pooling_mode": None, "pooling_mode_x": True}, "the pooling pooling_mode_x"),
        (DENSE, {"activation_function": "mine.Act"}, "the activation mine.Act"),
        (DENSE, {"activation_function": "torch.nn.Linear"}, "the activation torch.nn.Linear"),
        (DENSE, {"in_features": 0}, "in_features is 0"),
        (DENSE, {"module_input_name": "x"}, "its Dense reads x, which nothing has made"),
        (BERT, {"transformer_task": "fill-mask"}, "setting transformer_task fill-mask"),
        (BERT, {"module_output_name": "y"}, "setting module_output_name y"),
        (BERT, {"modality_config": {"text": {"method": "f"}}}, "setting modality_config"),
        (BERT, {"modality_config": {"message": {}}}, "setting modality_config"),
        (BERT, {"config_args": {"is_causal": False}}, "setting config_kwargs is_causal"),
        (
            BERT,
            {"processing_kwargs": {"text": {"stride": 2}}},
            "processing_kwargs {'text': {'stride'",
        ),
        (BERT, {"model_args": 3}, "model_kwargs of its Transformer holds no names"),
        (BERT, {"max_seq_length": 0.5}, "max_seq_length is 0.5"),
        ("config_sentence_transformers.json", {"model_type": "CrossEncoder"}, "is a CrossEncoder"),
        (
            "sentence_bert_config.json",
            {"tokenizer_args": {"tokenizer_file": "/elsewhere/tokenizer.json"}},
            "processor_kwargs tokenizer_file",
        ),
        ("config_sentence_transformers.json", {"prompts": {"a": 1}}, "its prompt a is no text"),
        ("config_sentence_transformers.json", {"default_prompt_name": "b"}, "prompt 'b' is not"),
    ],
)
def test_what_ember_does_not_know_is_refused_by_name(transformers, tmp_path, file, changes, named):
    folder = sentence_folder(tmp_path / "model", transformers["bert"], "mean", "dense")
    edit(folder / file, **changes)
    with pytest.raises(InvalidInput, match=re.escape(named)):
        resolved(folder)


@pytest.mark.parametrize(
    ("position", "kind", "named"),
    [
        (1, "sentence_transformers.models.WordWeights", "the module WordWeights"),
        (2, "mine.Rotation", "the module mine.Rotation, code of its own"),
        (0, "sentence_transformers.models.StaticEmbedding", "first module is StaticEmbedding"),
        (2, "sentence_transformers.sparse_encoder.modules.SpladePooling", "module SpladePooling"),
    ],
)
def test_a_module_that_ember_does_not_know_is_refused_by_name(
    transformers, tmp_path, position, kind, named
):
    folder = sentence_folder(tmp_path / "model", transformers["bert"], "mean", "dense")
    modules = json.loads((folder / "modules.json").read_text())
    modules[position]["type"] = kind
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InvalidInput, match=re.escape(named)):
        resolved(folder)
    assert resolved(folder, layer="mean").text.source == "model.layer"


def test_a_module_outside_of_the_folder_is_refused(transformers, tmp_path):
    folder = sentence_folder(tmp_path / "model", transformers["bert"])
    (folder / "modules.json").write_text(
        '[{"type": "sentence_transformers.models.Transformer", "path": "../x"}]'
    )
    with pytest.raises(InvalidInput, match="outside of the folder"):
        resolved(folder)


@pytest.mark.parametrize("damage", ["gone", "cut", "another"])
def test_weights_of_a_module_that_do_not_fit_are_refused(transformers, tmp_path, damage):
    folder = sentence_folder(tmp_path / "model", transformers["bert"], "mean", "dense")
    spec, weights = resolved(folder), folder / "2_Dense" / "model.safetensors"
    if damage == "gone":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-8])
    else:
        edit(folder / DENSE, bias=False)
        spec = resolved(folder)
    with pytest.raises(InvalidInput, match="the weights of the module 2_Dense cannot be used"):
        ours(spec, TEXTS)


@pytest.mark.parametrize("key", ["role", "prompt", "dimension"])
def test_settings_of_texts_have_no_place_elsewhere(resnet_folder, key):
    given = {"role": "query", "prompt": "a: ", "dimension": 4}[key]
    config = ModelConfig(name=f"hf:{resnet_folder}", **{key: given})
    with pytest.raises(InvalidConfig, match=rf"model\.{key} is for embeddings of texts"):
        models.resolve(config, "image", 1000)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("1_Pooling/config.json", "pooling_mode", 5),
        ("1_Pooling/config.json", "pooling_mode", []),
        ("config_sentence_transformers.json", "default_prompt_name", ["query"]),
        ("config_sentence_transformers.json", "prompts", {"query": "\ud800"}),
        ("sentence_bert_config.json", "max_seq_length", 0),
    ],
)
def test_settings_of_a_strange_kind_are_refused_with_the_file_or_the_key(
    transformers, tmp_path, file, key, value
):
    folder = sentence_folder(tmp_path / "model", transformers["bert"], "mean")
    edit(folder / file, **{key: value})
    with pytest.raises(InvalidInput, match=f"{file}|{key}"):
        resolved(folder)


def test_a_length_without_room_for_a_token_is_refused(transformers, tmp_path):
    folder = sentence_folder(tmp_path / "model", transformers["bert"], "mean")
    for name in folder.rglob("sentence_bert_config.json"):
        edit(name, max_seq_length=1)
    with pytest.raises(InvalidInput, match="takes 1 tokens, of which 2 are special"):
        ours(resolved(folder), TEXTS)
