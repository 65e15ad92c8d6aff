"""Publishing file by file, where a folder cannot be moved in one step: in object stores.

There a rename copies one object after the other, and a reader that lists the folder meanwhile
finds a part of it. So the files go to the output under their final names first, and the manifest,
which names them, last, by one write that replaces the old one: who goes by the manifest finds the
old table until then and the new one from then on. The old files are deleted afterwards.

    placing.json     what is being moved; written before the first file, beside the rows
    replaced/        files of the old table that stood in the place of new ones

A run that is killed on the way has left this note, by which the next run takes everything back or,
where the manifest was written, deletes the rest of the old table. Names of tables are never used
twice, those of models are: of these the old manifest is withdrawn first, and a reader finds none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ember.errors import InvalidInput
from ember.spark.contents import FILES, HIDDEN, MANIFEST
from ember.spark.staged_files import Files, name_of, read_json, read_manifest, write_manifest

__all__ = ["NOTE", "put", "rows_of", "settle", "underway"]

NOTE = "placing.json"


def put(
    files: Files,
    attempt: str,
    table: str,
    target: str,
    manifest: dict[str, Any],
    *,
    still_ours: Callable[[], None],
) -> None:
    """Move the files of `table`, those that the manifest names, to `target`, and the manifest last.

    attempt: the run's own folder, in which `table` lies. still_ours: raises where another run has
    taken over; called right before the manifest is written. When anything fails, all is taken back.
    """
    names = list(manifest[FILES])
    there = {path for path, _ in files.below(target)}
    replaced = [name for name in names if name in there]
    before = (read_manifest(files, target) or {}).get(FILES, {})
    told = {
        "table": name_of(table),
        "files": names,
        "replaced": replaced,
        "old": [name for name in before if name not in manifest[FILES]],
    }
    files.write_text(f"{attempt}/{NOTE}", json.dumps(told))
    try:
        if MANIFEST in there and not all(map(HIDDEN.search, replaced)):
            _move(files, target, f"{attempt}/replaced", [MANIFEST])
        _move(files, target, f"{attempt}/replaced", replaced)
        _move(files, table, target, names)
        still_ours()
        write_manifest(files, target, manifest)
    except Exception:
        settle(files, attempt, target)
        raise
    _delete(files, target, told["old"])


def settle(files: Files, attempt: str, target: str) -> None:
    """Finish what a killed attempt was placing where it wrote the manifest, else take it back."""
    told = read_json(files, f"{attempt}/{NOTE}")
    if told is None:
        return
    published = read_manifest(files, target) or {}
    if published.get("attempt") == name_of(attempt):
        _delete(files, target, told["old"])
    else:
        _take_back(files, attempt, target, told)
    files.delete(f"{attempt}/{NOTE}")


def underway(files: Files, attempts: Iterable[str]) -> set[str]:
    """The files of an output that are in it, or about to go, because attempts were killed."""
    notes = (read_json(files, f"{attempt}/{NOTE}") or {} for attempt in attempts)
    return {name for told in notes for key in ("files", "old") for name in told.get(key, ())}


def rows_of(files: Files, folder: str, staging: str) -> list[str] | None:
    """The files with the rows of a table, as its manifest says; None where the folder says it.

    staging: where the runs that write the table stage its rows.

    Raises:
        InvalidInput: there is no manifest yet, and a run is placing files.
    """
    if files.moves_folders(folder):
        return None
    manifest = read_manifest(files, folder)
    if manifest is None:
        if underway(files, files.folders(staging)):
            raise InvalidInput(
                f"{folder} is not whole: a run is publishing it, or was killed on the way; wait "
                "for it, or run it again"
            )
        return None
    names = [name for name in manifest.get(FILES, ()) if not HIDDEN.search(name)]
    return [f"{folder}/{name}" for name in names if "/" not in name] or None


def _take_back(files: Files, attempt: str, target: str, told: dict[str, Any]) -> None:
    """Undo `put`. Of a file that is in both places, one rename was killed between its two steps."""
    table, aside = f"{attempt}/{told['table']}", f"{attempt}/replaced"
    in_table, in_target, in_aside = (
        {path for path, _ in files.below(folder)} for folder in (table, target, aside)
    )
    waiting = {name for name in told["replaced"] if name not in in_aside}  # the old file itself
    new = [name for name in told["files"] if name in in_target and name not in waiting]
    _delete(files, target, [name for name in new if name in in_table])
    _move(files, target, table, [name for name in new if name not in in_table])
    for names in (told["replaced"], [MANIFEST]):
        old = [name for name in names if name in in_aside]
        _delete(files, target, old)
        _move(files, aside, target, old)
    for folder in sorted({_folder(f"{target}/{name}") for name in new}, key=len, reverse=True):
        files.delete_empty(folder)


def _move(files: Files, source: str, target: str, names: Sequence[str]) -> None:
    for folder in {_folder(f"{target}/{name}") for name in names}:
        files.make_folder(folder)
    files.rename_all([(f"{source}/{name}", f"{target}/{name}") for name in names])


def _delete(files: Files, folder: str, names: Iterable[str]) -> None:
    for name in names:
        files.delete(f"{folder}/{name}")


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
