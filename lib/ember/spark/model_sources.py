"""The files of a model on this machine: the ones named, or fetched, made or converted once."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ember.errors import InvalidConfig, InvalidInput
from ember.spark.model_cache import cache_folder, check_cached
from ember.spark.samples import Sample
from ember.worker.models.model_folder import check_folder
from ember.worker.models.prepare import UNSUITED
from ember.worker.models.sentence_modules import has_modules
from ember.worker.spec import KERAS_INPUT_SIZE, ModelSpec

__all__ = [
    "converted_keras",
    "converted_transformers",
    "keras_file",
    "keras_weights",
    "quantized",
    "transformers_folder",
]

_log = logging.getLogger(__name__)
# Of how models of transformers are converted; what another one made is made anew.
_CONVERSION = 2
# Rows of the corpus that a converted model is held against torch on, and those for int8.
_CHECKED_ROWS, _CALIBRATION_ROWS = 16, 256
# Modules of sentence-transformers, small as they are, often come as pickled tensors only.
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "[1-9]_*/pytorch_model.bin"]


def keras_weights(name: str, weights: str) -> Path:
    """The file of weights that a `keras:` model is to have, made on the first run that wants it.

    Raises:
        InvalidInput: a name that is not known, or weights that are not to be had.
    """
    if name not in KERAS_INPUT_SIZE:
        near = get_close_matches(name, KERAS_INPUT_SIZE, 3, 0.5)
        raise InvalidInput(
            f"keras:{name} is not a model of keras.applications; "
            + (f"did you mean {', '.join(near)}?" if near else f"known: {_names()}")
        )
    if weights not in ("imagenet", "random"):
        path = keras_file(weights)
        if not path.is_file():
            raise InvalidInput(
                f"model.weights: there is no file {path}; give imagenet, random or a file"
            )
        return path
    # Random weights differ between versions of Keras; the published ones do not.
    tag = f"random-{_keras_version(name)}" if weights == "random" else weights
    path = cache_folder() / f"keras-{name}-{tag}.weights.h5"
    if not path.exists():
        _keras_version(name)
        _log.info("making %s weights of keras:%s at %s", weights, name, path)
        _prepare(f"get the {weights} weights of keras:{name}", "weights", name, weights, path)
    return path


def keras_file(weights: str) -> Path:
    """The file that `model.weights` names: itself, or that of a folder which finetune wrote."""
    path = Path(weights.removeprefix("file://")).absolute()
    return path / "model.keras" if path.is_dir() else path


def converted_keras(spec: ModelSpec) -> Path:
    """The model of a Keras spec in OpenVINO's format, converted on the first run that wants it."""
    _keras_version(spec.architecture)
    folder = _folder(replace(spec, precision="float32"), "keras")
    arguments = ("keras", spec.architecture, spec.path, spec.output)
    return _kept(folder, f"convert {spec.name} to openvino", *arguments)


def converted_transformers(spec: ModelSpec, sample: Sample) -> Path | str:
    """The model of a torch spec in OpenVINO's format, converted on the first run that wants it.

    sample: some of its rows have to have the vectors of torch.
    Returns the reason where the model is left to torch.
    """
    folder = _kept(
        _folder(spec, "torch", "transformers", "tokenizers"),
        f"convert {spec.name} to openvino",
        "transformers",
        request=lambda: (spec, sample.first(_CHECKED_ROWS), sample.paths),
    )
    reason = folder / UNSUITED
    return reason.read_text("utf-8") if reason.exists() else folder


def quantized(spec: ModelSpec, sample: Sample) -> tuple[Path, str]:
    """The model of a spec for OpenVINO at 8 bits, and a hash of the rows it was calibrated on.

    Made on the first run over a corpus that has these rows.
    """
    rows = sample.drawn(_CALIBRATION_ROWS)
    digest = hashlib.sha256(pickle.dumps([bytes(row or b"") for row in rows])).hexdigest()
    folder = _kept(
        _folder(replace(spec, calibration=digest), "nncf"),
        f"quantize {spec.name} on rows of this corpus",
        "int8",
        request=lambda: (spec, rows, sample.paths),
    )
    return folder, digest


def _folder(spec: ModelSpec, *packages: str) -> Path:
    """Where a converted model is kept, by all that decides it."""
    plain = replace(spec, max_pixels=0, max_bytes=0, normalize=False)
    versions = [version(each) for each in ("openvino", *packages)]
    decisive = json.dumps([_CONVERSION, plain.fingerprint, *versions])
    tag = hashlib.sha256(decisive.encode()).hexdigest()[:16]
    short = re.sub(r"[^\w.-]", "", Path(spec.architecture).name)[:60]
    return cache_folder() / f"openvino-{short}-{tag}"


def _kept(
    folder: Path, purpose: str, *arguments: str, request: Callable[[], Any] | None = None
) -> Path:
    """A folder of the cache, made where it is not there yet; see `_prepare`.

    request: makes what ember.worker.models.prepare is to be given besides.
    """
    if not folder.exists():
        _log.info("%s at %s, once", purpose, folder)
        given = b"" if request is None else pickle.dumps(request())
        _prepare(purpose, *arguments, folder, request=given)
    check_cached(folder)
    return folder


def _keras_version(name: str) -> str:
    """The version of what makes a model's weights and converts it.

    Raises:
        InvalidInput: it is not installed.
    """
    if not (find_spec("keras") and find_spec("tensorflow")):
        raise InvalidInput(
            f"keras:{name} needs Keras and TensorFlow where the driver runs, which are not "
            "installed; pip install ember-spark[tensorflow], or use an hf: model"
        )
    return version("keras")


def _names() -> str:
    return ", ".join(sorted(KERAS_INPUT_SIZE))


def _prepare(purpose: str, *arguments: str | Path, request: bytes = b"") -> None:
    """Run ember.worker.models.prepare. Raises InvalidInput with the last line that it said."""
    Path(arguments[-1]).parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ember.worker.models.prepare", *map(str, arguments)]
    done = subprocess.run(command, input=request, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        _log.debug("%s", said)
        reason = (said.splitlines() or ["no message"])[-1][:300]
        hint = "" if request else ". Without a network give model.weights a file that keras saved"
        raise InvalidInput(f"cannot {purpose}: {reason}{hint}")


def transformers_folder(name: str, revision: str | None) -> Path:
    """The transformers folder on disk: the one named, or a snapshot of the hub's repository.

    Raises:
        InvalidInput: neither is to be had.
        InvalidConfig: a revision is given for a folder.
    """
    path = Path(name.removeprefix("file://")).expanduser()
    if path.is_dir():
        if revision:
            raise InvalidConfig(f"model.revision is for names of the hub, and {path} is a folder")
        if not (path / "config.json").is_file() and not has_modules(path):
            raise InvalidInput(f"the folder {path} has no config.json; give a transformers folder")
        check_folder(path.absolute())
        return path.absolute()
    if name.startswith((".", "/", "~", "file:")) or name.count("/") > 1:
        raise InvalidInput(f"there is no model folder {path.absolute()}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES)
        if not any(Path(snapshot).glob("*.safetensors")):
            patterns = [*_HUB_FILES, "pytorch_model*.bin"]
            snapshot = snapshot_download(name, revision=revision, allow_patterns=patterns)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidInput(
            f"hf:{name} is neither a folder here nor to be had from the hub ({reason}); without a "
            "network give hf:<folder>"
        ) from None
    check_folder(Path(snapshot))
    return Path(snapshot)
