from __future__ import annotations

import os

import pytest

from cluster.processes import ROOT
from ember.spark import session
from ember.spark.session import local_settings, spark_session


def test_only_what_the_user_left_open_is_filled_in():
    assert "spark.master" in local_settings({})
    ours = local_settings({"spark.master": "yarn", "spark.driver.memory": "1g"})
    assert "spark.master" not in ours
    assert "spark.driver.memory" not in ours
    assert "spark.sql.shuffle.partitions" in ours
    java = {"spark.driver.extraJavaOptions": "-Xss4m"}
    assert local_settings({}).keys() - local_settings(java).keys() == java.keys()


def test_the_properties_for_spark_submit_are_what_plain_python_starts_with():
    lines = (ROOT / "conf" / "spark-local.properties").read_text("utf-8").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    given = {key: value.strip() for key, value in pairs}
    ours = local_settings({})
    machine = {"spark.driver.memory", "spark.sql.shuffle.partitions"}  # as large as it is
    assert given.keys() == ours.keys() - {"spark.hadoop.fs.permissions.umask-mode"}
    assert {key: given[key] for key in given.keys() - machine} == {
        key: ours[key] for key in given.keys() - machine
    }


def test_a_session_that_is_there_is_used_and_left_alone(spark):
    with spark_session("other") as session:
        assert session is spark
    assert spark.sparkContext.appName == "ember tests"
    assert spark.range(2).count() == 2


@pytest.mark.parametrize(
    ("given", "filled_in"),
    [
        ({"spark.master": "local[2]"}, {"spark.hadoop.fs.permissions.umask-mode": "027"}),
        ({"spark.master": "local", "spark.hadoop.fs.permissions.umask-mode": "002"}, {}),
        ({"spark.master": "local-cluster[2,1,1024]"}, {}),
        ({"spark.master": "yarn"}, {}),
        ({}, {}),
    ],
)
def test_under_spark_submit_the_umask_alone_is_filled_in(spark, given, filled_in):
    system, before = spark._jvm.java.lang.System, os.umask(0o027)
    for key, value in given.items():  # as spark-submit hands its settings on
        system.setProperty(key, value)
    try:
        assert session._submitted_settings() == filled_in
    finally:
        os.umask(before)
        for key in given:
            system.clearProperty(key)


def test_a_mask_in_the_files_of_hadoop_is_the_user_s(spark, tmp_path):
    hadoop = spark._jvm.org.apache.hadoop.conf.Configuration()
    assert not session._is_set(hadoop, "fs.permissions.umask-mode")
    (tmp_path / "core-site.xml").write_text(
        "<configuration><property><name>fs.permissions.umask-mode</name><value>007</value>"
        "</property></configuration>"
    )
    hadoop.addResource(spark._jvm.org.apache.hadoop.fs.Path(f"file:{tmp_path}/core-site.xml"))
    assert session._is_set(hadoop, "fs.permissions.umask-mode")
