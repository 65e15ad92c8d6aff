"""Spark's Python daemon with torch and transformers, so that no worker has to load them."""

from __future__ import annotations

import gc

import torch  # noqa: F401
from pyspark.daemon import manager
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer  # noqa: F401

if __name__ == "__main__":
    gc.freeze()  # or each worker walks through it after every task: see ember.worker.garbage
    manager()
