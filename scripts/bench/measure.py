"""What benchmarks share: a command's wall time and memory, the machine's name, tables."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeVar

__all__ = [
    "Measured",
    "Watch",
    "descendants",
    "embed_command",
    "formatted",
    "instruction_sets",
    "machine",
    "measure",
    "middle",
    "resident",
    "watched",
]

# Those that decide how fast matrices are multiplied, by their names in /proc/cpuinfo.
_INSTRUCTIONS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)
_SAMPLE_SECONDS = 0.2
_MIB = 2**20


@dataclass(frozen=True)
class Measured:
    """One run of a command, from its start until it has ended.

    worker_mib: the largest peak of resident memory among the processes that do the work. Those
        are the Python processes that a Java process started (Spark's workers), or, where there
        is none, the command and all that it started. The peak is the kernel's own (VmHWM), so none
        is missed between two samples but the growth in a process's last fifth of a second.
    tree_mib: the largest sum of resident memory over all processes of the command, the Java one
        included, seen in a sample. Pages that processes share are counted for each of them.
    """

    seconds: float
    worker_mib: float
    tree_mib: float


def measure(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    limit: float | None = None,
) -> Measured:
    """Run `command` to its end, its output to `log`.

    environment: variables beside those of this process.
    limit: seconds after which it is killed, with all that it started.
    Ends the program with the end of the log when the command fails.
    """
    seconds, sampler = watched(_Sampler, command, log, environment, limit)
    worker = sampler.worker_mib()
    return Measured(round(seconds, 3), worker, max(worker, round(sampler.tree / _MIB, 1)))


def watched(
    watch: Callable[[int], W],
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    limit: float | None = None,
) -> tuple[float, W]:
    """As `measure`; the seconds, and the watch, made of the process's id, that looked on."""
    with log.open("wb") as stream:
        start = perf_counter()
        process = subprocess.Popen(
            list(command), stdout=stream, stderr=stream, env={**os.environ, **environment}
        )
        watching = watch(process.pid)
        watching.start()
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            for pid, _, _ in list(descendants(process.pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            code = process.wait()
        seconds = perf_counter() - start
        watching.stop()
    if code:
        lines = log.read_text("utf-8", "replace").splitlines()
        said = [line for line in lines if not line.startswith("\tat ")]  # Java's stack frames
        sys.exit("\n".join([*said[-50:], f"exit code {code} from: {' '.join(command)}"]))
    return seconds, watching


class Watch(threading.Thread):
    """Looks at a process and all that descend from it, on Linux, until it is stopped."""

    def __init__(self, root: int, every: float = _SAMPLE_SECONDS) -> None:
        super().__init__(daemon=True)
        self.root = root
        self._every = every
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(self._every):
            self.look()

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def look(self) -> None:
        """Take one sample, in this thread."""
        raise NotImplementedError


W = TypeVar("W", bound=Watch)


class _Sampler(Watch):
    """The memory of a command's processes."""

    def __init__(self, root: int) -> None:
        super().__init__(root)
        self.tree = 0
        self.peaks: dict[int, int] = {}
        self.workers: set[int] = set()

    def worker_mib(self) -> float:
        peaks = [self.peaks[pid] for pid in self.workers or self.peaks]
        return round(max(peaks, default=0) / _MIB, 1)

    def look(self) -> None:
        total = 0
        for pid, name, below_java in descendants(self.root):
            status = _status(pid)
            total += _bytes(status, "VmRSS")
            self.peaks[pid] = max(self.peaks.get(pid, 0), _bytes(status, "VmHWM"))
            if below_java and name.startswith("python"):
                self.workers.add(pid)
        self.tree = max(self.tree, total)


def embed_command(
    python: str, tree: Path, options: argparse.Namespace, source: Path, out: Path
) -> list[str]:
    """The command of `jobs/embed.py` of a checkout, by the options `id`, `content`, … and `set`."""
    settings = {
        "input.path": source,
        "input.id": options.id,
        "input.content": options.content,
        "input.modality": options.modality,
        "model.name": options.model,
        "output.path": out,
    }
    given = [f"{key}={value}" for key, value in settings.items()] + options.set
    sets = [part for each in given for part in ("--set", each)]
    return [python, str(tree / "jobs/embed.py"), *sets]


def descendants(root: int) -> Iterator[tuple[int, str, bool]]:
    """(process id, program, whether it descends from a Java process) of `root` and all below."""
    names: dict[int, str] = {}
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text("utf-8", "replace")
        except OSError:  # it has just ended
            continue
        pid = int(folder.name)
        # The name stands in brackets and may hold anything.
        names[pid] = stat[stat.index("(") + 1 : stat.rindex(")")]
        children.setdefault(int(stat[stat.rindex(")") + 2 :].split()[1]), []).append(pid)
    todo = [(root, False)]
    while todo:
        pid, below_java = todo.pop()
        name = names.get(pid, "")
        yield pid, name, below_java
        below = below_java or name == "java"
        todo += [(child, below) for child in children.get(pid, [])]


def resident(pid: int) -> float:
    """MiB of a process's resident memory; 0 of one that has ended."""
    return _bytes(_status(pid), "VmRSS") / _MIB


def _status(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except OSError:
        return {}
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _bytes(status: Mapping[str, str], key: str) -> int:
    return int(status.get(key, "0").split()[0]) * 1024


def instruction_sets() -> list[str]:
    """What the processor has of the instructions that matrix products are made of."""
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("flags"):
            return [name for name in _INSTRUCTIONS if name in line.split()]
    return []


def machine() -> dict[str, str | int | float]:
    """The machine's processor, cores, memory, and how busy it was in the last minute."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
    }


def middle(values: Iterable[float | None]) -> float | None:
    """The median of those values that there are; None if there is none."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def formatted(head: Sequence[str], rows: Iterable[Sequence[str | float | None]]) -> str:
    """A table as text: the first column to the left, the others to the right."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        first, *rest = (
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.2f}"
