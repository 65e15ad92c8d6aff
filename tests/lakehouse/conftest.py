"""A session with Delta Lake and Iceberg; see scripts/cluster/lakehouse."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from lake_session import JARS, settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    if JARS not in os.environ:
        pytest.skip("Spark has no Delta Lake and no Iceberg here; scripts/cluster/lakehouse has")
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    root = tmp_path_factory.mktemp("lake")
    session = SparkSession.builder.config(map=settings(root)).getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()
