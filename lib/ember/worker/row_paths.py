"""Files that rows name: read only where the configuration lets them, and within a row's bytes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ember.worker.rows import RowError, to_text, too_many_bytes

__all__ = ["UNKNOWN", "PathRules", "content_of"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # longer than a drive's letter
_CLIMBS = re.compile(r"(^|[/\\])\.\.($|[/\\])")
# Names of one store, in Hadoop and in fsspec.
_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfss": "abfs"}
# Of a path or URI; the time to resolve one grows with the square of its parts.
_LONGEST = 4096
UNKNOWN = "-" * 64
"""What stands in the place of a file's hash where the file could not be read."""


@dataclass(frozen=True)
class PathRules:
    """Where rows may read: folders of this machine, and URIs with all that lies under them.

    roots: absolute paths, file: URIs, or URIs of a scheme that fsspec serves. A relative path of a
    row is taken from the first of them. hashed: what a row says is the SHA-256 that its file had a
    while ago, in hex or `UNKNOWN`, a space, and then the path.
    """

    roots: tuple[str, ...]
    hashed: bool = False

    def read(self, raw: bytes | None, max_bytes: int) -> bytes:
        """The bytes of the regular file that a row names, by path, file: URI or URI.

        Links and `..` are followed before the path is compared with the roots. Raises RowError:
        "path not allowed" outside of the roots and for chains of file systems, "too many bytes"
        without reading them, "file not found", "unreadable file"; "changed during the run" where
        the file is not the one whose hash is given.
        """
        if raw is None or not self.hashed:
            return self._read(to_text(raw), max_bytes)
        was, _, path = raw.partition(b" ")
        uri = to_text(path)
        content = self._read(uri, max_bytes)
        if hashlib.sha256(content).hexdigest().encode() != was:
            raise RowError("changed during the run", uri)
        return content

    def _read(self, uri: str, max_bytes: int) -> bytes:
        if len(uri) > _LONGEST:
            raise RowError("path not allowed", f"{len(uri)} characters: {uri[:100]}")
        scheme = _scheme(uri)
        try:
            if scheme is None and not Path(uri).is_absolute() and _scheme(self.roots[0]):
                uri = f"{self.roots[0].rstrip('/')}/{uri}"
                scheme = _scheme(uri)
            if scheme in (None, "file"):
                return _read_local(self._local(uri, scheme), uri, max_bytes)
            self._check_remote(uri)
            return _read_remote(uri, max_bytes)
        except RowError:
            raise
        except FileNotFoundError:
            raise RowError("file not found", uri) from None
        except Exception as error:  # every file system has errors of its own
            raise RowError("unreadable file", f"{uri}: {error}") from error

    def _local(self, uri: str, scheme: str | None) -> Path:
        """The resolved path, which lies under a root."""
        folders = [each for each in map(_folder, self.roots) if each]
        paths = [uri]
        if scheme:
            # Spark's own path columns come unencoded, Java's and Python's URIs encoded.
            paths = [re.sub(r"^file:(//[^/]*)?", "", uri), unquote(urlsplit(uri).path)]
        inside = [
            real
            for path in paths
            for folder in folders
            if (real := Path(folder, path).resolve()) != folder and real.is_relative_to(folder)
        ]
        if not inside:
            raise self._refused(uri)
        return next((real for real in inside if real.exists()), inside[-1])

    def _check_remote(self, uri: str) -> None:
        """Raise RowError for a URI that no root holds, before anything is asked of its host."""
        if "::" in uri:
            raise RowError("path not allowed", f"a chain of file systems: {uri}")
        given = urlsplit(uri)
        if not _CLIMBS.search(given.path) and not _CLIMBS.search(unquote(given.path)):
            for root in filter(_scheme, self.roots):
                held = urlsplit(root)
                user, _, host = given.netloc.rpartition("@")
                owner, _, place = held.netloc.rpartition("@")
                if (
                    _alias(given.scheme) == _alias(held.scheme)
                    and user in ("", owner)
                    and (host == place or not place)
                    and f"{given.path}/".startswith(f"{held.path.rstrip('/')}/")
                ):
                    return
        raise self._refused(uri)

    def _refused(self, uri: str) -> RowError:
        return RowError(
            "path not allowed", f"set `root` where rows may read; it is {self.roots[0]}: {uri}"
        )


def content_of(raw: bytes | None, paths: PathRules | None, max_bytes: int) -> bytes | None:
    """A row's content: its own bytes, or with `paths` those of the file that it names.

    Raises RowError "too many bytes" for more than `max_bytes`, and as PathRules.read does.
    """
    if paths:
        return paths.read(raw, max_bytes)
    if raw is not None and len(raw) > max_bytes:
        raise too_many_bytes(len(raw), max_bytes)
    return raw


def _scheme(uri: str) -> str | None:
    found = _SCHEME.match(uri)
    return found[1].lower() if found else None


def _alias(scheme: str) -> str:
    return _ALIASES.get(scheme.lower(), scheme.lower())


@lru_cache(maxsize=64)
def _folder(root: str) -> Path | None:
    """The resolved folder of a root; None for one that is elsewhere."""
    if _scheme(root) not in (None, "file"):
        return None
    return Path(re.sub(r"^file:(//[^/]*)?", "", root) or "/").resolve()


def _read_local(path: Path, uri: str, max_bytes: int) -> bytes:
    _check_file(path.stat(), uri, max_bytes)
    # Should it be another file by now: no waiting for a writer, no link.
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(opened, "rb") as stream:
        _check_file(os.fstat(opened), uri, max_bytes)
        return _bounded(stream.read(max_bytes + 1), max_bytes)


def _check_file(status: os.stat_result, uri: str, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RowError("unreadable file", f"not a regular file: {uri}")
    if status.st_size > max_bytes:
        raise too_many_bytes(status.st_size, max_bytes)


def _read_remote(uri: str, max_bytes: int) -> bytes:
    import fsspec  # only corpora of remote paths need it

    with fsspec.open(uri, "rb", compression=None) as stream:
        return _bounded(b"".join(_pieces(stream, max_bytes + 1)), max_bytes)


def _pieces(stream: Any, wanted: int) -> Iterator[bytes]:
    """At most `wanted` bytes; a stream may give fewer at a time than it is asked for."""
    while wanted > 0 and (piece := stream.read(min(wanted, 1 << 20))):
        wanted -= len(piece)
        yield piece


def _bounded(content: bytes, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise too_many_bytes(None, max_bytes)
    return content
