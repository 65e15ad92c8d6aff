"""What a process finds where it runs: programs, processor, memory, devices, disks, clock.

It needs Python's own library and nothing else, not even another module of Ember: `doctor` sends it
to workers that may lack every package.
"""

from __future__ import annotations

import ctypes
import getpass
import hashlib
import importlib.util
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

__all__ = [
    "INSTRUCTIONS",
    "Disk",
    "Machine",
    "cuda_device_count",
    "examine",
    "instruction_flags",
    "reach",
    "umask",
]

# The instruction sets that decide how fast a model or a comparison is, as Linux names them.
INSTRUCTIONS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16"),
    *("amx_bf16", "amx_int8", "asimd", "bf16"),
)
_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_EXECUTOR = re.compile(r"--executor-id\0([^\0]+)\0")
# What a container without a limit has in version 1 of cgroups, less a page.
_NO_LIMIT = 2**60
_IMPORT_SECONDS = 120


class Disk(TypedDict):
    """A folder for files on the way.

    free: bytes. problem: why it cannot be written; "" if it can.
    """

    path: str
    free: int
    problem: str


class Machine(TypedDict):
    """The facts of one process and its machine; sizes in bytes, None where nothing limits.

    executor: its id; "" on the driver and in local mode. process: names the Java process that the
    Python process belongs to, on its host.
    packages: versions by name, of those that were asked for and are there. source: a hash of
    Ember's modules; "" where they are no plain files. imports: by module, why it cannot be
    imported; "" if it can. quota: cores that a container may use. cgroup: memory that it may use.
    address_space: of one process (ulimit -v). gpus: as the CUDA driver shows them. assigned: GPUs
    that Spark gave the task. numba_cache: where compiled code is kept; "" where that cannot be.
    began, ended: seconds since the epoch by the clock of this machine.
    """

    host: str
    process: str
    executor: str
    user: str
    python: str
    executable: str
    spark: str
    libc: str
    packages: dict[str, str]
    source: str
    imports: dict[str, str]
    processor: str
    instructions: list[str]
    cores: int
    quota: float | None
    memory: int
    available: int
    cgroup: int | None
    address_space: int | None
    open_files: int | None
    gpus: int
    visible_gpus: str | None
    assigned: list[str]
    disks: list[Disk]
    umask: str
    encoding: str
    numba_cache: str
    began: float
    ended: float


def examine(
    packages: Sequence[str],
    modules: Sequence[str] = (),
    folders: Sequence[str] = (),
    assigned: Sequence[str] = (),
) -> Machine:
    """The facts of this process.

    packages: whose versions are asked for. modules: what is to be imported, each in a process of
    its own. folders: where Spark keeps what it works with, unless its environment says so.
    assigned: GPUs that Spark gave this task.
    """
    began, flags = time.time(), instruction_flags()
    executor, process = _java()
    memory, available = _memory()
    return {
        "host": socket.gethostname(),
        "process": process,
        "executor": executor,
        "user": _user(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "spark": str(getattr(sys.modules.get("pyspark"), "__version__", "")),
        "libc": " ".join(platform.libc_ver()).strip(),
        "packages": _versions(packages),
        "source": _source(),
        "imports": {module: _import_problem(module) for module in modules},
        "processor": _processor(),
        "instructions": [each for each in INSTRUCTIONS if each in flags],
        "cores": _cores(),
        "quota": _quota(),
        "memory": memory,
        "available": available,
        "cgroup": _cgroup_memory(),
        "address_space": _limit(resource.RLIMIT_AS),
        "open_files": _limit(resource.RLIMIT_NOFILE),
        "gpus": cuda_device_count(),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "assigned": list(assigned),
        "disks": [_disk(folder) for folder in _folders(folders)],
        "umask": umask(),
        "encoding": sys.getfilesystemencoding(),
        "numba_cache": _numba_cache(),
        "began": began,
        "ended": time.time(),
    }


def reach(paths: Sequence[str]) -> dict[str, str]:
    """For each path of this machine's file systems, why it cannot be read here; "" if it can."""
    found = {}
    for path in paths:
        try:
            if Path(path).is_dir():
                os.scandir(path).close()
            else:
                with Path(path).open("rb") as stream:
                    stream.read(1)
        except OSError as error:
            found[path] = error.strerror or str(error)
        else:
            found[path] = ""
    return found


def cuda_device_count() -> int:
    """How many CUDA devices the driver library shows this process; 0 without a driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _java() -> tuple[str, str]:
    """The id of the executor and the number of the Java process above this one.

    Without /proc, "" and the number of the process that started this one.
    """
    pid = os.getpid()
    with suppress(OSError, ValueError, IndexError):
        while pid > 1:
            line = (_PROC / str(pid) / "cmdline").read_text("utf-8", "replace")
            if Path(line.partition("\0")[0]).name.startswith("java"):
                found = _EXECUTOR.search(line)
                return (found[1] if found else "", str(pid))
            status = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
            pid = int(status.rpartition(")")[2].split()[1])
    return "", str(os.getppid())


def _user() -> str:
    try:
        return f"{getpass.getuser()} ({os.getuid()})"
    except (KeyError, OSError):  # a container's user without a name
        return f"({os.getuid()})"


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _source() -> str:
    spec = importlib.util.find_spec("ember")
    folders = [Path(each) for each in (spec and spec.submodule_search_locations) or ()]
    found = ((file.relative_to(each), file) for each in folders for file in each.rglob("*.py"))
    # The jobs' scripts lie elsewhere in a clone than where they are installed.
    files = sorted(each for each in found if each[0].parts[0] != "jobs")
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12] if files else ""


def _import_problem(module: str) -> str:
    """In a process of its own: what is loaded stays, and a broken library ends its process."""
    command = [sys.executable, "-c", f"import {module}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
    return said[-1][:300]


def _cpuinfo(key: str) -> str:
    try:
        text = (_PROC / "cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return ""
    found = re.search(rf"^{key}\s*:(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instruction_flags() -> set[str]:
    """What the processor has, as Linux names it; none where there is no /proc."""
    return set((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def _memory() -> tuple[int, int]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError, IndexError):
        lines = (_PROC / "meminfo").read_text("utf-8").splitlines()
        free = next(line for line in lines if line.startswith("MemAvailable:"))
        return total, int(free.split()[1]) * 1024
    return total, total


def _cgroups(controller: str) -> Iterator[Path]:
    """Folders of this process's control group and those above it, in either version of cgroups."""
    with suppress(OSError):
        for line in (_PROC / "self" / "cgroup").read_text("utf-8").splitlines():
            _, names, path = line.split(":", 2)
            if not names:
                root = _CGROUPS
            elif controller in names.split(","):
                root = _CGROUPS / controller
            else:
                continue
            place = root / path.lstrip("/")
            # In a container the path may be that of the host; the root is then its own.
            for each in (place, *place.parents):
                if each.is_relative_to(root):
                    yield each


def _numbers(folder: Path, name: str) -> list[int]:
    """The numbers in a file of a control group; none where it is not there or says max."""
    try:
        return [int(word) for word in (folder / name).read_text("utf-8").split()]
    except (OSError, ValueError):
        return []


def _cgroup_memory() -> int | None:
    found = [
        number
        for folder in _cgroups("memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        for number in _numbers(folder, name)
        if number < _NO_LIMIT
    ]
    return min(found, default=None)


def _quota() -> float | None:
    found = []
    for folder in _cgroups("cpu"):
        both = _numbers(folder, "cpu.max")
        both = both or _numbers(folder, "cpu.cfs_quota_us") + _numbers(folder, "cpu.cfs_period_us")
        if len(both) == 2 and both[0] > 0 and both[1] > 0:
            found.append(both[0] / both[1])
    return min(found, default=None)


def _limit(what: int) -> int | None:
    soft, _ = resource.getrlimit(what)
    return None if soft == resource.RLIM_INFINITY else soft


def _folders(given: Sequence[str]) -> list[str]:
    """Where this process and Spark's Java process beside it write: as their environment says."""
    # As Spark itself reads them: of a standalone cluster, of YARN, and what it tells workers.
    between = {"SPARK_EXECUTOR_DIRS": os.pathsep, "LOCAL_DIRS": ",", "SPARK_LOCAL_DIRS": ","}
    said = (os.environ.get(key, "").split(mark) for key, mark in between.items())
    folders = next((each for each in said if any(each)), list(given))
    roots = [_above_spark(each) for each in folders if each]
    return list(dict.fromkeys([*roots, tempfile.gettempdir()]))


def _above_spark(folder: str) -> str:
    """The folder of the user's that Spark made its own in."""
    return re.sub(r"/(?:spark|blockmgr|executor)-[0-9a-f-]{36}(?=/|$).*", "", folder) or "/"


def _disk(folder: str) -> Disk:
    there = Path(folder)
    while not there.exists() and there != there.parent:  # Spark makes it
        there = there.parent
    try:
        free = shutil.disk_usage(there).free
        with tempfile.TemporaryFile(dir=there) as stream:
            stream.write(b"\0")
    except OSError as error:
        return {"path": folder, "free": 0, "problem": error.strerror or str(error)}
    return {"path": folder, "free": free, "problem": ""}


def umask() -> str:
    """The mask of new files of this process, in octal."""
    mask = os.umask(0)
    os.umask(mask)
    return f"{mask:03o}"


def _numba_cache() -> str:
    """Where numba can keep compiled code, as it looks for it: see numba.core.caching."""
    spec = importlib.util.find_spec("ember")
    beside = [f"{each}/worker/vectors" for each in (spec and spec.submodule_search_locations) or ()]
    own = os.environ.get("NUMBA_CACHE_DIR")
    users = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    for folder in [own] if own else [*beside, users]:
        with suppress(OSError):
            Path(folder).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
    return ""
