"""From a model's name to files that every worker can load: found, fetched once, sent around."""

from __future__ import annotations

import atexit
import json
import logging
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from ember.errors import InvalidConfig, InvalidInput
from ember.settings.embedding import ModelConfig
from ember.spark import classic, runtimes
from ember.spark.model_cache import cache_folder, check_cached
from ember.spark.model_sources import (
    converted_keras,
    converted_transformers,
    keras_weights,
    quantized,
    transformers_folder,
)
from ember.spark.samples import Sample
from ember.spark.session import is_local
from ember.worker.json_files import class_names, read_settings
from ember.worker.models.model_folder import loading
from ember.worker.models.prepare import DRIFT
from ember.worker.models.sentence_folder import recipe_of
from ember.worker.models.sentence_modules import has_modules
from ember.worker.recipe import TextRecipe
from ember.worker.rows import MAX_BYTES
from ember.worker.spec import (
    IMAGE_LAYERS,
    KERAS_INPUT_SIZE,
    MODULES,
    TEXT_LAYERS,
    Family,
    Generation,
    Modality,
    ModelSpec,
    Task,
    hash_files,
    weight_files,
)

__all__ = ["ModelFiles", "distribute", "drift", "pack", "resolve"]

_log = logging.getLogger(__name__)
_FAMILIES: tuple[Family, ...] = ("keras", "hf")


def resolve(
    config: ModelConfig,
    modality: Modality,
    max_pixels: int,
    *,
    max_bytes: int = MAX_BYTES,
    gpu: bool = False,
    task: Task = "embed",
    generation: Generation | None = None,
    alone: bool = False,
    sample: Sample | None = None,
) -> ModelSpec:
    """The model that `config` names, with its files on this machine, fetched if need be.

    gpu: tasks will be given GPUs, which decides what `runtime: auto` is.
    task: what the model is to do.
    generation: how it writes texts, with the task "generate".
    alone: a transformer without the modules that its folder may have after it.
    sample: some rows, on which a transformers model that is converted has to give the vectors of
        torch; None: it is not converted.
    Raises InvalidConfig when the settings do not go together and InvalidInput when the model or
    its weights are not to be had.
    """
    family, name = _family(config.name, task)
    if family == "keras":
        layer = _layer(config, family, modality, task)
        path = keras_weights(name, config.weights)
    else:
        path = transformers_folder(name, config.revision)
        layer = None
        if task != "generate":
            authored = task == "embed" and not alone and has_modules(path)
            kind = {"dual": _is_dual(path), "authored": authored}
            layer = _layer(config, family, modality, task, **kind)
    runtime, reason = runtimes.choose(
        config, family, path, task=task, gpu=gpu, converts=sample is not None
    )
    weights = hash_files(path)
    if path.parent == cache_folder():
        check_cached(path, weights)
    spec = ModelSpec(
        name=config.name,
        family=family,
        modality=modality,
        path=str(path),
        layer=layer,
        runtime="tensorflow" if family == "keras" else "torch",
        precision=config.precision,
        batch_size=None if config.batch_size == "auto" else config.batch_size,
        normalize=config.normalize,
        max_pixels=max_pixels,
        max_bytes=max_bytes,
        weights_sha256=weights,
        preprocessing=_preprocessing(family, name, modality, path),
        generation=generation,
        text=_recipe(config, path, modality, layer),
        task=task,
    )
    if runtime == "openvino":
        spec, reason = _converted(spec, reason, sample, insisted=config.runtime == runtime)
    _log.info("runtime %s: %s", spec.runtime, reason)
    return replace(spec, runtime_reason=reason)


def _family(model: str, task: Task) -> tuple[Family, str]:
    """The family of a model that can do the task, and its name there. Raises InvalidConfig."""
    family, _, name = model.partition(":")
    if family not in _FAMILIES or not name:
        raise InvalidConfig(
            f"model.name is {model!r}; write keras:<name> for a model of keras.applications or "
            "hf:<hub id or folder> for a transformers model"
        )
    if task == "generate" and family != "hf":
        raise InvalidConfig(f"{model} writes no texts; give an hf: model that does")
    return family, name


def _converted(
    spec: ModelSpec, reason: str, sample: Sample | None, *, insisted: bool
) -> tuple[ModelSpec, str]:
    """The model as OpenVINO runs it, or as it is where it is left to torch, and the reason.

    insisted: raise InvalidInput with the reason where it is left to torch.
    """
    rows = sample or Sample()
    exact = replace(spec, precision="float32") if spec.precision == "int8" else spec
    if spec.family == "keras":
        found: Path | str = converted_keras(spec)
    else:
        found = converted_transformers(exact, rows)
    if isinstance(found, str):
        if insisted or spec.precision == "int8":
            raise InvalidInput(
                f"model.runtime openvino does not run {spec.name}: {found}; use torch, or auto"
                + ", at another precision" * (spec.precision == "int8")
            )
        return spec, f"OpenVINO does not run it: {found}"
    made = replace(exact, runtime="openvino", path=str(found))
    if spec.precision != "int8":
        return made, reason
    if rows.rows is None:
        raise InvalidConfig(
            "model.precision int8 is calibrated on a corpus, and there is none at hand here; use "
            "the embed or classify job, or ember.embed"
        )
    path, digest = quantized(made, rows)
    return replace(made, precision="int8", path=str(path), calibration=digest), reason


def drift(spec: ModelSpec) -> dict[str, Any]:
    """How far vectors at 8 bits are from those at float32; see `openvino_int8.quantize`."""
    return read_settings(Path(spec.path, DRIFT), needed=True)


def _recipe(
    config: ModelConfig, path: Path, modality: Modality, layer: str | None
) -> TextRecipe | None:
    """What is done to a text beside the transformer, for embeddings; None for anything else.

    Raises InvalidConfig for settings of texts where no text is embedded.
    """
    if modality == "text" and layer is not None:
        with loading(config.name, str(path)):
            recipe, passed_over = recipe_of(
                path, layer, config.role, config.prompt, config.dimension
            )
        _log.info("texts: prompt %r, modules %s", recipe.prompt, recipe.names)
        if passed_over:
            _log.warning(
                "role document has no prompt in this model, which has one named %s; to put that "
                "before each text, set model.prompt to %s",
                *(passed_over, passed_over),
            )
        return recipe
    if given := [key for key in config.about_embeddings if key not in ("layer", "normalize")]:
        raise InvalidConfig(f"model.{given[0]} is for embeddings of texts; leave it out")
    return None


def _is_dual(path: Path) -> bool:
    """Does the folder hold a dual encoder: CLIP, SigLIP and their kin, two towers and no head?

    Models that talk about pictures have both configurations too, and are of a class For….
    """
    file = path / "config.json"
    settings = read_settings(file)  # a transformer of sentence-transformers may lie deeper
    if not {"text_config", "vision_config"} <= settings.keys():
        return bool(settings.get("model_type") == "vision-text-dual-encoder")
    return not any("For" in name for name in class_names(settings, file))


def _layer(
    config: ModelConfig,
    family: Family,
    modality: Modality,
    task: Task,
    *,
    dual: bool = False,
    authored: bool = False,
) -> str | None:
    layer = config.chosen_layer or ("avg_pool" if modality == "image" else "mean")
    known: tuple[str, ...] = IMAGE_LAYERS if modality == "image" else TEXT_LAYERS
    if family == "keras":
        if modality == "text":
            raise InvalidConfig(
                f"{config.name} embeds images, and input.modality is text; give an hf: encoder"
            )
        known = ("avg_pool", "fc1", "fc2") if "VGG" in config.name else ("avg_pool",)
    elif modality == "image":
        known = ("avg_pool", "cls", "pooler")
    if task == "classify":
        return None
    if authored and config.chosen_layer is None:
        if modality == "text":
            return MODULES
        raise InvalidConfig(
            f"{config.name} is a sentence-transformers folder, whose modules Ember applies to "
            "texts only; set model.layer for its images"
        )
    if dual:  # its only features that are in one space for images and texts
        known, layer = ("pooler",), config.chosen_layer or "pooler"
    if layer not in known:
        raise InvalidConfig(
            f"model.layer {layer} is not one of {config.name} for {modality}s: {', '.join(known)}"
        )
    return layer


def _preprocessing(family: Family, name: str, modality: Modality, path: Path) -> str:
    """What is done to a row before the model sees it, for the fingerprint and the manifest."""
    if family == "keras":
        size = KERAS_INPUT_SIZE[name]
        prepared = f"rgb, nearest to {size}x{size}, keras.applications preprocess_input"
        return prepared + " unless the file has its own" * (path.suffix == ".keras")
    if modality == "text":
        return "AutoTokenizer, truncated at the model's length"
    files = [path / name for name in ("preprocessor_config.json", "processor_config.json")]
    file = next((each for each in files if each.is_file()), None)
    if file is None:
        raise InvalidInput(f"{path} has no preprocessor_config.json, so it takes no images")
    settings = read_settings(file)
    return f"rgb, AutoImageProcessor {json.dumps(settings, sort_keys=True)}"


@dataclass(frozen=True)
class ModelFiles:
    """A model as a task finds it: files of this machine, or an archive that Spark brought."""

    spec: ModelSpec
    archive: str | None

    def on_worker(self) -> ModelSpec:
        """The spec with the path of its files on the machine that this runs on."""
        if self.archive is None:
            return self.spec
        root = Path(classic.received(self.archive))
        return self.spec.at(str(root / Path(self.spec.path).name))


def distribute(spark: SparkSession, spec: ModelSpec) -> ModelFiles:
    """Have the model's files reach every executor, once; in local mode they are there already."""
    if is_local(spark):
        return ModelFiles(spec, None)
    name = f"ember-model-{spec.fingerprint[:16]}"
    if not classic.has_archive(spark, name):
        folder = tempfile.mkdtemp(prefix="ember-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        archive = f"{folder}/{name}.tar"
        pack(Path(spec.path), archive)
        classic.send_archive(spark, archive, name)
    return ModelFiles(spec, name)


def pack(path: Path, archive: str) -> None:
    """Write the archive of a model that executors get.

    It holds what the fingerprint covers and no more: nothing hidden, no picture, no table.
    """
    with tarfile.open(archive, "w", dereference=True) as tar:
        for file in weight_files(path):
            tar.add(file, str(path.name / file.relative_to(path)))
