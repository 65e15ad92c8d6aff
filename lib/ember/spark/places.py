"""Where a run may write: apart from all that is read, and never over what Ember did not write.

`check_apart` compares places, whatever their spelling: links are followed, `..` and schemes that
mean one store are resolved, and folders of this machine are also compared by their inodes. It goes
by `collisions` and `harms`, which tell all problems of what `written` has placed.
`check_target` looks at what is at an output already.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ember.errors import InvalidInput
from ember.settings.config import Config
from ember.settings.files import local_files, roots, sources, targets
from ember.spark import contents, paths
from ember.spark.classic import Py4JError
from ember.spark.contents import MANIFEST
from ember.spark.staged_files import read_manifest
from ember.spark.storage import Storage

__all__ = [
    "Written",
    "beside",
    "check_apart",
    "check_config",
    "check_target",
    "collisions",
    "harms",
    "is_ours",
    "overlap",
    "place",
    "written",
]

# Schemes under which one store goes by several names.
_ALIASES = {"s3": "s3a", "s3n": "s3a", "wasb": "abfs", "wasbs": "abfs", "abfss": "abfs"}
_ALIASES |= {"gcs": "gs"}
TABLE = "table"
_ADVICE = "give another output.path"
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Place:
    """A file or folder, there or not. lineage: keys of it and of all folders that it lies in."""

    own: frozenset[Key]
    lineage: frozenset[Key]

    def within(self, other: Place) -> bool:
        """Is this the other place, or does it lie in it?"""
        return bool(other.own & self.lineage)


@dataclass(frozen=True)
class Written:
    """What a run writes. key: of the configuration. words: what it is; of the output, the key."""

    key: str
    words: str
    path: str
    place: Place


def check_config(storage: Storage, config: Config, **more: str) -> None:
    """`check_apart` for all that a job's configuration names. more: what it writes by default."""
    reads = {**sources(config), **local_files(config)}
    check_apart(storage, {**targets(config), **more}, reads, roots(config))


def check_apart(
    storage: Storage,
    writes: Mapping[str, str],
    reads: Mapping[str, Sequence[str]],
    may_read: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Raise InvalidInput unless every output lies apart from every input and other output.

    writes, reads: paths by the key of the configuration, or the words, that name them. What is kept
    beside an output (see `beside`) counts as written, too. may_read: see `harms`.
    """
    outputs = written(storage, writes)
    problems = chain(collisions(outputs), harms(storage, outputs, reads, may_read or {}))
    if problem := next(problems, None):
        raise InvalidInput(problem)


def written(storage: Storage, writes: Mapping[str, str]) -> list[Written]:
    """Outputs by key, and what is kept beside them, each with its place.

    Raises:
        InvalidInput: what can be no output.
    """
    for path in writes.values():
        paths.check(path)
    return [
        Written(key, words, path, place(storage, path))
        for key, given in writes.items()
        for words, path in [(key, given), *beside(storage, key, given)]
    ]


def collisions(outputs: Sequence[Written]) -> Iterator[str]:
    """One problem for each two keys whose outputs are one place, or lie in one another."""
    told = set()
    for number, one in enumerate(outputs):
        for other in outputs[:number]:
            if (one.key, other.key) in told or not (how := overlap(one.place, other.place)):
                continue
            told.add((one.key, other.key))
            yield (
                f"{one.words} ({one.path}) {how} {other.words} ({other.path}), and they would "
                "replace each other; give them folders side by side"
            )


def harms(
    storage: Storage,
    outputs: Sequence[Written],
    reads: Mapping[str, Sequence[str]],
    may_read: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    """One problem for each output that would change what is read, a path or a glob.

    may_read: folders under which rows may name files. An output must neither be nor hold one. It
    may lie in one, as it does beside its input, which is where rows may read by default: what is
    replaced there is an output of Ember's with no file of anybody else in it.
    """
    advice = "what is read must lie apart from what is written: give another output.path"
    for key, read in _each(reads):
        places, is_glob = _places(storage, read)
        for each in outputs:
            hits = (overlap(each.place, there) for there in places)
            how = next(filter(None, hits), None)
            if how is None and is_glob and _is_named(storage, read, each.path):
                how = "would be read by"
            if how:
                yield f"{each.words} ({each.path}) {how} {key} ({read}); {advice}"
    for key, root in _each(may_read):
        there = _place_of(root if _is_elsewhere(root) else storage.resolve(root))
        for each in outputs:
            if (how := overlap(each.place, there)) in ("is", "holds"):
                yield f"{each.words} ({each.path}) {how} {key} ({root}); {advice}"


def _each(named: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    for key, given in named.items():
        for path in given:
            paths.check(path)
            yield key, path


def beside(storage: Storage, key: str, path: str) -> Iterator[tuple[str, str]]:
    """What is kept beside an output: words that name it, and its path."""
    if not storage.name(path):
        raise InvalidInput(f"{key} is {path}, a root; give a folder of its own for the output")
    for name, words in _BESIDE.items():
        own = name.format(storage.name(path))
        yield f"{words} of {key}", storage.sibling(path, own)


_BESIDE = {
    "{}.failures": "the failed rows",
    "{}.rejected": "the rejected rows",
    ".{}.staging": "the staged rows",
}


def overlap(one: Place, other: Place) -> str | None:
    """How two places share files, in words; None where they do not."""
    if one.within(other):
        return "is" if other.within(one) else "lies in"
    return "holds" if other.within(one) else None


def _places(storage: Storage, read: str) -> tuple[list[Place], bool]:
    """The places of what is read at a path or a glob, and whether it is a glob."""
    if storage.exists(read):
        return [place(storage, read)], False
    try:
        return [place(storage, each) for each in storage.found(read)], True
    except Py4JError:  # no glob either, as reading it will say
        return [], False


def _is_named(storage: Storage, glob: str, path: str) -> bool:
    try:
        return storage.is_named(glob, path)
    except Py4JError:
        return False


def _is_elsewhere(root: str) -> bool:
    """Is this on another machine? Hadoop need not know what executors read by fsspec."""
    return bool(re.match(r"(?!file:)[A-Za-z][\w+.-]+:", root))


def place(storage: Storage, path: str) -> Place:
    """The place that a path names, whether anything is there or not."""
    return _place_of(storage.resolve(path))


def _place_of(uri: str) -> Place:
    store, inner = _store(uri)
    parts = [part for part in inner.split("/") if part]
    own: list[Key] = []
    lineage: list[Key] = []
    for depth in range(len(parts), -1, -1):
        at = "/" + "/".join(parts[:depth])
        keys: list[Key] = [(store, at)]
        if store == "file:" and (number := _inode(at)):
            keys.append(number)
        own = own or keys
        lineage += keys
    return Place(frozenset(own), frozenset(lineage))


def _store(uri: str) -> tuple[str, str]:
    """Which store a URI is of, in one spelling, and the path there."""
    if uri.startswith("file:"):
        return "file:", "/" + uri.removeprefix("file:").lstrip("/")
    split = re.match(r"([A-Za-z][\w+.-]*):(?://([^/]*))?(.*)", uri, re.DOTALL)
    if not split:
        return "", uri
    scheme, authority, inner = split[1].lower(), split[2] or "", split[3]
    scheme = _ALIASES.get(scheme, scheme)
    if scheme == "s3a":
        authority = authority.rpartition("@")[2]  # credentials are no part of the place
    if scheme == "hdfs":
        authority = authority.removesuffix(":8020")
    return f"{scheme}://{authority.lower().replace('.blob.', '.dfs.')}", inner


def _inode(path: str) -> Key | None:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino)


def check_target(
    storage: Storage,
    path: str,
    mode: str,
    job: str | None,
    holds: str = TABLE,
    *,
    underway: Collection[str] = (),
) -> None:
    """Raise InvalidInput unless a run in this mode may put its output at `path`.

    job: the one that must have written what is there, if anything is; None: any of Ember's.
    holds: what that must be, of what the job writes (see `publish.Output`). underway: files there
    that a killed run has left, and that go before anything is written.
    """
    _check_place(storage, path)
    if not storage.exists(path):
        return
    if storage.is_file(path):
        raise InvalidInput(f"{path} exists and is a file; {_ADVICE}")
    manifest = read_manifest(storage, path)
    ours = is_ours(manifest)
    if not ours and underway and all(each in underway for each, _ in storage.below(path)):
        return
    if not ours and (storage.files(path) or storage.folders(path)):
        raise InvalidInput(
            f"{path} exists and was not written by Ember (it has no {MANIFEST} of a job); "
            f"{_ADVICE}, or delete it yourself"
        )
    if mode == "fail":
        raise InvalidInput(
            f"{path} exists; set output.mode to overwrite (replace it) or, where the job knows it, "
            f"resume (keep the rows that are done), or {_ADVICE}"
        )
    if not ours:
        return  # empty
    by, kind = (manifest or {}).get("job"), (manifest or {}).get("holds", TABLE)
    if job is not None and (by, kind) != (job, holds):
        raise InvalidInput(
            f"{path} exists and is a {kind} that {by} wrote; a {holds} of {job} replaces only such "
            f"a one: {_ADVICE}, or delete it yourself"
        )
    if stranger := contents.foreign(storage, path, manifest, underway):
        raise InvalidInput(
            f"{path}/{stranger} was not written by Ember, and it would go when the output is "
            f"replaced; move it away, or {_ADVICE}"
        )


def _check_place(storage: Storage, path: str) -> None:
    """Raise InvalidInput for a place where no output can be, whatever is there."""
    if not storage.name(path):
        raise InvalidInput(f"{path} is a root; {_ADVICE}")
    if storage.is_home(path):
        raise InvalidInput(f"{path} is your home folder; {_ADVICE}")
    if link := storage.dangling_link(path):
        raise InvalidInput(f"{path} is a link to {link}, which is not there; {_ADVICE}")
    if storage.is_mount(path):
        raise InvalidInput(
            f"{path} is a mount point, and no folder can be put in its place; give a folder in it"
        )
    if above := storage.file_above(path):
        raise InvalidInput(f"{path} cannot be made, because {above} is a file; {_ADVICE}")
    if around := _around(storage, path):
        raise InvalidInput(
            f"{path} lies in {around}, an output itself, which takes it along when it is replaced; "
            f"{_ADVICE}"
        )


def _around(storage: Storage, path: str) -> str | None:
    """The output of Ember that a path lies in, if it does."""
    above = (each for each in storage.parents(path) if storage.name(each))
    return next((each for each in above if is_ours(read_manifest(storage, each))), None)


def is_ours(manifest: Mapping[str, Any] | None) -> bool:
    """Is this the manifest of an Ember run?"""
    return manifest is not None and isinstance(manifest.get("job"), str)
