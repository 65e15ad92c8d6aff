"""Rules on programs: versions of Spark, Java and Python, packages here and there, Ember itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ember.diagnosis.facts import Facts, Finding, named
from ember.worker.machine import Machine
from ember.worker.spec import Runtime

__all__ = ["DECIDING", "FRAMEWORKS", "rules"]

# By runtime, the packages that it takes on a worker, and the module to try.
FRAMEWORKS: Mapping[Runtime, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "torch": ("torch", "transformers"),
    "tensorflow": ("tensorflow", "keras"),
}
# Packages whose version may change what comes out of a job.
DECIDING = (
    *("ember-spark", "pyarrow", "numpy", "scipy", "pillow", "openvino", "torch", "transformers"),
    *("tokenizers", "tensorflow", "keras", "scikit-learn", "safetensors", "numba"),
)
_SHIP = (
    "ship one packed environment to all: --archives ember.tar.gz#environment and "
    "spark.pyspark.python=./environment/bin/python (see conf/submit), or an image"
)
_OLDEST_SPARK, _OLDEST_JAVA = (3, 5), 17


def rules(facts: Facts) -> Iterator[Finding]:
    yield from _versions(facts)
    if facts.silent:
        yield Finding("error", "tasks", "executors", facts.silent, _for_silence(facts))
        return
    yield from _pythons(facts)
    yield from _ember(facts)
    yield from _packages(facts)
    yield from _frameworks(facts)


def _versions(facts: Facts) -> Iterator[Finding]:
    if _numbers(facts.spark) < _OLDEST_SPARK:
        what = f"Spark {facts.spark} is older than Ember takes"
        yield Finding("error", "spark", "driver", what, "run on Spark 3.5 or newer")
    if _numbers(facts.java)[:1] < (_OLDEST_JAVA,):
        what = f"Java {facts.java} is older than Ember takes"
        yield Finding("error", "java", "driver", what, "have JAVA_HOME name Java 17 or newer")
    for each in facts.machines:
        if each["spark"] and _numbers(each["spark"])[:2] != _numbers(facts.spark)[:2]:
            what = f"pyspark {each['spark']} talks to Spark {facts.spark}"
            change = "install the pyspark of the cluster's version, or have SPARK_HOME name it"
            yield Finding("error", "spark", named([each], facts), what, change)
    if _numbers(facts.driver["packages"].get("pandas", "2"))[0] >= 3:
        what = f"Spark {facts.spark} does not support pandas {facts.driver['packages']['pandas']}"
        yield Finding("warning", "packages", "driver", what, "pip install 'pandas<3'")


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.replace("_", ".").split(".")
    leading = ["".join(c for c in part if c.isdigit()) for part in parts]
    return tuple(int(each) for each in leading[:3] if each)


def _for_silence(facts: Facts) -> str:
    if "version" in facts.silent or "module" in facts.silent or "Python" in facts.silent:
        return _SHIP
    if facts.manager == "local":
        return "look at what Spark wrote above"
    return (
        "look at the cluster's page for free cores and memory, and ask for no more: "
        "spark.executor.memory, spark.executor.cores, spark.executor.resource.gpu.amount; "
        "executors must also reach the driver (spark.driver.host)"
    )


def _pythons(facts: Facts) -> Iterator[Finding]:
    other = [e for e in facts.executors if e["python"] != facts.driver["python"]]
    if other:
        told = ", ".join(sorted({each["python"] for each in other}))
        what = f"Python is {told}, on the driver {facts.driver['python']}"
        yield Finding("note", "python", named(other, facts), what)


def _ember(facts: Facts) -> Iterator[Finding]:
    without = [
        each
        for each in facts.executors
        if "ember-spark" not in each["packages"] and not each["source"]
    ]
    if without:
        yield Finding("error", "ember", named(without, facts), "Ember is not installed", _SHIP)
    own = facts.driver["source"]
    other = [each for each in facts.executors if each["source"] not in ("", own)]
    if own and other:
        what = "Ember's modules are not those of the driver"
        change = "install the same build on driver and executors, as by one packed environment"
        yield Finding("error", "ember", named(other, facts), what, change)


def _packages(facts: Facts) -> Iterator[Finding]:
    missing: dict[str, list[str]] = {}
    for package in facts.required:
        lacking = [each for each in facts.executors if package not in each["packages"]]
        if lacking:
            missing.setdefault(named(lacking, facts), []).append(package)
    for where, packages in missing.items():
        yield Finding("error", "packages", where, f"not installed: {', '.join(packages)}", _SHIP)
    for package in DECIDING:
        if package in facts.required and any(package in each for each in missing.values()):
            continue
        if told := _differing(package, facts):
            change = "install the same versions everywhere, or results may differ between tasks"
            yield Finding("warning", "packages", "executors", told, change)


def _differing(package: str, facts: Facts) -> str:
    """In which versions a package is there, where they are several; "" where they are not.

    What is on one side only is no difference: the driver needs frameworks that workers do not. Nor
    are builds of a version, such as torch's for CPUs and for CUDA.
    """
    found: dict[str, list[Machine]] = {}
    for each in facts.machines:
        if has := each["packages"].get(package):
            found.setdefault(has.partition("+")[0], []).append(each)
    if len(found) < 2:
        return ""
    return f"{package} is " + ", ".join(
        f"{version} ({named(machines, facts)})" for version, machines in sorted(found.items())
    )


def _frameworks(facts: Facts) -> Iterator[Finding]:
    if facts.need is None:
        lacking = [each for each in facts.executors if not _runtimes(each)]
        if lacking:
            what = "no model can run: neither openvino, torch with transformers, nor tensorflow"
            yield Finding("warning", "framework", named(lacking, facts), what, _SHIP)
        return
    runtime = facts.need.runtime
    lacking = [each for each in facts.executors if runtime not in _runtimes(each)]
    if lacking:
        what = f"{facts.need.name} is to run in {runtime}, which is not there"
        change = f"install {' and '.join(FRAMEWORKS[runtime])} there, or set model.runtime"
        yield Finding("error", "framework", named(lacking, facts), what, change)
    for module in FRAMEWORKS[runtime]:
        broken: dict[str, list[Machine]] = {}
        for each in facts.executors:
            if each not in lacking and (problem := each["imports"].get(module)):
                broken.setdefault(problem, []).append(each)
        for problem, machines in broken.items():
            what = f"{module} cannot be imported: {problem}"
            change = "look at the system's libraries there (libc, libgomp), or use another image"
            yield Finding("error", "framework", named(machines, facts), what, change)


def _runtimes(machine: Machine) -> list[Runtime]:
    """The runtimes whose packages a machine has."""
    return [
        runtime
        for runtime, packages in FRAMEWORKS.items()
        if all(package in machine["packages"] for package in packages)
    ]
