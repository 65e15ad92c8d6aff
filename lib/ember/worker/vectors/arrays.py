"""Short names for types of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Stored = Float32 | Float64
"""Vectors as a table stores them."""
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
