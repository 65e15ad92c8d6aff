"""The libraries of lineage and tracking, which Ember does without; see scripts/cluster/tracking."""

from __future__ import annotations

import os
import sys

import pytest

FOLDER = "EMBER_TRACKING"


@pytest.fixture(scope="session", autouse=True)
def libraries() -> None:
    if FOLDER not in os.environ:
        pytest.skip("no OpenLineage and no MLflow here; scripts/cluster/tracking has them")
    sys.path.append(os.environ[FOLDER])
