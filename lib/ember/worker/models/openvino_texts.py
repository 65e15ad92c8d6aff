"""Text encoders in OpenVINO: texts to tokens, tokens to vectors or probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ember.worker.device import Device
from ember.worker.models import openvino_runtime
from ember.worker.models.chunks import Chunking, Splitter
from ember.worker.models.fast_tokenizer import FastTokenizer
from ember.worker.models.model_folder import loading
from ember.worker.models.openvino_runtime import OpenvinoModel, read_settings
from ember.worker.models.text_fit import Fit
from ember.worker.models.text_rows import TextRows
from ember.worker.models.text_tokens import TextTokens, Tokens, padded
from ember.worker.rows import RowError
from ember.worker.spec import ModelSpec

__all__ = ["TOKENIZER", "OpenvinoTextEncoder"]

Matrix = npt.NDArray[np.float32]
TOKENIZER = "tokenizer.json"
# Tokens of a request: their activations stay in the cache.
_TOKENS, _ROWS = 1024, 64


class OpenvinoTextEncoder:
    """Text rows to vectors with a converted model. See `encoder.Encoder`.

    A row's cost is its number of tokens. How the model takes texts was found when it was converted.
    """

    chunk_rows = 256
    device = "cpu"

    def __init__(self, spec: ModelSpec, device: Device, threads: int) -> None:
        self.spec = spec
        with loading(spec.name, spec.path):
            self._model = OpenvinoModel(spec, device, threads)
            settings = read_settings(spec.path)
            self.tokenizer = FastTokenizer(f"{spec.path}/{TOKENIZER}", settings["side"])
        self.notes = tuple(settings["notes"])
        self._keys = tuple(settings["keys"])
        self._padding = settings["padding"]
        self._room = settings["room"]
        fit = Fit(**settings["fit"])
        self.max_tokens = fit.longest
        tokens = TextTokens(self.tokenizer, self.max_tokens, self._keys)
        tokens.settle(self.max_tokens)
        prompt = spec.text.prompt if spec.text else ""
        self._rows = TextRows(tokens, prompt, spec.max_bytes, fit, settings["vocabulary"])
        most = {"rows": _ROWS * threads, "tokens": _TOKENS * threads, "window": 2048}
        sizes = self._rows.batches(spec.batch_size, **most)
        self.batch_size, self.batch_cost, self.window_rows = sizes
        self.most_padding: int | None = self._rows.most_padding(self.batch_cost)

    def prepare(
        self, raws: Sequence[bytes | RowError | None]
    ) -> list[tuple[Tokens, int, bool] | RowError]:
        """See `TextRows.prepare`."""
        return self._rows.prepare(raws)

    def run(self, items: Sequence[Tokens]) -> Matrix:
        """Vectors (n, d) float32 of tokens n × (keys, t), in groups that the model allows."""
        return self._rows.run(items, self._vectors)

    def _vectors(self, items: Sequence[Tokens], width: int) -> Matrix:
        return self._model(self.arrays(items, width))

    def arrays(self, items: Sequence[Tokens], width: int = 0) -> list[Tokens]:
        """The model's inputs for a batch, padded to a width at least."""
        values, mask = padded(items, self._keys, self._padding, width)
        values["attention_mask"] = mask
        return [values[name] for name in self._model.inputs]

    def splitter(self, chunking: Chunking) -> Splitter:
        """What cuts texts into chunks that fit this model. Raises InvalidInput; see `Splitter`."""
        return Splitter(self.tokenizer, self._room, chunking, max_bytes=self.spec.max_bytes)

    def is_out_of_memory(self, error: Exception) -> bool:
        return openvino_runtime.is_out_of_memory(error)
