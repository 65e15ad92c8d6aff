"""All that the rules look at: plain values, so that a test can make up any cluster."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ember.worker.machine import Machine
from ember.worker.spec import Precision, Runtime

__all__ = ["GIB", "MIB", "Facts", "Finding", "Need", "Place", "Rows", "Severity", "named", "shown"]

Severity = Literal["error", "warning", "note"]
MIB, GIB = 2**20, 2**30
_UNITS = {"b": 1, "k": 2**10, "m": MIB, "g": GIB, "t": 2**40, "p": 2**50}
_NAMED = 4


@dataclass(frozen=True)
class Finding:
    """What is noteworthy.

    severity: "error" for what will go wrong, "warning" for what may, "note" for what is good to
    know. check: names the rule. where: the driver, the executors or the place. change: the setting
    to change, or what else is to be done; "" where nothing is.
    """

    severity: Severity
    check: str
    where: str
    what: str
    change: str = ""


@dataclass(frozen=True)
class Need:
    """What the model of a run asks of a worker.

    weights: bytes of the model's files; None where they are not on the driver's machine.
    """

    name: str
    runtime: Runtime
    precision: Precision
    weights: int | None


@dataclass(frozen=True)
class Place:
    """Something that jobs are to read or write.

    problem: why that cannot be, "" if it can. change: what to do about it. unseen: hosts of a
    cluster that do not have it under this name, and why.
    """

    path: str
    use: Literal["read", "write"]
    problem: str = ""
    change: str = ""
    unseen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """The largest rows of the inputs. at_once: how many fit in a batch; told: what they are."""

    at_once: int
    told: str


@dataclass(frozen=True)
class Facts:
    """What was found of a cluster.

    settings: Spark's own, by key. java, hadoop: versions on the driver. java_encoding: in which the
    driver's Java names files. executors: one for each Java process whose tasks answered. known: how
    many executors Spark has. slots: tasks that they can run at once, all together. silent: why no
    task answered; "" where one did. skews: by executor, seconds by which its clock is certainly off
    that of the driver (ahead if positive).
    """

    master: str
    settings: Mapping[str, str]
    spark: str
    java: str
    hadoop: str
    java_encoding: str
    driver: Machine
    executors: Sequence[Machine]
    known: int
    slots: int
    required: Sequence[str] = ()
    silent: str = ""
    skews: Sequence[float] = ()
    places: Sequence[Place] = ()
    rows: Rows | None = None
    need: Need | None = None

    @property
    def local(self) -> bool:
        """Do tasks run on the driver's machine, in its Java process?"""
        return self.master.startswith("local") and not self.master.startswith("local-cluster")

    @property
    def manager(self) -> Literal["local", "standalone", "yarn", "kubernetes"]:
        if self.local:
            return "local"
        if self.master.startswith("yarn"):
            return "yarn"
        return "kubernetes" if self.master.startswith("k8s") else "standalone"

    @property
    def machines(self) -> list[Machine]:
        return [self.driver, *self.executors]

    @property
    def by_host(self) -> Counter[str]:
        """How many executors each host has."""
        return Counter(each["host"] for each in self.executors)

    @property
    def executor_cores(self) -> int | None:
        """Cores of an executor; None where Spark's settings leave it to the machines."""
        given = self.settings.get("spark.executor.cores")
        if given is None and self.master.startswith("local-cluster"):
            given = re.split(r"[\[\],]\s*", self.master)[2]
        if given is None and self.manager in ("yarn", "kubernetes"):
            given = "1"
        return int(given) if given else None

    @property
    def tasks_at_once(self) -> int:
        """Tasks that an executor runs at once; in local mode, the driver."""
        cpus = int(self.settings.get("spark.task.cpus", "1"))
        cores = None if self.local else self.executor_cores
        of_all = -(-self.slots // max(1, len(self.executors)))
        return max(1, of_all if cores is None else cores // cpus)

    def size(self, key: str, default: str) -> int:
        """A setting in bytes; a bare number is one of mebibytes."""
        return size(self.settings.get(key, default), "m")


def size(text: str, unit: str = "b") -> int:
    """Bytes of a size as Spark writes it, such as 64m or 8GB; 0 where it is none.

    >>> size("2g"), size("384", "m"), size("16 kb")
    (2147483648, 402653184, 16384)
    """
    found = re.fullmatch(r"(\d+)\s*([bkmgtp])?b?", text.strip().lower())
    return int(found[1]) * _UNITS[found[2] or unit] if found else 0


def shown(size: float) -> str:
    """A size in words.

    >>> shown(3 * 2**30), shown(400 * 2**20)
    ('3.0 GiB', '400 MiB')
    """
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"


def named(machines: Iterable[Machine], facts: Facts) -> str:
    """Which machines these are: "driver", "executors", or executors by id and host."""
    found = list(machines)
    own = [each for each in found if each is not facts.driver]
    driver = "driver" if len(own) < len(found) else ""
    if facts.local:
        others = "workers" if own else ""
    elif own and len(own) == len(facts.executors):
        others = "executors" if len(own) > 1 else "executor"
    else:
        ids = [f"{each['executor'] or each['process']} on {each['host']}" for each in own]
        more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
        others = f"executors {', '.join(ids[:_NAMED])}{more}" if ids else ""
    return ", ".join(filter(None, [driver, others]))
