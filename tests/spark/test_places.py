"""No input is harmed: what may be an output, and what is refused before any work."""

from __future__ import annotations

import os

import pytest

from corpora import picture, rows, write
from ember.errors import InvalidInput
from ember.spark import places
from ember.spark.places import Written, check_apart, check_target
from ember.spark.storage import Storage


@pytest.fixture
def storage(spark):
    return Storage(spark)


@pytest.fixture
def corpus(tmp_path):
    """A folder with a table, and a link to the folder above it."""
    (tmp_path / "data" / "corpus" / "day=1").mkdir(parents=True)
    (tmp_path / "data" / "corpus" / "day=1" / "a.parquet").write_bytes(b"x")
    (tmp_path / "data" / "one.parquet").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "here").mkdir()
    return tmp_path


HARMFUL = [
    ("data/corpus", "data/corpus", "is"),
    ("data/corpus/", "data/corpus", "is"),
    ("data/x/../corpus", "data/corpus", "is"),
    ("data//corpus", "data/corpus", "is"),
    ("link/corpus", "data/corpus", "is"),
    ("data/corpus", "link/corpus", "is"),
    ("data/corpus/out", "data/corpus", "lies in"),
    ("link/corpus/day=1/new/out", "data/corpus", "lies in"),
    ("data", "data/corpus", "holds"),
    ("data", "data/corpus/*/*.parquet", "holds"),
    ("link", "data/one.parquet", "holds"),
    ("data/one.parquet", "data/*.parquet", "is"),
    ("data/two.parquet", "data/*.parquet", "would be read by"),
    ("data/out", "data/{corpus,out}", "would be read by"),
    ("data/corpus/day=2", "data/corpus/day=*", "would be read by"),
    ("data/corpus/day=2/out", "data/corpus/day=*", "would be read by"),
]


@pytest.mark.parametrize("spelling", ["{}", "file:{}", "file://{}"])
@pytest.mark.parametrize(("output", "read", "how"), HARMFUL)
def test_an_output_that_would_harm_an_input_is_refused(
    storage, corpus, output, read, how, spelling
):
    written = spelling.format(f"{corpus}/{output}")
    with pytest.raises(InvalidInput) as caught:
        check_apart(storage, {"output.path": written}, {"input.path": [f"{corpus}/{read}"]})
    assert f"output.path ({written}) {how} input.path" in str(caught.value)


def test_relative_paths_are_those_of_the_working_folder(storage, corpus):
    with pytest.raises(InvalidInput, match="lies in"):
        check_apart(
            storage,
            {"output.path": os.path.relpath(corpus / "data" / "corpus" / "o")},
            {"input.path": [f"{corpus}/data/corpus"]},
        )


@pytest.mark.parametrize(
    ("output", "read"),
    [
        ("data/out", "data/corpus"),
        ("data/corpus2", "data/corpus"),
        ("data/corpus.out", "data/corpus"),
        ("out", "data/*/*.parquet"),
        ("data/one", "data/one.parquet"),
        ("data/new", "data/*.parquet"),
    ],
)
def test_an_output_beside_the_inputs_is_fine(storage, corpus, output, read):
    check_apart(
        storage, {"output.path": f"{corpus}/{output}"}, {"input.path": [f"{corpus}/{read}"]}
    )


def test_a_hard_link_of_a_folder_is_known_by_its_inode(storage, corpus, monkeypatch):
    """As a bind mount would be, which takes rights to make."""
    real = places._inode
    same = str(corpus / "mounted")
    (corpus / "mounted").mkdir()
    monkeypatch.setattr(
        places, "_inode", lambda path: real(str(corpus / "data")) if path == same else real(path)
    )
    with pytest.raises(InvalidInput, match="lies in"):
        check_apart(storage, {"output.path": f"{same}/out"}, {"input.path": [f"{corpus}/data"]})


@pytest.mark.parametrize(
    ("output", "root", "how"),
    [
        ("data", "data", "is"),
        ("link", "data/", "is"),
        ("data", "link/corpus/day=1", "holds"),
        ("data/x/..", "data/not/there/yet", "holds"),
        ("data", "file:{}/link/corpus", "holds"),
        ("data/corpus/out", "data/corpus", None),
        ("data/out", "data/corpus", None),
        ("data", "memory://data/corpus", None),
        ("data", "https://host/", None),
    ],
)
def test_an_output_neither_is_nor_holds_where_rows_may_read(storage, corpus, output, root, how):
    """It may lie there: nothing of anybody else's is replaced."""
    root = root.format(corpus) if ":" in root else f"{corpus}/{root}"
    given = {"output.path": f"{corpus}/{output}"}, {}, {"input.root": ["s3://other/", root]}
    if how is None:
        check_apart(storage, *given)
        return
    with pytest.raises(InvalidInput) as caught:
        check_apart(storage, *given)
    assert f"output.path ({corpus}/{output}) {how} input.root ({root})" in str(caught.value)


@pytest.mark.parametrize(
    ("output", "root", "how"),
    [
        ("s3a://bucket/pictures", "s3://bucket/pictures/", "is"),
        ("gs://bucket/a", "gcs://bucket/a/b", "holds"),
        ("abfss://c@x.dfs.core.windows.net/a", "abfs://c@x.dfs.core.windows.net/a/b", "holds"),
        ("s3a://bucket/a", "s3://other/a/b", None),
    ],
)
def test_a_root_of_a_store_is_known_by_all_its_names(storage, monkeypatch, output, root, how):
    """Without asking the store, which need not be one that Hadoop knows."""
    given = Written("output.path", "output.path", output, places._place_of(output))
    monkeypatch.setattr(storage, "resolve", lambda path: pytest.fail(f"asked for {path}"))
    found = list(places.harms(storage, [given], {}, {"input.root": [root]}))
    assert [f" {how} input.root" in each for each in found] == [True] * (how is not None)


def test_no_run_replaces_the_folder_of_the_files_that_its_rows_name(run_job, resnet, corpus):
    pictures = corpus / "pictures"
    (pictures / "deep").mkdir(parents=True)
    (pictures / "deep" / "a.png").write_bytes(picture(0))
    table = write(corpus / "tables" / "in.parquet", id=["a"], content=["deep/a.png"])
    settings = {
        "input__path": table,
        "input__id": "id",
        "input__modality": "image",
        "input__content_is": "paths",
        "input__root": pictures,
        "model__name": resnet,
        "output__mode": "overwrite",
    }
    for output in (pictures, corpus / "link" / ".." / "pictures"):
        code, message = run_job("embed", **settings, output__path=output)
        assert (code, "is input.root" in message) == (2, True), message
    assert (pictures / "deep" / "a.png").read_bytes() == picture(0)
    assert run_job("embed", **settings, output__path=pictures / "out") == (0, "")
    assert rows(pictures / "out", "id")["a"]["status"] == "ok"


@pytest.mark.parametrize("kept", ["out.failures", "out.rejected", ".out.staging"])
def test_what_is_kept_beside_an_output_harms_no_input(storage, corpus, kept):
    (corpus / kept / "x").mkdir(parents=True)
    with pytest.raises(InvalidInput, match=r"rows of output\.path"):
        check_apart(
            storage, {"output.path": f"{corpus}/out"}, {"input.path": [f"{corpus}/{kept}/x"]}
        )


@pytest.mark.parametrize(
    "other", ["out", "out/groups", "here/../out/g", ".", "out.failures", ".out.staging/g"]
)
def test_outputs_lie_apart_from_each_other(storage, corpus, other):
    with pytest.raises(InvalidInput, match="would replace each other"):
        check_apart(
            storage, {"output.path": f"{corpus}/out", "groups.path": f"{corpus}/{other}"}, {}
        )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://bucket/a/b", "s3a://bucket/a"),
        ("s3n://bucket/a", "s3a://bucket/a"),
        ("s3a://key:secret@bucket/a", "s3a://bucket/a"),
        ("hdfs://namenode:8020/a/b", "hdfs://NameNode/a"),
        ("wasbs://c@x.blob.core.windows.net/a", "abfss://c@x.dfs.core.windows.net/a"),
    ],
)
def test_one_store_is_known_by_all_its_names(one, other):
    (store, path), (there, its_path) = places._store(one), places._store(other)
    assert store == there
    assert path.startswith(its_path)


def test_other_stores_are_other_places():
    assert places._store("s3a://one/a")[0] != places._store("s3a://two/a")[0]
    assert places._store("file:/a")[0] != places._store("hdfs://h/a")[0]


@pytest.mark.parametrize("path", ["/", "file:/", "file:///", "/tmp/.."])
def test_a_root_is_no_output(storage, path):
    for mode in ("fail", "overwrite", "resume"):
        with pytest.raises(InvalidInput, match="is a root"):
            check_target(storage, path, mode, "embed")
    with pytest.raises(InvalidInput, match="a root"):
        check_apart(storage, {"output.path": path}, {})


def test_a_home_is_no_output_even_when_it_is_empty(storage, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InvalidInput, match="your home folder"):
        check_target(storage, f"{tmp_path}/", "overwrite", "embed")


def _file(place):
    place.write_text("mine")


def _folder(place):
    place.mkdir()
    (place / "mine").write_text("mine")


def _other_job(place):
    place.mkdir()
    (place / "_manifest.json").write_text('{"job": "search"}')


def _no_manifest(place):
    place.mkdir()
    (place / "_manifest.json").write_text('{"version": 1}')


@pytest.mark.parametrize("mode", ["fail", "overwrite", "resume"])
@pytest.mark.parametrize("make", [_file, _folder, _other_job, _no_manifest])
def test_what_ember_did_not_write_is_never_replaced(storage, tmp_path, make, mode):
    place = tmp_path / "out"
    make(place)
    before = place.stat().st_ino
    with pytest.raises(InvalidInput, match="exists"):
        check_target(storage, str(place), mode, "embed")
    assert place.stat().st_ino == before


def test_a_link_that_leads_nowhere_and_a_path_below_a_file_are_refused(storage, tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    _file(tmp_path / "file")
    with pytest.raises(InvalidInput, match=r"is a link to .*nowhere"):
        check_target(storage, str(tmp_path / "gone"), "fail", "embed")
    with pytest.raises(InvalidInput, match="file is a file"):
        check_target(storage, str(tmp_path / "file" / "a" / "out"), "fail", "embed")


def test_an_output_of_the_same_job_and_an_empty_folder_may_be_replaced(storage, tmp_path):
    (tmp_path / "empty").mkdir()
    _other_job(tmp_path / "ours")
    check_target(storage, str(tmp_path / "empty"), "overwrite", "embed")
    check_target(storage, str(tmp_path / "ours"), "overwrite", "search")
    check_target(storage, str(tmp_path / "ours"), "resume", "search")
    for name in ("empty", "ours"):
        with pytest.raises(InvalidInput, match="exists"):
            check_target(storage, str(tmp_path / name), "fail", "search")


def test_of_what_one_job_writes_only_the_same_kind_is_replaced(storage, tmp_path):
    place = tmp_path / "out"
    place.mkdir()
    (place / "_manifest.json").write_text('{"job": "project", "holds": "projection"}')
    check_target(storage, str(place), "overwrite", "project", "projection")
    with pytest.raises(InvalidInput, match="is a projection that project wrote"):
        check_target(storage, str(place), "overwrite", "project")


def test_a_glob_that_leads_into_staged_rows_is_refused(spark, tmp_path):
    from ember.spark import tables

    for folder in ("a", ".b.staging/attempt-x-01234567"):
        (tmp_path / "g" / folder / "new").mkdir(parents=True)
        spark.range(2).coalesce(1).write.mode("overwrite").parquet(
            str(tmp_path / "g" / folder / "new")
        )
    assert tables.read(spark, f"{tmp_path}/g/*/new").count() == 2
    with pytest.raises(InvalidInput, match="rows that a run has staged"):
        tables.read(spark, f"{tmp_path}/g/*/*/*")


def test_an_output_in_another_output_is_refused(storage, tmp_path):
    _other_job(tmp_path / "outer")
    for inner in ("inner", "a/b/inner"):
        with pytest.raises(InvalidInput, match="an output itself"):
            check_target(storage, str(tmp_path / "outer" / inner), "fail", "embed")


def test_a_mount_point_is_no_output(storage):
    with pytest.raises(InvalidInput, match="is a mount point"):
        check_target(storage, "/proc", "overwrite", "embed")
