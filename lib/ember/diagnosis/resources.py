"""Rules on resources: cores, memory, GPUs, disks, and what a process may use of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ember.diagnosis.facts import GIB, MIB, Facts, Finding, Need, Severity, named, shown
from ember.worker.machine import Machine
from ember.worker.spec import Runtime

__all__ = ["rules", "worker_memory"]

# What a worker takes beside the model's weights: the framework's own, a batch, decoded pictures.
# From the peaks of whole runs with ResNet-50 (README.md), rounded up.
_FRAMEWORK: Mapping[Runtime, int] = {
    "openvino": 300 * MIB,
    "torch": 1500 * MIB,
    "tensorflow": 1600 * MIB,
}
# Weights are held as they were read and as the framework lays them out.
_COPIES = 2
_LITTLE_DISK, _NO_DISK = 10 * GIB, 1 * GIB
_FEW_FILES = 1024
_SYSTEM = 1 * GIB
_TASK_GPU, _EXECUTOR_GPU = "spark.task.resource.gpu.amount", "spark.executor.resource.gpu.amount"
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def rules(facts: Facts) -> Iterator[Finding]:
    yield from _cores(facts)
    yield from _memory(facts)
    yield from _gpus(facts)
    yield from _instructions(facts)
    yield from _disks(facts)
    yield from _processes(facts)


def worker_memory(need: Need | None) -> int | None:
    """Bytes of a Python worker that runs the model, about; None where nothing is known of one."""
    if need is None:
        return None
    return _FRAMEWORK[need.runtime] + _COPIES * (need.weights or 0)


def _usable(machine: Machine) -> float:
    return min(machine["cores"], machine["quota"] or machine["cores"])


def _cores(facts: Facts) -> Iterator[Finding]:
    if facts.local:
        if facts.slots > _usable(facts.driver):
            what = f"{facts.slots} tasks at once on {_usable(facts.driver):g} cores"
            yield Finding("warning", "cores", "driver", what, "set spark.master to local[*, 4]")
        return
    if not (cores := facts.executor_cores):
        return
    for host, count in facts.by_host.items():
        here = [each for each in facts.executors if each["host"] == host]
        if count * cores > max(map(_usable, here)):
            what = f"executors are to use {count * cores} cores of {_usable(here[0]):g}"
            change = "lower spark.executor.cores, or SPARK_WORKER_CORES on standalone workers"
            yield Finding("warning", "cores", host, what, change)


def _memory(facts: Facts) -> Iterator[Finding]:
    worker = worker_memory(facts.need)
    workers = facts.tasks_at_once * (worker or 0)
    told = f"{facts.tasks_at_once} Python workers of {shown(worker)}" if worker else ""
    if facts.local:
        yield from _of_machine(facts, workers, told)
        return
    heap, overhead = facts.size("spark.executor.memory", "1g"), _overhead(facts)
    limit = facts.size("spark.executor.pyspark.memory", "0")
    if limit and worker and limit // facts.tasks_at_once < worker:
        what = f"a Python worker may take {shown(limit // facts.tasks_at_once)}; the model takes"
        what = f"{what} {shown(worker)}"
        change = f"raise spark.executor.pyspark.memory to {shown(workers)}, or leave it unset"
        yield Finding("error", "memory", "executors", what, change)
    if facts.manager in ("yarn", "kubernetes") and worker and workers > overhead + limit:
        what = f"{told} do not fit in the container's {shown(overhead + limit)} beside Java's heap"
        gib = -(-workers // GIB)
        change = f"set spark.executor.memoryOverhead={gib}g, or run fewer tasks in an executor"
        yield Finding("error", "memory", "executors", what, change)
    for host, all_here in facts.by_host.items():
        here = next(each for each in facts.executors if each["host"] == host)
        has = min(here["memory"], here["cgroup"] or here["memory"])
        # A container's own limit is its executor's; of a machine's memory all take their share.
        own = facts.manager != "standalone"
        count = 1 if own and here["cgroup"] else all_here
        wants = count * (heap + max(workers, overhead if own else 0))
        if wants > has:
            what = f"{count} x {shown(heap)} of Java and {told or 'its overhead'}"
            what = f"{what} are more than the {shown(has)} there are"
            change = "lower spark.executor.memory or spark.executor.cores"
            severity: Severity = "error" if count * heap > has else "warning"
            yield Finding(severity, "memory", host, what, change)


def _overhead(facts: Facts) -> int:
    """What a container has beside Java's heap, as Spark computes it."""
    if given := facts.size("spark.executor.memoryOverhead", "0"):
        return given
    kubernetes = facts.manager == "kubernetes"
    usual = facts.settings.get("spark.kubernetes.memoryOverheadFactor", "0.4") if kubernetes else ""
    factor = facts.settings.get("spark.executor.memoryOverheadFactor", usual or "0.1")
    least = facts.size("spark.executor.minMemoryOverhead", "384m")
    return max(int(float(factor) * facts.size("spark.executor.memory", "1g")), least)


def _of_machine(facts: Facts, workers: int, told: str) -> Iterator[Finding]:
    """In local mode the driver's Java holds all tasks' data, and their workers run beside it."""
    here = facts.driver
    has = min(here["memory"], here["cgroup"] or here["memory"])
    heap = facts.size("spark.driver.memory", "1g")
    if heap + workers + _SYSTEM > has:
        what = f"{shown(heap)} of Java" + (f" and {told}" if told else "")
        what = f"{what} leave less than 1 GiB of {shown(has)}"
        change = "lower spark.driver.memory, or run fewer tasks: spark.master=local[2, 4]"
        yield Finding("warning", "memory", "driver", what, change)


def _gpus(facts: Facts) -> Iterator[Finding]:
    task, executor = facts.settings.get(_TASK_GPU, ""), facts.settings.get(_EXECUTOR_GPU, "")
    if not (task and float(task)):
        if executor and float(executor):
            what = f"executors take {executor} GPUs and tasks none: all would run on the CPU"
            yield Finding("error", "gpu", "settings", what, f"set {_TASK_GPU}=1")
        elif idle := [each for each in facts.executors if each["gpus"]]:
            what = f"{max(each['gpus'] for each in idle)} GPUs that Spark does not assign"
            change = f"set {_EXECUTOR_GPU}=1 and {_TASK_GPU}=1 (conf/spark-gpu.properties)"
            yield Finding("warning", "gpu", named(idle, facts), what, change)
        return
    if float(task) < 1:
        what = f"{_TASK_GPU}={task}: {int(1 / float(task))} models would share a GPU"
        change = f"set {_TASK_GPU}=1, and spark.task.cpus to the cores for each GPU"
        yield Finding("error", "gpu", "settings", what, change)
    absent = [each for each in facts.executors if each["assigned"] and not each["gpus"]]
    if absent:
        what = "Spark assigns GPUs, and the CUDA driver shows none"
        change = (
            "check the driver and spark.executor.resource.gpu.discoveryScript, or unset the GPU "
            "settings to run on the CPU"
        )
        yield Finding("error", "gpu", named(absent, facts), what, change)
    for_cpu = [
        each for each in facts.executors if each["packages"].get("torch", "").endswith("+cpu")
    ]
    if for_cpu:
        what = f"torch {for_cpu[0]['packages']['torch']} is the build for CPUs"
        change = "install torch's build for CUDA there"
        yield Finding("error", "gpu", named(for_cpu, facts), what, change)
    yield from _feeding(facts, float(task))


def _feeding(facts: Facts, gpus: float) -> Iterator[Finding]:
    cpus, cores = int(facts.settings.get("spark.task.cpus", "1")), facts.executor_cores or 0
    of_executor = float(facts.settings.get(_EXECUTOR_GPU, "1"))
    share = int(cores * gpus / of_executor)
    if cpus < share:
        what = f"a GPU has {cpus} of its {share} cores to decode and tokenize"
        yield Finding("warning", "gpu", "settings", what, f"set spark.task.cpus={share}")


def _instructions(facts: Facts) -> Iterator[Finding]:
    with_x86 = [each for each in facts.executors if "asimd" not in each["instructions"]]
    old = [each for each in with_x86 if each["instructions"] and "avx2" not in each["instructions"]]
    if old:
        what = "no AVX2: search and join filter in float32, and models run slowly"
        yield Finding("note", "processor", named(old, facts), what)
    need = facts.need
    if need and need.precision == "bfloat16" and need.runtime == "openvino":
        without = [each for each in facts.executors if not _BFLOAT16 & {*each["instructions"]}]
        if without:
            what = "no instructions for bfloat16: it is slower there than float32"
            change = "set model.precision=float32, or run on other machines"
            yield Finding("warning", "processor", named(without, facts), what, change)
    kinds = {tuple(each["instructions"]) for each in facts.executors}
    if len(kinds) > 1:
        what = "processors differ: some tasks take longer, and vectors differ in their last bits"
        yield Finding("note", "processor", "executors", what)


def _disks(facts: Facts) -> Iterator[Finding]:
    for each in facts.machines:
        for disk in each["disks"]:
            where = f"{named([each], facts)}: {disk['path']}"
            change = "set spark.local.dir (SPARK_LOCAL_DIRS, LOCAL_DIRS) to another disk, or TMPDIR"
            if disk["problem"]:
                what = f"cannot be written: {disk['problem']}"
                yield Finding("error", "disk", where, what, change)
            elif disk["free"] < _LITTLE_DISK:
                severity: Severity = "error" if disk["free"] < _NO_DISK else "warning"
                what = f"{shown(disk['free'])} free"
                yield Finding(severity, "disk", where, what, change)


def _processes(facts: Facts) -> Iterator[Finding]:
    if facts.settings.get("spark.python.worker.reuse", "true").lower() == "false":
        what = "every task starts a Python worker of its own, which loads the model again"
        change = "leave spark.python.worker.reuse at true"
        yield Finding("warning", "workers", "settings", what, change)
    if facts.local and "," not in facts.master:
        what = f"{facts.master}: one killed worker ends the run"
        yield Finding("note", "workers", "settings", what, "set spark.master to local[*, 4]")
    for each in facts.machines:
        limit = each["open_files"]
        if limit is not None and limit < _FEW_FILES:
            what = f"a process may open {limit} files"
            yield Finding(
                "warning", "files", named([each], facts), what, "raise `ulimit -n` to 4096"
            )
    bounded = [each for each in facts.executors if each["address_space"]]
    if bounded and not facts.settings.get("spark.executor.pyspark.memory"):
        what = f"a process may have {shown(bounded[0]['address_space'] or 0)} of addresses"
        change = "set `ulimit -v unlimited` there: frameworks reserve more than they use"
        yield Finding("warning", "memory", named(bounded, facts), what, change)
    cold = [each for each in facts.executors if not each["numba_cache"]]
    if cold:
        what = "no place to keep compiled code: each process compiles for some seconds"
        change = "set spark.executorEnv.NUMBA_CACHE_DIR to a folder that can be written"
        yield Finding("warning", "compiled code", named(cold, facts), what, change)
