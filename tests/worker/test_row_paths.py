"""Files that rows name: which are read, which are not, and how much of them."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import fsspec
import pytest

from ember.worker.row_paths import PathRules, content_of
from ember.worker.rows import RowError

LIMIT = 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


def read(uri: str, *roots: str | Path, limit: int = LIMIT) -> bytes:
    return PathRules(tuple(map(str, roots))).read(uri.encode(), limit)


def refusal(uri: str, *roots: str | Path, limit: int = LIMIT) -> str:
    with pytest.raises(RowError) as caught:
        read(uri, *roots, limit=limit)
    return str(caught.value)


NAMES = ["plain.jpg", "with space.jpg", "per%20cent.jpg", "ünïcode.jpg", "plus+&=.jpg", "a::b.jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_local_paths_are_read(root: Path, name: str) -> None:
    (root / name).write_bytes(b"content")
    assert read(str(root / name), root) == b"content"


@pytest.mark.parametrize("name", [*NAMES, "hash#1.jpg", "query?.jpg"])
@pytest.mark.parametrize("prefix", ["file:", "file://"])
def test_encoded_file_uris_are_read(root: Path, prefix: str, name: str) -> None:
    (root / name).write_bytes(b"content")
    assert read(f"{prefix}{quote(str(root / name))}", root) == b"content"


@pytest.mark.parametrize("name", [*NAMES, "hash#1.jpg", "query?.jpg"])
def test_unencoded_file_uris_are_read_as_spark_writes_them(root: Path, name: str) -> None:
    # The path column of Spark's binaryFile source is Hadoop's Path.toString: nothing is encoded.
    (root / name).write_bytes(b"content")
    assert read(f"file:{root / name}", f"file:{root}") == b"content"


def test_relative_paths_are_taken_from_the_first_root(root: Path, tmp_path: Path) -> None:
    (root / "a.jpg").write_bytes(b"here")
    other = tmp_path / "other"
    other.mkdir()
    (other / "b.jpg").write_bytes(b"there")
    assert read("a.jpg", root, other) == b"here"
    assert read("b.jpg", root, other) == b"there"
    with fsspec.open("memory://ember-rows/in/a.jpg", "wb") as stream:
        stream.write(b"remote")
    assert read("in/a.jpg", "memory://ember-rows/") == b"remote"


def test_remote_uris_are_read_through_fsspec() -> None:
    with fsspec.open("memory://ember-rows/a.jpg", "wb") as stream:
        stream.write(b"remote")
    assert read("memory://ember-rows/a.jpg", "memory://ember-rows") == b"remote"
    assert read("memory://ember-rows/a.jpg", "memory://") == b"remote"
    assert refusal("memory://ember-rows/a.jpg", "memory://", limit=5).startswith("too many bytes")


@pytest.mark.parametrize(
    "missing", ["{}/missing.jpg", "file:{}/missing.jpg", "memory://ember-rows/missing.jpg"]
)
def test_missing_file_is_named(root: Path, missing: str) -> None:
    uri = missing.format(root)
    expected = f"file not found: {uri}"[: len("file not found: ") + 200]
    assert refusal(uri, root, "memory://ember-rows") == expected


@pytest.mark.parametrize("odd", ["{}/folder", "{}/a\0b", "file:{}/a\0b", "{}/" + "x" * 300])
def test_unreadable_file_is_a_row_error(root: Path, odd: str) -> None:
    (root / "folder").mkdir()
    assert refusal(odd.format(root), root).startswith("unreadable file")


@pytest.mark.parametrize("raw", [None, b"", b"\xff\xfe/a.jpg"])
def test_path_that_is_no_text_is_a_row_error(root: Path, raw: bytes | None) -> None:
    with pytest.raises(RowError, match=r"null content|empty content|invalid text"):
        PathRules((str(root),)).read(raw, LIMIT)


# --- what rows may not read ------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "{root}/../secret",
        "../secret",
        "file:{root}/../secret",
        "file://elsewhere{parent}/secret",
        "{root}link/secret",
        "{root}",
        "{root}er/secret",
        "/proc/self/environ",
        "/proc/self/fd/0",
        "/dev/zero",
        "{root}/out/secret",  # through a link to the folder above
        "{root}/secret.jpg",  # a link to a file
        "{root}/gone/../../secret",
    ],
)
def test_local_files_outside_of_the_root_are_refused_unread(
    root: Path, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "out").symlink_to(tmp_path)
    (root / "secret.jpg").symlink_to(tmp_path / "secret")
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a file was opened"))
    message = refusal(uri.format(root=root, parent=tmp_path), root)
    assert message.startswith("path not allowed: set `root` where rows may read; it is ")


def test_an_encoded_way_out_is_a_name_and_nothing_else(root: Path) -> None:
    assert refusal(f"file:{root}/%2e%2e/secret", root).startswith("file not found")


def test_a_link_inside_the_root_is_followed(root: Path, tmp_path: Path) -> None:
    (root / "a.jpg").write_bytes(b"content")
    (root / "b.jpg").symlink_to(root / "a.jpg")
    (tmp_path / "alias").symlink_to(root)
    assert read(str(root / "b.jpg"), root) == b"content"
    # However the root itself is spelled.
    assert read(str(root / "a.jpg"), tmp_path / "alias") == b"content"
    assert read(str(tmp_path / "alias" / "b.jpg"), f"{root}/") == b"content"


@pytest.mark.parametrize(
    "uri",
    [
        "http://169.254.169.254/latest/meta-data/iam/",
        "https://example.org/a.jpg",
        "github://owner:repo@main/a.jpg",
        "ftp://host/a.jpg",
        "simplecache::file://{root}/a.jpg",
        "simplecache::memory://ember-rows/a.jpg",
        "zip://a.jpg::file://{root}/a.zip",
        "memory://ember-rows/a.jpg::x",
        "memory://other/a.jpg",
        "memory://ember-rows/../other/a.jpg",
        "memory://ember-rows/%2e%2e/other/a.jpg",
        "memory://ember-rowsx/a.jpg",
        "memory://user:word@ember-rows/a.jpg",
        "local://{root}/a.jpg",
        "data:text/plain,a",
        "s3://ember-rows/a.jpg",
        "/ember-rows/a.jpg",
    ],
)
def test_uris_that_no_root_holds_are_refused_before_any_host_is_asked(
    root: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsspec, "open", lambda *_, **__: pytest.fail("fsspec was asked"))
    (root / "a.jpg").write_bytes(b"content")
    message = refusal(uri.format(root=root), "memory://ember-rows")
    assert message.startswith("path not allowed")


@pytest.mark.parametrize(
    ("uri", "place", "allowed"),
    [
        ("s3://bucket/images/a.jpg", "s3a://bucket/images", True),
        ("s3a://bucket/images/a.jpg", "s3://bucket/images/", True),
        ("S3://bucket/images/a.jpg", "s3://bucket/images/", True),
        ("s3://other/images/a.jpg", "s3://bucket/images", False),
        ("s3://other/images/a.jpg", "s3://", True),
        ("s3://bucket/images2/a.jpg", "s3://bucket/images", False),
        ("https://host/images/a.jpg", "https://host/images", True),
        ("https://host:81/images/a.jpg", "https://host/images", False),
        ("http://host/images/a.jpg", "https://host/images", False),
        ("https://host@other/images/a.jpg", "https://host/images", False),
    ],
)
def test_a_root_of_a_store_holds_what_lies_under_it(
    uri: str, place: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def opened(given: str, *_: object, **__: object) -> None:
        asked.append(given)
        raise FileNotFoundError

    monkeypatch.setattr(fsspec, "open", opened)
    expected = "file not found" if allowed else "path not allowed"
    assert refusal(uri, place).startswith(expected)
    assert asked == [uri] * allowed


def test_pipes_and_devices_neither_block_nor_are_read(root: Path) -> None:
    os.mkfifo(root / "pipe.jpg")  # nobody ever writes into it
    assert refusal(str(root / "pipe.jpg"), root).startswith("unreadable file: not a regular file")
    assert refusal("/dev/zero", "/dev").startswith("unreadable file: not a regular file")


def test_a_file_over_the_limit_is_not_read(root: Path) -> None:
    with (root / "sparse.jpg").open("wb") as stream:
        stream.truncate(3 << 30)
    assert refusal("sparse.jpg", root) == (
        "too many bytes: 3,221,225,472 bytes, more than limits.max_bytes = 1,000"
    )
    (root / "exact.jpg").write_bytes(bytes(LIMIT))
    assert len(read("exact.jpg", root)) == LIMIT
    # Files of /proc say that they are empty.
    assert refusal("/proc/self/maps", "/proc/self").startswith("too many bytes: more")


def test_bytes_of_a_row_are_held_to_the_same_limit() -> None:
    assert content_of(bytes(LIMIT), None, LIMIT) == bytes(LIMIT)
    assert content_of(None, None, LIMIT) is None
    with pytest.raises(RowError, match=r"too many bytes: 1,001 bytes, more than limits"):
        content_of(bytes(LIMIT + 1), None, LIMIT)


def test_an_endless_path_is_refused_unresolved(tmp_path):
    rules = PathRules((str(tmp_path),))
    with pytest.raises(RowError, match="path not allowed: 640"):
        rules.read(f"file://{tmp_path}/{'a/' * 320_000}".encode(), 100)
