from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.processes import environment
from ember.spark import class_archive, classic

RUN = """
import glob, os, sys
from ember.spark.session import spark_session

with spark_session("archive", archive=sys.argv[1] == "keep") as spark:
    assert spark.range(3).count() == 3
    process = spark._jvm.java.lang.ProcessHandle.current().pid()
    with open(f"/proc/{process}/maps") as maps:
        print("mapped:", {line.split()[-1] for line in maps if line.strip().endswith(".jsa")})
"""


@pytest.fixture
def java(tmp_path, monkeypatch) -> Path:
    """A machine's Java and Spark, and a cache for it. What decides for Java is there, no more."""
    for folder in ("java/bin", "java/lib", "spark/jars"):
        (tmp_path / folder).mkdir(parents=True)
    program = tmp_path / "java/bin/java"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "java/lib/modules").write_text("17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
    monkeypatch.setenv("SPARK_HOME", str(tmp_path / "spark"))
    monkeypatch.setenv("EMBER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir(mode=0o755)
    return tmp_path


def file(**settings: str) -> Path:
    found = class_archive.find(settings)
    assert found is not None
    return found.file


def test_another_build_of_java_another_spark_and_another_class_path_have_another_archive(java):
    files = [file(), file(**{"spark.driver.extraClassPath": "/more.jar"})]
    (java / "java/lib/modules").write_text("17.0.15")
    files.append(file())
    (java / "spark/jars/one.jar").touch()
    files.append(file())
    assert len({*files}) == 4
    assert file() == files[-1]
    assert file(**{"spark.sql.shuffle.partitions": "4"}) == files[-1]


def test_java_is_told_to_use_an_archive_or_to_be_able_to_make_one(java):
    archive = class_archive.find({})
    assert not any("Dump" in each or "Archive" in each for each in archive.options)
    archive.make(None)  # the first run
    assert not archive.is_there
    assert "-XX:+RecordDynamicDumpInfo" in archive.options
    archive.file.touch()
    assert f"-XX:SharedArchiveFile={archive.file}" in archive.options
    assert "-XX:+RecordDynamicDumpInfo" not in archive.options


def test_an_archive_that_others_may_have_written_is_not_used(java):
    file().touch(mode=0o644)
    assert class_archive.find({}) is not None
    file().chmod(0o666)
    assert class_archive.find({}) is None


def test_no_archive_where_java_could_not_take_its_name(java, monkeypatch):
    for name in ("a:b", "a b", 'a"b'):
        monkeypatch.setenv("EMBER_CACHE", str(java / name))
        assert class_archive.find({}) is None


def test_no_archive_without_java(java):
    (java / "java/bin/java").unlink()
    assert class_archive.find({}) is None


@pytest.fixture
def dumped(monkeypatch) -> list[str]:
    """What Java was asked to archive; it writes a file, on a class path of one jar."""
    files: list[str] = []

    def dump(_: object, name: str) -> None:
        files.append(name)
        Path(name).write_text("classes")

    monkeypatch.setattr(classic, "archive_classes", dump)
    monkeypatch.setattr(classic, "class_path", lambda _: ["/spark/jars/one.jar"])
    return files


def test_a_new_archive_takes_the_place_of_those_of_older_builds_alone(java, dumped):
    old = file()
    for each in (old, old.with_name("java-other-1.jsa"), old.with_name("openvino-x")):
        each.touch()
    (java / "java/lib/modules").write_text("17.0.15")
    archive = class_archive.find({})
    archive.make(None)
    assert dumped == []
    archive.make(None)
    names = {each.name for each in (java / "cache").iterdir()}
    first = archive.file.with_suffix(".first").name
    assert names == {archive.file.name, first, "java-other-1.jsa", "openvino-x"}
    assert archive.file.read_text() == "classes"
    archive.make(None)
    assert len(dumped) == 1


def test_what_fails_leaves_nothing_and_raises_nothing(java, monkeypatch):
    def fail(_: object, name: str) -> None:
        Path(f"{name}.temp").touch()  # as Java does meanwhile
        raise OSError("no space")

    monkeypatch.setattr(classic, "archive_classes", fail)
    monkeypatch.setattr(classic, "class_path", lambda _: [])
    archive = class_archive.find({})
    for options in (0, 1):
        assert sum("Dump" in each for each in archive.options) == options
        archive.make(None)
    assert [each.suffix for each in (java / "cache").iterdir()] == [".first"]
    # Nor does a later run pay for being able to.
    assert not any("Dump" in each for each in archive.options)
    monkeypatch.undo()
    archive.make(None)
    assert not archive.is_there


def test_a_folder_of_settings_is_on_the_class_path(java, monkeypatch):
    for folder in (java / "spark/conf", java / "settings"):
        assert class_archive.find({}) is not None
        folder.mkdir()
        assert class_archive.find({}) is not None  # it is empty
        (folder / "spark-defaults.conf").touch()
        assert class_archive.find({}) is None
        monkeypatch.setenv("SPARK_CONF_DIR", str(java / "settings"))


def test_java_is_not_asked_with_a_folder_on_its_class_path(java, dumped, monkeypatch):
    (java / "conf").mkdir()
    monkeypatch.setattr(classic, "class_path", lambda _: [str(java / "conf")])
    archive = class_archive.find({})
    for _ in range(2):
        archive.make(None)
    assert archive.is_there  # it is empty
    archive.file.unlink()
    (java / "conf/spark-defaults.conf").touch()
    archive.make(None)
    assert len(dumped) == 1
    assert not any("Dump" in each for each in archive.options)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_start_maps_the_archive_that_an_earlier_one_has_kept(tmp_path):
    def run(what: str) -> str:
        places = {"EMBER_CACHE": tmp_path / "cache", "SPARK_CONF_DIR": tmp_path / "conf"}
        env = environment(**{name: str(place) for name, place in places.items()})
        command = [sys.executable, "-c", RUN, what]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        (line,) = done.stdout.splitlines()  # and nothing of Java's own
        return line

    run("leave")
    assert not (tmp_path / "cache").exists()
    for _ in range(2):
        assert str(tmp_path) not in run("keep")
    (made,) = (tmp_path / "cache").glob("*.jsa")
    assert str(made) in run("keep")
