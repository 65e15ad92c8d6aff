"""Where rows may read when the configuration does not say."""

from __future__ import annotations

import pytest
from pyspark.sql.types import BinaryType, StringType, StructField

from ember.errors import InvalidConfig, InvalidInput
from ember.spark.access import default_roots, path_rules

TEXT, BYTES = StructField("content", StringType()), StructField("content", BinaryType())


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/corpus/in.parquet", "file:/data/corpus"),
        ("/data/corpus/", "file:/data"),
        ("file:///data/corpus/../in.parquet", "file:/data"),
        ("/data/corpus/day=*/part-?.parquet", "file:/data/corpus"),
        ("/data/corpus/{a,b}.parquet", "file:/data/corpus"),
        ("/in.parquet", "file:/in.parquet"),  # not the whole file system
        (["/data/a.parquet", "/data/b.parquet", "/more/c.parquet"], "file:/data file:/more"),
    ],
)
def test_the_root_is_by_default_the_folder_that_holds_the_table(spark, path, expected):
    assert " ".join(default_roots(spark, path)) == expected


def test_paths_are_read_where_the_configuration_says_so_and_nowhere_else(spark, tmp_path):
    assert path_rules(spark, BYTES, "image", None, None) is None
    assert path_rules(spark, BYTES, "image", None, "/data") is None
    assert path_rules(spark, TEXT, "image", "bytes", None) is None
    assert path_rules(spark, TEXT, "text", None, None) is None
    for column in (TEXT, BYTES):
        rules = path_rules(spark, column, "image", "paths", ["/data", "s3://bucket/a"])
        assert rules is not None
        assert rules.roots == ("file:/data", "s3://bucket/a")
    with pytest.raises(InvalidInput, match="column content is string, and images are binary"):
        path_rules(spark, TEXT, "image", None, None)


@pytest.mark.parametrize("root", [None, "", [], [""], "https://", "http:", ["/data", "HTTPS:///"]])
def test_paths_need_a_root_that_is_a_place(spark, root):
    with pytest.raises(InvalidConfig, match="root"):
        path_rules(spark, TEXT, "image", "paths", root)
