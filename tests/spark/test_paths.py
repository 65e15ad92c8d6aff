from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ember.errors import InvalidInput
from ember.spark import origins, tables
from ember.spark.paths import check, literal

# Each a folder's name; where it is read as a glob it stands for another folder, or for none.
ODD = ["set[1]", "set{1}", "set{1,2}", "a\\b", "*", "?et1", "a b ", "%20#é日", "_x", "[", "\\*"]


def put(folder, number):
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"id": [number]}), folder / "part.parquet")


def test_a_folder_is_read_by_its_very_name_and_else_as_a_glob(spark, tmp_path):
    for number, name in enumerate(["set1", "set2", "ab", *ODD]):
        put(tmp_path / name, number)
    for number, name in enumerate(ODD, 3):
        table = tables.read(spark, f"{tmp_path}/{name}")
        assert [row.id for row in table.collect()] == [number], name
        assert origins.files(table) == [f"file://{tmp_path}/{name}/part.parquet"]
    put(tmp_path / "in" / "a:b", 0)  # a colon in what a glob looks at is beyond Hadoop
    assert tables.read(spark, f"{tmp_path}/in/a:b").count() == 1
    both = tables.read(spark, [f"{tmp_path}/set[1]", f"{tmp_path}/se[t][2]"])
    assert sorted(row.id for row in both.collect()) == [1, 3]
    assert tables.read(spark, f"{tmp_path}/set[1-2]").count() == 2


@pytest.mark.parametrize("name", ["_part.parquet", ".part.parquet", "a:b.parquet"])
def test_a_file_whose_name_spark_does_not_read_is_refused_with_the_reason(spark, tmp_path, name):
    put(tmp_path / "in", 0)
    file = (tmp_path / "in" / "part.parquet").rename(tmp_path / "in" / name)
    with pytest.raises(InvalidInput, match=r"names that begin with _ or \.|a colon"):
        tables.read(spark, str(file))


@pytest.mark.parametrize("path", ["[", "a{b", "x\\"])
def test_what_is_neither_a_name_nor_a_glob_is_nothing(spark, tmp_path, path):
    with pytest.raises(InvalidInput, match="there is nothing at") as caught:
        tables.read(spark, f"{tmp_path}/{path}")
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "empty"),
        ("a\0b", "NUL"),
        ("a:b", r"write '\./a:b'"),
        (":", r"write '\./:'"),
        ("s3a:bucket", "nor a URI"),
        ("1a:/b", "nor a URI"),
        ("\udcc3", "not Unicode"),
    ],
)
def test_what_is_no_path_is_told_from_what_is(path, words):
    with pytest.raises(InvalidInput, match=words):
        check(path)


@pytest.mark.parametrize(
    "path", ["a", "/", "./a:b", "d/a:b", "s3a://b/c", "file:/x", "a b", "日本"]
)
def test_paths_and_uris_are_taken(path):
    check(path)
    assert literal(path) == path
