from __future__ import annotations

from ember.spark.session import local_settings, spark_session


def test_only_what_the_user_left_open_is_filled_in():
    assert "spark.master" in local_settings({})
    ours = local_settings({"spark.master": "yarn", "spark.driver.memory": "1g"})
    assert "spark.master" not in ours
    assert "spark.driver.memory" not in ours
    assert "spark.sql.shuffle.partitions" in ours
    java = {"spark.driver.extraJavaOptions": "-Xss4m"}
    assert local_settings({}).keys() - local_settings(java).keys() == java.keys()


def test_a_session_that_is_there_is_used_and_left_alone(spark):
    with spark_session("other") as session:
        assert session is spark
    assert spark.sparkContext.appName == "ember tests"
    assert spark.range(2).count() == 2
