from __future__ import annotations

import threading

import pytest

from ember.storage import Storage


@pytest.fixture
def storage(spark):
    return Storage(spark)


def folder(path, word):
    path.mkdir(parents=True)
    (path / "data").write_text(word)
    return str(path)


def test_a_folder_is_published_where_there_is_none_and_in_the_place_of_one(storage, tmp_path):
    target = tmp_path / "new" / "target"
    storage.publish(folder(tmp_path / "a", "first"), str(target))
    assert (target / "data").read_text() == "first"
    storage.publish(folder(tmp_path / "b", "second"), str(target))
    assert (target / "data").read_text() == "second"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["new"]


def test_a_reader_never_finds_the_folder_missing_while_it_is_replaced(storage, tmp_path):
    target = tmp_path / "target"
    storage.publish(folder(tmp_path / "start", "x"), str(target))
    stop, missing = threading.Event(), []

    def watch():
        while not stop.is_set():
            if not (target / "data").exists():
                missing.append(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(20):
        storage.publish(folder(tmp_path / str(number), "x"), str(target))
    stop.set()
    watcher.join()
    assert not missing


def test_where_folders_cannot_be_exchanged_the_old_one_makes_way(storage, tmp_path, monkeypatch):
    monkeypatch.setattr("ember.storage._exchange", lambda one, other: False)
    target = tmp_path / "target"
    storage.publish(folder(tmp_path / "a", "first"), str(target))
    storage.publish(folder(tmp_path / "b", "second"), str(target))
    assert (target / "data").read_text() == "second"
    assert [each.name for each in tmp_path.iterdir()] == ["target"]


def test_a_failed_replacement_leaves_the_old_folder(storage, tmp_path, monkeypatch):
    monkeypatch.setattr("ember.storage._exchange", lambda one, other: False)
    target = tmp_path / "target"
    storage.publish(folder(tmp_path / "a", "first"), str(target))
    with pytest.raises(Exception, match=r"not exist|could not rename"):
        storage.publish(str(tmp_path / "nowhere"), str(target))
    assert (target / "data").read_text() == "first"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_kill_between_setting_aside_and_replacing_is_mended(storage, tmp_path, replaced):
    folder(tmp_path / ".target.replaced", "old")
    if replaced:
        folder(tmp_path / "target", "new")
    storage.recover(str(tmp_path / "target"))
    assert (tmp_path / "target" / "data").read_text() == ("new" if replaced else "old")
    assert [each.name for each in tmp_path.iterdir()] == ["target"]


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
