"""Files and folders wherever Spark can reach them, through Hadoop's own file systems.

What Spark reads and writes (file:, hdfs:, s3a:, gs:, abfss: …) is reached with the same classes
and credentials; a second library for paths would need its own.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

__all__ = ["Storage"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_HIDDEN = re.compile(r"/[_.][^/=]*(?:/|$)")  # a column of partitions may be named _x=…


class Storage:
    """The file systems of one Spark session. Paths are strings; any URI that Spark takes."""

    def __init__(self, spark: SparkSession) -> None:
        self._jvm: Any = spark._jvm
        self._conf: Any = spark._jsc.hadoopConfiguration()

    def _open(self, path: str) -> tuple[Any, Any]:
        hadoop_path = self._jvm.org.apache.hadoop.fs.Path(path)
        return hadoop_path.getFileSystem(self._conf), hadoop_path

    def qualify(self, path: str) -> str:
        """The absolute URI of `path`, with its scheme."""
        system, hadoop_path = self._open(path)
        return str(system.makeQualified(hadoop_path).toString())

    def sibling(self, path: str, name: str) -> str:
        """The path of `name` in the folder that holds `path`."""
        parent = self._jvm.org.apache.hadoop.fs.Path(self.qualify(path)).getParent()
        return f"{str(parent.toString()).rstrip('/')}/{name}"

    def name(self, path: str) -> str:
        """The last part of `path`."""
        return str(self._jvm.org.apache.hadoop.fs.Path(self.qualify(path)).getName())

    def exists(self, path: str) -> bool:
        system, hadoop_path = self._open(path)
        return bool(system.exists(hadoop_path))

    def delete(self, path: str) -> None:
        """Delete a file or a folder with all it holds; nothing happens where there is none."""
        system, hadoop_path = self._open(path)
        system.delete(hadoop_path, True)

    def make_folder(self, path: str) -> None:
        system, hadoop_path = self._open(path)
        system.mkdirs(hadoop_path)

    def rename(self, source: str, target: str) -> None:
        """Rename a file or a folder. Raises OSError when the file system refuses."""
        system, hadoop_source = self._open(source)
        _, hadoop_target = self._open(target)
        if not system.rename(hadoop_source, hadoop_target):
            raise OSError(f"could not rename {source} to {target}")

    def files(self, folder: str) -> list[str]:
        """Paths of the files right in `folder`, sorted; none where there is no such folder."""
        return [path for path, is_folder in self._list(folder) if not is_folder]

    def folders(self, folder: str) -> list[str]:
        """Paths of the folders right in `folder`, sorted."""
        return [path for path, is_folder in self._list(folder) if is_folder]

    def _list(self, folder: str) -> list[tuple[str, bool]]:
        system, hadoop_path = self._open(folder)
        if not system.exists(hadoop_path):
            return []
        entries = system.listStatus(hadoop_path)
        return sorted(
            (str(each.getPath().toString()), bool(each.isDirectory())) for each in entries
        )

    def listing(self, path: str) -> list[tuple[str, int, int]]:
        """The files at or under `path`, which may be a glob: URI, bytes, milliseconds of change.

        Sorted; what has a name that begins with _ or ., or lies in a folder with such a name, is
        left out, as Spark does when it reads a table.
        """
        system, _ = self._open(path)
        files = []
        for status in self._found(path):
            root = str(status.getPath().toString())
            inside = system.listFiles(status.getPath(), True)  # of a file: the file itself
            while inside.hasNext():
                each = inside.next()
                place = str(each.getPath().toString())
                if not _HIDDEN.search(place, len(root)):
                    files.append((place, int(each.getLen()), int(each.getModificationTime())))
        return sorted(files)

    def matches(self, path: str) -> bool:
        """Is there anything at `path`, which may be a glob?"""
        return bool(self._found(path))

    def _found(self, path: str) -> list[Any]:
        system, hadoop_path = self._open(path)
        if system.exists(hadoop_path):
            return [system.getFileStatus(hadoop_path)]
        return list(system.globStatus(hadoop_path) or [])

    def fingerprint(self, paths: Iterable[str]) -> str:
        """A hash of the files' paths, sizes and times of modification."""
        digest = hashlib.sha256()
        for path in sorted(paths):
            system, hadoop_path = self._open(path)
            status = system.getFileStatus(hadoop_path)
            digest.update(f"{path}\n{status.getLen()}\n{status.getModificationTime()}\n".encode())
        return digest.hexdigest()

    def read_text(self, path: str) -> str:
        system, hadoop_path = self._open(path)
        stream = system.open(hadoop_path)
        try:
            return bytes(stream.readAllBytes()).decode("utf-8")
        finally:
            stream.close()

    def write_text(self, path: str, text: str) -> None:
        """Write a file in one go, replacing one that is there."""
        system, hadoop_path = self._open(path)
        stream = system.create(hadoop_path, True)
        try:
            stream.write(bytearray(text.encode("utf-8")))
        finally:
            stream.close()

    def upload(self, local: str, path: str) -> None:
        """Copy a file or folder of this machine to `path`, replacing a file that is there."""
        system, hadoop_path = self._open(path)
        source = self._jvm.org.apache.hadoop.fs.Path(f"file://{Path(local).absolute()}")
        system.copyFromLocalFile(False, True, source, hadoop_path)

    def download(self, path: str, local: str) -> None:
        """Copy a file or folder to this machine. Raises OSError when it cannot be read."""
        system, hadoop_path = self._open(path)
        target = self._jvm.org.apache.hadoop.fs.Path(f"file://{Path(local).absolute()}")
        try:
            system.copyToLocalFile(False, hadoop_path, target, True)
        except Exception as error:
            raise OSError(f"cannot copy {path}: {str(error).splitlines()[0]}") from error

    def publish(self, staged: str, target: str) -> None:
        """Put the folder `staged` in the place of `target`, which may exist.

        On a local Linux file system the two are exchanged in one system call. Elsewhere the old
        folder is set aside, the new one renamed, and the old one put back should that fail: a
        reader in between finds no table, never half of one. `recover` mends a kill in between.
        """
        if not self.exists(target):
            self.make_folder(self.sibling(target, ""))
            self.rename(staged, target)
            return
        if not _exchange(self.qualify(staged), self.qualify(target)):
            aside = self._aside(target)
            self.delete(aside)
            self.rename(target, aside)
            try:
                self.rename(staged, target)
            except Exception:
                self.rename(aside, target)
                raise
            self.delete(aside)
        self.delete(staged)  # after an exchange it holds the old table

    def recover(self, target: str) -> None:
        """Put back a table that a killed run had set aside and not replaced."""
        aside = self._aside(target)
        if self.exists(aside):
            if self.exists(target):
                self.delete(aside)
            else:
                self.rename(aside, target)

    def _aside(self, target: str) -> str:
        return self.sibling(target, f".{self.name(target)}.replaced")


def _exchange(one: str, other: str) -> bool:
    """Exchange two local folders atomically; False where the system cannot (see renameat2(2))."""
    paths = [uri.removeprefix("file:") for uri in (one, other)]
    if paths[0] == one or paths[1] == other:
        return False  # not both local
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    old, new = (os.fsencode("/" + path.lstrip("/")) for path in paths)
    return bool(libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_EXCHANGE) == 0)
