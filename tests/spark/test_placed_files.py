"""Files put in place one by one: all or none, whatever fails, and read by the manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ember.errors import InvalidInput
from ember.spark import placed_files
from staging_world import Disk

ATTEMPT = "attempt-run-0123abcd"


class Store(Disk):
    """An object store of which a rename fails. fails: the name of the file."""

    def __init__(self, fails: str = "") -> None:
        super().__init__(moves=False)
        self._fails = fails

    def rename(self, source: str, target: str) -> None:
        if self._fails and source.endswith(f"/{self._fails}"):
            self._fails = ""
            raise OSError("503")
        super().rename(source, target)


def written(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def found(folder: Path) -> dict[str, str]:
    files = (each for each in folder.rglob("*") if each.is_file())
    return {str(each.relative_to(folder)): each.read_text() for each in files}


def put(world: Path, files: dict[str, str], store: Disk, still_ours=lambda: None) -> None:
    attempt = world / ".out.staging" / ATTEMPT
    written(attempt / "new", files)
    manifest = {"attempt": ATTEMPT, "files": {name: len(text) for name, text in files.items()}}
    places = (str(attempt), str(attempt / "new"), str(world / "out"))
    placed_files.put(store, *places, manifest, still_ours=still_ours)


NEW = {"part-2": "new", "_page.html": "new page", "_pictures/a.png": "new picture"}
OLD = {"part-1": "old", "_page.html": "old page"}


def old_table(world: Path, files: dict[str, str] = OLD) -> dict[str, str]:
    manifest = json.dumps({"attempt": "another", "files": dict.fromkeys(files, 3)})
    written(world / "out", {**files, "_manifest.json": manifest})
    return found(world / "out")


def test_the_new_files_replace_the_old_ones_and_their_pages(tmp_path):
    old_table(tmp_path)
    put(tmp_path, NEW, Store())
    there = found(tmp_path / "out")
    assert json.loads(there.pop("_manifest.json"))["attempt"] == ATTEMPT
    assert there == NEW


FIXED = {"part-1": "new", "part-2": "new"}


@pytest.mark.parametrize(
    ("new", "fails"),
    [
        *((NEW, name) for name in NEW),
        *((FIXED, name) for name in (*FIXED, "_manifest.json")),
    ],
)
def test_where_a_file_cannot_be_put_the_old_table_is_there_again(tmp_path, new, fails):
    before = old_table(tmp_path)
    with pytest.raises(OSError, match="503"):
        put(tmp_path, new, Store(fails))
    assert found(tmp_path / "out") == before
    assert found(tmp_path / ".out.staging" / ATTEMPT / "new") == new
    put(tmp_path, new, Store())
    assert found(tmp_path / "out").items() >= new.items()


def test_a_run_that_was_taken_over_takes_its_files_back(tmp_path):
    def lost() -> None:
        raise InvalidInput("taken over")

    before = old_table(tmp_path)
    with pytest.raises(InvalidInput, match="taken over"):
        put(tmp_path, NEW, Store(), lost)
    assert found(tmp_path / "out") == before


def test_a_table_is_read_by_its_manifest_where_folders_do_not_move(tmp_path):
    out, staging = str(tmp_path / "out"), str(tmp_path / ".out.staging")
    assert placed_files.rows_of(Store(), out, staging) is None
    put(tmp_path, NEW, Store())
    written(tmp_path / "out", {"part-of-another-run": ""})
    assert placed_files.rows_of(Store(), out, staging) == [f"{out}/part-2"]
    assert placed_files.rows_of(Disk(), out, staging) is None


def test_a_first_table_that_is_being_put_in_place_is_not_read(tmp_path):
    out, staging = str(tmp_path / "out"), str(tmp_path / ".out.staging")
    written(tmp_path / "out", {"part-2": "new"})
    written(
        tmp_path / ".out.staging" / ATTEMPT, {"placing.json": json.dumps({"files": ["part-2"]})}
    )
    with pytest.raises(InvalidInput, match="is not whole"):
        placed_files.rows_of(Store(), out, staging)
