"""From made-up facts of a cluster to what `doctor` says of it: each fault has its finding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ember.diagnosis.diagnosing import examined
from ember.diagnosis.facts import GIB, MIB, Facts, Need, Place, Rows
from ember.diagnosis.page import as_text, as_values
from ember.worker.machine import Machine

PACKAGES = {
    "ember-spark": "0.1.0",
    "pyspark": "4.0.1",
    "pandas": "2.3.3",
    "pyarrow": "26.0.1",
    "numpy": "2.4.6",
    "numba": "0.61",
    "openvino": "2026.4",
    "torch": "2.13.0",
    "transformers": "5.23",
}
REQUIRED = ("pyarrow", "numpy", "numba")
GPUS = {"spark.executor.resource.gpu.amount": "1", "spark.task.resource.gpu.amount": "1"}


def machine(**changes: Any) -> Machine:
    facts: dict[str, Any] = {
        "host": "driver",
        "process": "1",
        "executor": "",
        "user": "ember (1000)",
        "python": "3.11.9",
        "executable": "/env/bin/python",
        "spark": "4.0.1",
        "libc": "glibc 2.36",
        "packages": PACKAGES,
        "source": "abc",
        "imports": {},
        "processor": "a processor",
        "instructions": ["avx2", "avx512_bf16"],
        "cores": 8,
        "quota": None,
        "memory": 64 * GIB,
        "available": 60 * GIB,
        "cgroup": None,
        "address_space": None,
        "open_files": 65536,
        "gpus": 0,
        "visible_gpus": None,
        "assigned": [],
        "disks": [{"path": "/tmp", "free": 100 * GIB, "problem": ""}],
        "umask": "022",
        "encoding": "utf-8",
        "numba_cache": "/home/ember/.cache",
        "began": 0.0,
        "ended": 0.1,
    }
    return Machine(**{**facts, **changes})  # type: ignore[typeddict-item]


def executor(number: int, **changes: Any) -> Machine:
    own = {"host": f"node{number}", "executor": str(number), "process": "7"}
    return machine(**{**own, **changes})


def cluster(*executors: Machine, **changes: Any) -> Facts:
    found = executors or (executor(1), executor(2))
    facts = Facts(
        master="spark://master:7077",
        settings={"spark.executor.cores": "4", "spark.executor.memory": "4g"},
        spark="4.0.1",
        java="17.0.12",
        hadoop="3.4.1",
        java_encoding="UTF-8",
        driver=machine(),
        executors=found,
        known=len(found),
        slots=4 * len(found),
        required=REQUIRED,
        skews=[0.0] * len(found),
    )
    settings = changes.pop("settings", {})
    return replace(facts, settings={**facts.settings, **settings}, **changes)


def without(*names: str) -> dict[str, str]:
    return {name: version for name, version in PACKAGES.items() if name not in names}


def test_a_sound_cluster_and_a_sound_laptop_have_no_findings():
    assert examined(cluster()) == []
    assert examined(cluster(machine(), master="local[8, 4]", known=0, slots=8)) == []


OPENVINO = Need("hf:bert", "openvino", "float32", 440 * MIB)
TORCH = Need("hf:bert", "torch", "float32", 440 * MIB)
# What is made up, then severity, check, a part of where, of what and of the setting to change.
FAULTS: dict[str, tuple[Facts, tuple[str, str, str, str, str]]] = {
    "old Spark": (
        cluster(executor(1, spark="3.4.4"), spark="3.4.4", driver=machine(spark="3.4.4")),
        ("error", "spark", "driver", "Spark 3.4.4 is older", "Spark 3.5"),
    ),
    "old Java": (
        cluster(java="1.8.0_402"),
        ("error", "java", "driver", "Java 1.8.0_402", "JAVA_HOME"),
    ),
    "another pyspark": (
        cluster(executor(1), executor(2, spark="4.1.0")),
        ("error", "spark", "executors 2 on node2", "pyspark 4.1.0 talks to Spark 4.0.1", "pyspark"),
    ),
    "no task answers": (
        cluster(executors=[], known=0, silent="no task ended within 60 s"),
        ("error", "tasks", "executors", "within 60 s", "spark.executor.memory"),
    ),
    "another Python": (
        cluster(executors=[], silent="tasks fail: driver and workers run different versions of Py"),
        ("error", "tasks", "executors", "different versions", "--archives"),
    ),
    "no Ember on executors": (
        cluster(executor(1, source="", packages=without("ember-spark")), executor(2)),
        ("error", "ember", "executors 1 on node1", "not installed", "--archives"),
    ),
    "another build of Ember": (
        cluster(executor(1), executor(2, source="def")),
        ("error", "ember", "executors 2 on node2", "not those of the driver", "same build"),
    ),
    "a package is missing": (
        cluster(executor(1, packages=without("numba")), executor(2, packages=without("numba"))),
        ("error", "packages", "executors", "not installed: numba", "conf/submit"),
    ),
    "a package differs": (
        cluster(executor(1), executor(2, packages={**PACKAGES, "torch": "2.12.0"})),
        (
            "warning",
            "packages",
            "executors",
            "torch is 2.12.0 (executors 2 on node2), 2.13.0",
            "same",
        ),
    ),
    "pandas is too new": (
        cluster(driver=machine(packages={**PACKAGES, "pandas": "3.0.0"})),
        ("warning", "packages", "driver", "pandas 3.0.0", "pandas<3"),
    ),
    "no framework": (
        cluster(executor(1, packages=without("openvino", "torch"))),
        ("warning", "framework", "executor", "no model can run", "--archives"),
    ),
    "not the model's framework": (
        cluster(executor(1, packages=without("openvino")), need=OPENVINO),
        ("error", "framework", "executor", "to run in openvino, which is not", "install openvino"),
    ),
    "a framework that cannot be imported": (
        cluster(executor(1, imports={"torch": "OSError: libgomp.so.1"}), executor(2), need=TORCH),
        ("error", "framework", "executors 1 on node1", "libgomp", "image"),
    ),
    "more cores than there are": (
        cluster(executor(1, host="a"), executor(2, host="a"), executor(3, host="a")),
        ("warning", "cores", "a", "12 cores of 8", "spark.executor.cores"),
    ),
    "a container's cores": (
        cluster(executor(1, quota=2.0)),
        ("warning", "cores", "node1", "4 cores of 2", "spark.executor.cores"),
    ),
    "more tasks than cores in local mode": (
        cluster(machine(cores=2), driver=machine(cores=2), master="local[8, 4]", known=0, slots=8),
        ("warning", "cores", "driver", "8 tasks at once on 2 cores", "local[*, 4]"),
    ),
    "more heap than memory": (
        cluster(settings={"spark.executor.memory": "80g"}),
        ("error", "memory", "node1", "80.0 GiB of Java", "spark.executor.memory"),
    ),
    "workers that do not fit beside the heap": (
        cluster(settings={"spark.executor.memory": "60g"}, need=TORCH),
        ("warning", "memory", "node1", "4 Python workers of 2.3 GiB", "spark.executor.cores"),
    ),
    "a container without room for workers": (
        cluster(master="yarn", need=TORCH),
        ("error", "memory", "executors", "do not fit in the container's 410", "memoryOverhead=10g"),
    ),
    "a limit on workers below the model": (
        cluster(settings={"spark.executor.pyspark.memory": "2g"}, need=TORCH),
        ("error", "memory", "executors", "may take 512 MiB", "spark.executor.pyspark.memory"),
    ),
    "little memory in local mode": (
        cluster(
            machine(),
            driver=machine(memory=8 * GIB),
            master="local[4, 4]",
            settings={"spark.driver.memory": "4g"},
            known=0,
            slots=4,
            need=TORCH,
        ),
        ("warning", "memory", "driver", "4.0 GiB of Java and 4 Python", "spark.driver.memory"),
    ),
    "GPUs that no task gets": (
        cluster(settings={"spark.executor.resource.gpu.amount": "2"}),
        ("error", "gpu", "settings", "tasks none", "spark.task.resource.gpu.amount=1"),
    ),
    "GPUs that Spark knows nothing of": (
        cluster(executor(1, gpus=2)),
        ("warning", "gpu", "executor", "2 GPUs that Spark does not", "conf/spark-gpu.properties"),
    ),
    "several models on a GPU": (
        cluster(settings={**GPUS, "spark.task.resource.gpu.amount": "0.25"}),
        ("error", "gpu", "settings", "4 models would share", "spark.task.resource.gpu.amount=1"),
    ),
    "a GPU that is not there": (
        cluster(executor(1, assigned=["0"]), settings={**GPUS, "spark.task.cpus": "4"}),
        ("error", "gpu", "executor", "shows none", "discoveryScript"),
    ),
    "torch without CUDA": (
        cluster(
            executor(1, assigned=["0"], gpus=1, packages={**PACKAGES, "torch": "2.13.0+cpu"}),
            settings={**GPUS, "spark.task.cpus": "4"},
        ),
        ("error", "gpu", "executor", "build for CPUs", "CUDA"),
    ),
    "a GPU that is starved": (
        cluster(executor(1, assigned=["0"], gpus=1), settings=GPUS),
        ("warning", "gpu", "settings", "1 of its 4 cores", "spark.task.cpus=4"),
    ),
    "no bfloat16": (
        cluster(executor(1, instructions=["avx2"]), need=replace(OPENVINO, precision="bfloat16")),
        ("warning", "processor", "executor", "no instructions for bfloat16", "model.precision"),
    ),
    "processors that differ": (
        cluster(executor(1), executor(2, instructions=["avx2"])),
        ("note", "processor", "executors", "processors differ", ""),
    ),
    "an old processor": (
        cluster(executor(1, instructions=["avx512f"])),
        ("note", "processor", "executor", "no AVX2", ""),
    ),
    "a disk that is full": (
        cluster(executor(1, disks=[{"path": "/d", "free": 100 * MIB, "problem": ""}])),
        ("error", "disk", "executor: /d", "100 MiB free", "spark.local.dir"),
    ),
    "a disk that is nearly full": (
        cluster(executor(1, disks=[{"path": "/d", "free": 5 * GIB, "problem": ""}])),
        ("warning", "disk", "executor: /d", "5.0 GiB free", "spark.local.dir"),
    ),
    "a disk that cannot be written": (
        cluster(driver=machine(disks=[{"path": "/d", "free": 0, "problem": "Read-only"}])),
        ("error", "disk", "driver: /d", "cannot be written: Read-only", "spark.local.dir"),
    ),
    "workers that are not used again": (
        cluster(settings={"spark.python.worker.reuse": "false"}),
        ("warning", "workers", "settings", "loads the model again", "spark.python.worker.reuse"),
    ),
    "a master without retries": (
        cluster(machine(), master="local[8]", known=0, slots=8),
        ("note", "workers", "settings", "one killed worker", "local[*, 4]"),
    ),
    "few files": (
        cluster(executor(1, open_files=256)),
        ("warning", "files", "executor", "256 files", "ulimit -n"),
    ),
    "bounded addresses": (
        cluster(executor(1, address_space=4 * GIB)),
        ("warning", "memory", "executor", "4.0 GiB of addresses", "ulimit -v"),
    ),
    "no place for compiled code": (
        cluster(executor(1, numba_cache="")),
        ("warning", "compiled code", "executor", "each process compiles", "NUMBA_CACHE_DIR"),
    ),
    "an input that is not there": (
        cluster(places=[Place("s3a://b/in", "read", "there is no file", "look at how")]),
        ("error", "places", "s3a://b/in", "cannot be read: there is no file", "look at how"),
    ),
    "an output that executors do not share": (
        cluster(places=[Place("/out", "write", unseen={"node1": "No such file"})]),
        ("error", "places", "/out", "node1: No such file", "hdfs:"),
    ),
    "another committer": (
        cluster(settings={"spark.sql.sources.commitProtocolClass": "a.PathOutputCommitProtocol"}),
        ("note", "committer", "settings", "nothing to resume", "commitProtocolClass"),
    ),
    "a clock that is behind": (
        cluster(executor(1), executor(2), skews=[0.0, -20.0]),
        ("warning", "clock", "executors 2 on node2", "20 s behind", "chrony"),
    ),
    "a clock that is far ahead": (
        cluster(executor(1), skews=[400.0]),
        ("error", "clock", "executor", "400 s ahead of", "chrony"),
    ),
    "Java in ASCII": (
        cluster(java_encoding="ANSI_X3.4-1968"),
        ("warning", "locale", "driver", "ANSI_X3.4-1968", "LC_ALL=C.UTF-8"),
    ),
    "Python in Latin 1": (
        cluster(executor(1, encoding="iso8859-1")),
        ("warning", "locale", "executor", "iso8859-1", "spark.executorEnv.LC_ALL"),
    ),
    "two users on one disk": (
        cluster(executor(1, user="spark (99)"), places=[Place("file:/shared/out", "write")]),
        ("warning", "users", "executor", "tasks run as spark (99)", "one user"),
    ),
    "batches too large for the rows": (
        cluster(
            settings={"spark.sql.execution.arrow.maxRecordsPerBatch": "10000"},
            rows=Rows(50, "a row group of f holds 100 rows of 64.0 MiB, 0.6 MiB a row"),
        ),
        ("error", "batches", "settings", "0.6 MiB a row", "50 or less"),
    ),
    "executors that ran nothing": (
        cluster(known=5),
        ("note", "tasks", "executors", "3 of 5 executors ran no task", ""),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_one_finding(fault):
    facts, expected = FAULTS[fault]
    found, *others = examined(facts)
    # Of several hosts each has its own.
    assert {(each.check, each.change) for each in others} <= {(found.check, found.change)}
    severity, check, where, what, change = expected
    assert (found.severity, found.check) == (severity, check)
    assert where in found.where
    assert what in found.what
    assert change in found.change
    assert bool(found.change) == bool(change)


def test_what_cannot_be_reached_hides_nothing_else():
    """An executor that lacks everything is told of in one finding a cause, errors first."""
    bare = executor(1, packages={}, source="", numba_cache="")
    found = examined(cluster(bare, known=2))
    assert [(each.severity, each.check) for each in found] == [
        ("error", "ember"),
        ("error", "packages"),
        ("warning", "framework"),
        ("warning", "compiled code"),
        ("note", "tasks"),
    ]
    assert found[1].what == "not installed: pyarrow, numpy, numba"


def test_overhead_is_what_spark_gives_a_container():
    """Of 10 GiB: a tenth on YARN, two fifths for Python on Kubernetes, or as the user says."""
    enough = replace(TORCH, weights=0)  # four workers of 1,500 MiB
    facts = cluster(settings={"spark.executor.memory": "10g"}, need=enough)
    (yarn,) = examined(replace(facts, master="yarn"))
    assert "container's 1.0 GiB" in yarn.what
    (k8s,) = examined(replace(facts, master="k8s://https://host"))
    assert "container's 4.0 GiB" in k8s.what
    given = {**facts.settings, "spark.executor.memoryOverhead": "6000"}
    assert examined(replace(facts, master="yarn", settings=given)) == []


def test_the_page_says_where_executors_differ_and_what_to_change():
    odd = executor(2, python="3.11.2", numba_cache="")
    facts = cluster(executor(1), odd, places=[Place("hdfs:/in", "read"), Place("/o", "write", "x")])
    page = as_text(facts, examined(facts))
    lines = [line.split() for line in page.splitlines()]
    assert ["python", "driver:", "3.11.9", "/env/bin/python"] in lines
    assert ["1", "executors:", "3.11.2", "/env/bin/python"] in lines
    assert ["read", "hdfs:/in:", "fine"] in lines
    assert ["write", "/o:", "NO,", "see", "below"] in lines
    assert page.index("will go wrong") < page.index("may go wrong") < page.index("good to know")
    assert "-> set spark.executorEnv.NUMBA_CACHE_DIR" in page
    assert max(map(len, page.splitlines())) <= 104


def test_the_manifest_has_no_setting_that_may_be_a_secret():
    facts = cluster(settings={"spark.hadoop.fs.s3a.secret.key": "WORD"})
    assert "WORD" not in str(as_values(facts, [])) + as_text(facts, [])
