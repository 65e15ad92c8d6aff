"""How fast this machine multiplies matrices: the limit that arithmetic sets to a model."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

__all__ = ["product_gflops"]

_SIDE = 3072
_TRIES = 6


def product_gflops() -> dict[str, float]:
    """Billions of operations a second of a square product on all cores, the best of some tries.

    float32: the better of numpy's BLAS and OpenVINO; bfloat16: OpenVINO. A sum and its product
    are two operations. A convolution can beat it where it needs fewer multiplications (Winograd).
    """
    rng = np.random.default_rng(0)
    left, right = (rng.random((_SIDE, _SIDE), np.float32) for _ in range(2))
    rates = {"float32": _best(lambda: left @ right)}
    try:
        import openvino as ov
        from openvino import opset13 as ops
    except ImportError:
        return rates
    place = ops.parameter([_SIDE, _SIDE], np.float32)
    model = ov.Model([ops.matmul(place, ops.constant(right), False, False)], [place])
    for precision, hint in (("float32", "f32"), ("bfloat16", "bf16")):
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
        request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
        found = _best(lambda request=request: request.infer({0: left}))
        rates[precision] = max(found, rates.get(precision, 0.0))
    return rates


def _best(call: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return round(2 * _SIDE**3 / min(seconds) / 1e9, 1)
