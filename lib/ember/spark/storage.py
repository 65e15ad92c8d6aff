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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from ember.errors import InvalidInput
from ember.spark import classic, java_names
from ember.spark.classic import Py4JJavaError
from ember.spark.explain import cause
from ember.spark.paths import check as check_path
from ember.spark.paths import is_glob

__all__ = ["Storage"]

_AT_FDCWD = -100
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
# Schemes of stores that know objects by their names, and no folders.
_FLAT = {"s3a", "s3", "s3n", "gs", "wasb", "wasbs", "oss", "cosn"}
_RENAMES = 16
_HIDDEN = re.compile(r"/[_.][^/=]*(?:/|$)")  # a column of partitions may be named _x=…


class Storage:
    """The file systems of one Spark session. Paths are strings; any URI that Spark takes."""

    def __init__(self, spark: SparkSession) -> None:
        self._jvm: Any = classic.jvm(spark)
        self._conf: Any = classic.hadoop_configuration(spark)
        # Once: Java is asked for each part of a class's name.
        hadoop = self._jvm.org.apache.hadoop.fs
        self._path, self._glob = hadoop.Path, hadoop.GlobPattern

    def _open(self, path: str) -> tuple[Any, Any]:
        check_path(path)
        hadoop_path = self._path(path)
        system = hadoop_path.getFileSystem(self._conf)
        if not path.isascii() and system.getScheme() == "file":
            self._check_letters(path)
        return system, hadoop_path

    def _check_letters(self, path: str) -> None:
        """Raise InvalidInput where Java, in the locale it was started in, has no such letters."""
        encoding = java_names.encoding_of(self._jvm)
        try:
            path.encode(encoding)
        except UnicodeEncodeError:
            raise InvalidInput(
                f"Java names files in {encoding} here and cannot name {path}; {java_names.CURE}"
            ) from None

    def check_names(self, path: str) -> None:
        """Raise InvalidInput where Java would leave files out of the table at `path`, or of a glob.

        Of this machine's own file systems; see `java_names`.
        """
        root, levels = path, []
        if is_glob(path) and not self.exists(path):
            if "{" in path:  # may hold slashes
                return
            parts = path.split("/")
            first = next(number for number, part in enumerate(parts) if is_glob(part))
            root = "/".join([*parts[:first], ""]) or "."
            try:
                levels = [self._glob(part).matches for part in parts[first:] if part]
            except Py4JJavaError:  # no glob either, as reading it will say
                return
        if (local := self.local(root)) is not None:
            java_names.check_files(local, levels, java_names.encoding_of(self._jvm))

    def qualify(self, path: str) -> str:
        """The absolute URI of `path`, with its scheme."""
        system, hadoop_path = self._open(path)
        return str(system.makeQualified(hadoop_path).toString())

    def sibling(self, path: str, name: str) -> str:
        """The path of `name` in the folder that holds `path`."""
        parent = self._path(self.qualify(path)).getParent()
        return f"{str(parent.toString()).rstrip('/')}/{name}"

    def parents(self, path: str) -> Iterator[str]:
        """The folders above `path`, the nearest first, up to the root."""
        above = self._path(self.resolve(path)).getParent()
        while above is not None:
            yield str(above.toString())
            above = above.getParent()

    def name(self, path: str) -> str:
        """The last part of `path`."""
        return str(self._path(self.qualify(path)).getName())

    def resolve(self, path: str) -> str:
        """`qualify`, with the links of this machine's own file system followed."""
        local = self.local(path)
        return self.qualify(path) if local is None else f"file:{Path(local).resolve()}"

    def is_file(self, path: str) -> bool:
        system, hadoop_path = self._open(path)
        return bool(system.exists(hadoop_path) and system.getFileStatus(hadoop_path).isFile())

    def is_home(self, path: str) -> bool:
        """Is this the user's home folder on its file system?"""
        system, _ = self._open(path)
        homes = [str(system.getHomeDirectory().toString())]
        if self.local(path) is not None:
            homes.append(str(Path.home()))
        return self.resolve(path) in map(self.resolve, homes)

    def is_mount(self, path: str) -> bool:
        """Is this a mount point of this machine, which nothing can be renamed to?"""
        local = self.local(path)
        return local is not None and Path(local).is_mount()

    def dangling_link(self, path: str) -> str | None:
        """Where a link of this machine leads when nothing is there; None for anything else."""
        local = self.local(path)
        if local is None or not Path(local).is_symlink() or Path(local).exists():
            return None
        return str(Path(local).readlink())

    def file_above(self, path: str) -> str | None:
        """The file, if there is one, where `path` needs a folder above it."""
        system, hadoop_path = self._open(path)
        above = system.makeQualified(hadoop_path).getParent()
        while above is not None and not system.exists(above):
            above = above.getParent()
        if above is None or system.getFileStatus(above).isDirectory():
            return None
        return str(above.toString())

    def exists(self, path: str) -> bool:
        system, hadoop_path = self._open(path)
        return bool(system.exists(hadoop_path))

    def delete(self, path: str) -> None:
        """Delete a file or a folder with all it holds; nothing happens where there is none."""
        system, hadoop_path = self._open(path)
        system.delete(hadoop_path, True)

    def delete_empty(self, folder: str) -> None:
        """Delete a folder in which nothing is; nothing happens where there is anything."""
        system, hadoop_path = self._open(folder)
        with suppress(Py4JJavaError):  # how Hadoop says that it is not empty
            system.delete(hadoop_path, False)

    def make_folder(self, path: str) -> None:
        system, hadoop_path = self._open(path)
        system.mkdirs(hadoop_path)

    def rename(self, source: str, target: str) -> None:
        """Rename a file or a folder. Raises OSError when that fails or `target` is there.

        Hadoop would move a folder into one that is there. Of this machine's own files it makes a
        copy where they cannot be renamed, as of a mount point, and deletes what it copied.
        """
        one, other = self.local(source), self.local(target)
        if _renameat2(one, other, _RENAME_NOREPLACE):
            return
        system, hadoop_source = self._open(source)
        _, hadoop_target = self._open(target)
        if not system.exists(hadoop_source):
            raise FileNotFoundError(f"there is nothing at {source} to rename")
        if system.exists(hadoop_target):
            raise FileExistsError(f"{target} is in the way of {source}")
        if one is not None and other is not None:
            Path(one).rename(other)
            return
        if not system.rename(hadoop_source, hadoop_target):
            raise OSError(f"could not rename {source} to {target}")

    def rename_all(self, moves: Sequence[tuple[str, str]]) -> None:
        """Rename files side by side: an object store copies each, and takes a while for it."""
        if not moves:
            return
        with ThreadPoolExecutor(_RENAMES) as pool:
            for done in [pool.submit(self.rename, *each) for each in moves]:
                done.result()

    def moves_folders(self, path: str) -> bool:
        """Is a folder renamed in one step where `path` lies? Object stores have only their names.

        As Azure's `abfs:` does with its hierarchical namespace, which it is meant for.
        """
        return self.qualify(path).partition(":")[0].lower() not in _FLAT

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
        files = []
        for status in self._found(path):
            root = str(status.getPath().toString())
            for place, each in self._inside(root):
                if not _HIDDEN.search(place, len(root)):
                    files.append((place, int(each.getLen()), int(each.getModificationTime())))
        return sorted(files)

    def below(self, folder: str) -> Iterator[tuple[str, int]]:
        """The files in `folder`, however deep, as they come: paths from there, and bytes.

        None where there is no such folder; without the checksums that Hadoop keeps of local files.
        """
        system, hadoop_path = self._open(folder)
        if not system.exists(hadoop_path):
            return
        root = str(system.getFileStatus(hadoop_path).getPath().toString())
        for place, each in self._inside(root):
            yield place[len(root) :].lstrip("/"), int(each.getLen())

    def _inside(self, root: str) -> Iterator[tuple[str, Any]]:
        """Path and status of a file, or of all files in a folder, however deep."""
        system, hadoop_path = self._open(root)
        inside = system.listFiles(hadoop_path, True)
        while inside.hasNext():
            each = inside.next()
            yield str(each.getPath().toString()), each

    def size(self, folder: str) -> tuple[int, int]:
        """How many files there are in a folder, however deep, and their bytes, in one call."""
        system, hadoop_path = self._open(folder)
        if not system.exists(hadoop_path):
            return 0, 0
        summary = system.getContentSummary(hadoop_path)
        return int(summary.getFileCount()), int(summary.getLength())

    def matches(self, path: str) -> bool:
        """Is there anything at `path`, which may be a glob?"""
        return bool(self._found(path))

    def found(self, path: str) -> list[str]:
        """What is at `path`, which may be a glob."""
        return [str(each.getPath().toString()) for each in self._found(path)]

    def is_named(self, pattern: str, path: str) -> bool:
        """Does the glob name `path`, or a folder that it lies in, once that is there?"""
        patterns, names = self.qualify(pattern).split("/"), self.qualify(path).split("/")
        return len(patterns) <= len(names) and all(
            one == other or self._glob(one).matches(other)
            for one, other in zip(patterns, names, strict=False)
        )

    def _found(self, path: str) -> list[Any]:
        system, hadoop_path = self._open(path)
        if system.exists(hadoop_path):
            return [system.getFileStatus(hadoop_path)]
        try:
            return list(system.globStatus(hadoop_path) or [])
        except Py4JJavaError as error:
            if "Illegal file pattern" in str(error):  # brackets of a name, and nothing is there
                return []
            raise

    def fingerprint(self, paths: Iterable[str]) -> str:
        """A hash of the files' paths, sizes and times of modification."""
        digest = hashlib.sha256()
        for path in sorted(paths):
            size, modified = self.stamp(path)
            digest.update(f"{path}\n{size}\n{modified}\n".encode())
        return digest.hexdigest()

    def stamp(self, path: str) -> tuple[int, int]:
        """A file's size in bytes, and when it was modified, in milliseconds since 1970."""
        system, hadoop_path = self._open(path)
        status = system.getFileStatus(hadoop_path)
        return int(status.getLen()), int(status.getModificationTime())

    def read_text(self, path: str) -> str:
        system, hadoop_path = self._open(path)
        stream = system.open(hadoop_path)
        try:
            return bytes(stream.readAllBytes()).decode("utf-8")
        finally:
            stream.close()

    def read_end(self, path: str, size: int, length: int) -> bytes:
        """The last `length` bytes of a file of `size` bytes; all of it where it is shorter."""
        system, hadoop_path = self._open(path)
        stream = system.open(hadoop_path)
        try:
            stream.seek(max(0, size - length))
            return bytes(stream.readNBytes(length))
        finally:
            stream.close()

    def write_text(self, path: str, text: str) -> None:
        """Write a file in one go, replacing one that is there. Raises OSError."""
        system, hadoop_path = self._open(path)
        with _named(path):
            stream = system.create(hadoop_path, True)
            try:
                stream.write(bytearray(text.encode("utf-8")))
            finally:
                stream.close()

    def replace_text(self, path: str, text: str, aside: str) -> bool:
        """Replace a file by a text in one step; False, and nothing done, where that cannot be.

        aside: where this machine's file system may have the text before. Raises OSError.
        """
        if not self.moves_folders(path):  # an object is there whole, or not at all
            self.write_text(path, text)
            return True
        here, new = self.local(path), self.local(aside)
        if here is None or new is None:
            return False
        Path(new).write_text(text, "utf-8")
        # The checksum of the old text, which Hadoop would hold the new one against.
        Path(here).with_name(f".{Path(here).name}.crc").unlink(missing_ok=True)
        Path(new).replace(here)
        return True

    def upload(self, local: str, path: str) -> None:
        """Copy a file or folder of this machine to `path`, replacing a file that is there.

        Raises:
            OSError: it cannot be written.
        """
        system, hadoop_path = self._open(path)
        source = self._path(f"file://{Path(local).absolute()}")
        with _named(path):
            system.copyFromLocalFile(False, True, source, hadoop_path)

    def download(self, path: str, local: str) -> None:
        """Copy a file or folder to this machine. Raises OSError when it cannot be read."""
        system, hadoop_path = self._open(path)
        target = self._path(f"file://{Path(local).absolute()}")
        try:
            system.copyToLocalFile(False, hadoop_path, target, True)
        except Exception as error:
            raise OSError(f"cannot copy {path}: {str(error).splitlines()[0]}") from error

    def exchange(self, one: str, other: str) -> bool:
        """Exchange two folders in one step; False, and nothing done, where that cannot be."""
        return _renameat2(self.local(one), self.local(other), _RENAME_EXCHANGE)

    def local(self, path: str) -> str | None:
        """The path on this machine of what is on its own file system; None of all else."""
        uri = self.qualify(path)
        return f"/{uri.removeprefix('file:').lstrip('/')}" if uri.startswith("file:") else None


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn an exception of Java, which seldom says what file it is about, into one that does."""
    try:
        yield
    except Py4JJavaError as error:
        raise OSError(None, cause(error), path) from error


def _renameat2(one: str | None, other: str | None, flag: int) -> bool:
    """Rename by the system call of Linux; False where it cannot (see renameat2(2))."""
    if one is None or other is None:
        return False
    libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    old, new = os.fsencode(one), os.fsencode(other)
    return bool(libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, flag) == 0)
