from __future__ import annotations

import threading

import pytest

from ember.spark.storage import Storage


@pytest.fixture
def storage(spark):
    return Storage(spark)


def folder(path, word):
    path.mkdir(parents=True)
    (path / "data").write_text(word)
    return str(path)


def test_two_folders_are_exchanged_and_a_reader_never_finds_one_missing(storage, tmp_path):
    target, other = tmp_path / "target", tmp_path / "new"
    folder(target, "x")
    folder(other, "x")
    stop, missing = threading.Event(), []

    def watch():
        while not stop.is_set():
            if not (target / "data").exists():
                missing.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(20):
        assert storage.exchange(str(target), str(other))
    stop.set()
    watcher.join()
    assert not missing


def test_nothing_is_exchanged_with_what_is_not_there(storage, tmp_path):
    target = folder(tmp_path / "target", "old")
    assert not storage.exchange(str(tmp_path / "nowhere"), target)
    assert (tmp_path / "target" / "data").read_text() == "old"


@pytest.mark.parametrize("system_call", [True, False])
def test_renaming_never_replaces_or_moves_into_what_is_there(
    storage, tmp_path, monkeypatch, system_call
):
    if not system_call:
        monkeypatch.setattr("ember.spark.storage._renameat2", lambda one, other, flag: False)
        # Hadoop would copy what cannot be renamed, such as a mount point, and delete it.
        with pytest.raises(OSError, match=r"busy|denied|cross-device|permitted"):
            storage.rename("/proc", str(tmp_path / "moved"))
    first, second = folder(tmp_path / "a", "first"), folder(tmp_path / "b", "second")
    with pytest.raises(FileExistsError):
        storage.rename(first, second)
    with pytest.raises(FileNotFoundError):
        storage.rename(str(tmp_path / "nowhere"), str(tmp_path / "c"))
    storage.rename(first, str(tmp_path / "c"))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["b", "c"]
    assert (tmp_path / "c" / "data").read_text() == "first"


def test_text_is_written_and_read_back_whatever_the_name(storage, tmp_path):
    path = str(tmp_path / "with space é" / "file.json")
    storage.write_text(path, "größe\n")
    storage.write_text(path, "日本")
    assert storage.read_text(path) == "日本"
    assert [storage.name(each) for each in storage.files(str(tmp_path / "with space é"))] == [
        "file.json"
    ]
    assert storage.folders(str(tmp_path)) == [storage.qualify(str(tmp_path / "with space é"))]


def test_a_listing_has_what_spark_would_read_of_a_folder_or_a_glob(storage, tmp_path):
    root = tmp_path / "a b[1]{x}"
    for name in ("p.parquet", "day=1/q", "_x=2/r", "_SUCCESS", ".p.parquet.crc", "_page/s", ".a/t"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    listed = storage.listing(str(root))
    names = [place.removeprefix(f"file:{root}/") for place, _, _ in listed]
    assert names == ["_x=2/r", "day=1/q", "p.parquet"]
    assert [size for _, size, _ in listed] == [len(name) for name in names]
    for (place, _, changed), path in zip(listed, names, strict=True):
        assert place == f"file:{root / path}"
        assert changed == (root / path).stat().st_mtime_ns // 1_000_000
    assert len(storage.listing(f"{tmp_path}/a b*/*.parquet")) == 1
    assert len(storage.listing(f"{tmp_path}/a b*/{{p.parquet,day=1}}")) == 2
    assert storage.matches(f"{tmp_path}/a b*")
    assert not storage.matches(f"{tmp_path}/none*")
    assert storage.listing(f"{tmp_path}/none") == []
    assert not storage.matches(f"{tmp_path}/none[")
