"""What all tests share: one Spark session, tiny models, the folder of real data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests of both frameworks share a process; see ember.worker.device.hide_triton.
sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
# No test may depend on how busy the machine is, nor on what is compiled already.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
    )
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    scratch = tmp_path_factory.mktemp("spark")
    settings = {
        "spark.master": "local[2]",
        "spark.app.name": "ember tests",
        "spark.driver.memory": "2g",
        # Half the CPU time: what is compiled here seldom runs often enough to pay for more.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        # Nor does a plan of its own for a few rows: interpreting it takes less than compiling it.
        # Jobs that tests start as processes compile theirs.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.python.daemon.module": "warm_daemon",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.local.dir": str(scratch / "local"),
    }
    session = SparkSession.builder.config(map=settings).getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tiny_models import tiny_resnet

    return f"hf:{tiny_resnet(tmp_path_factory.mktemp('resnet'))}"


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tiny_models import tiny_bert

    return f"hf:{tiny_bert(tmp_path_factory.mktemp('bert'))}"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a job's output goes, in a folder in which nothing else is."""
    return tmp_path / "work" / "out"


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Of a job's exit code and message, which are compared as a pair, all of both."""
    match op, left, right:
        case "==", (int(code), str(message)), (int(), str()):
            return [f"{left!r:.60} == {right!r:.60}", f"exit code {code}", *message.splitlines()]
    return None


@pytest.fixture
def run_job(
    spark: SparkSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Run a job in this process: its name, settings as dotted keys; exit code and stderr back."""
    monkeypatch.setenv("EMBER_LOG_LEVEL", "WARNING")

    def run(job: str, *flags: str, **settings: Any) -> tuple[int, str]:
        main = import_module(f"ember.jobs.{job}").main
        pairs = [f"--set={key.replace('__', '.')}={value}" for key, value in settings.items()]
        capsys.readouterr()
        code = main([*pairs, *flags])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def embed_job(run_job: Callable[..., tuple[int, str]]) -> Callable[..., tuple[int, str]]:
    """Run the embed job: see run_job."""
    return partial(run_job, "embed")


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("EMBER_TEST_DATA")
    if not folder:
        pytest.skip("EMBER_TEST_DATA does not name the folder of real data")
    return Path(folder)
