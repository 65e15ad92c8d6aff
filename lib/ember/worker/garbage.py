"""What a worker's modules have loaded, spared from the garbage collections that Spark asks for.

After every task pyspark.daemon collects a worker's garbage before the worker can take the next one:
a walk through all objects there are, 0.1 s with numba's compiler among them and 0.3 s with
TensorFlow, two and three times that where all cores are busy. What modules load stays until the
process ends, so there is nothing among it to collect.
"""

from __future__ import annotations

import gc
import sys

__all__ = ["spare_modules"]

_modules = 0


def spare_modules() -> None:
    """Leave the objects of this process out of later collections, where modules were loaded.

    Called when a task's work is done, since modules are loaded during the first. Of objects that
    are spared, only those in reference cycles are affected: they are not collected later on.
    """
    global _modules
    if len(sys.modules) != _modules:
        gc.collect()
        gc.freeze()
        _modules = len(sys.modules)
