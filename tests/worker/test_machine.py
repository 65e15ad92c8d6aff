"""What a process finds of its machine, from files and variables that are made up, without Spark."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from ember.worker import machine
from ember.worker.machine import examine, reach


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Files in place of /proc and of control groups: write(name, text)."""
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")

    def write(name: str, text: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


def test_this_process_is_told_as_it_is(tmp_path):
    found = examine(["numpy", "no-such-package"], ["json", "no_such_module"], [str(tmp_path)])
    assert found["packages"] == {"numpy": version("numpy")}
    assert found["python"] == sys.version.split()[0]
    assert found["imports"]["json"] == ""
    assert found["imports"]["no_such_module"].startswith("ModuleNotFoundError: ")
    assert found["disks"][0]["path"] == str(tmp_path)
    assert found["disks"][0]["problem"] == ""
    assert found["ended"] >= found["began"]


@pytest.mark.parametrize(
    ("files", "memory", "quota"),
    [
        ({"proc/self/cgroup": "0::/\n"}, None, None),
        (
            {
                "proc/self/cgroup": "0::/pod/box\n",
                "cgroup/pod/memory.max": "4096\n",
                "cgroup/pod/box/memory.max": "max\n",
                "cgroup/pod/box/cpu.max": "150000 100000\n",
                "cgroup/pod/cpu.max": "max 100000\n",
            },
            4096,
            1.5,
        ),
        # The path is that of the host, and the files are the container's own.
        ({"proc/self/cgroup": "0::/host/box\n", "cgroup/memory.max": "8192\n"}, 8192, None),
        (
            {
                "proc/self/cgroup": "4:memory:/box\n3:cpu,cpuacct:/box\n",
                "cgroup/memory/box/memory.limit_in_bytes": "2048\n",
                "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "cgroup/cpu/box/cpu.cfs_quota_us": "-1\n",
                "cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            },
            2048,
            None,
        ),
    ],
    ids=["none", "version 2", "version 2 in a container", "version 1"],
)
def test_the_limits_of_a_container_are_those_of_its_control_groups(made_up, files, memory, quota):
    for name, text in files.items():
        made_up(name, text)
    assert (machine._cgroup_memory(), machine._quota()) == (memory, quota)


def test_an_executor_is_known_by_its_java_process(made_up, monkeypatch):
    """Above the worker is the daemon, and above that is Java with the executor's id."""
    monkeypatch.setattr(machine.os, "getpid", lambda: 30)
    made_up("proc/30/cmdline", "python3\0-m\0pyspark.daemon\0")
    made_up("proc/30/stat", "30 (a (strange) name) S 20 1 1")
    made_up("proc/20/cmdline", "python3\0-m\0pyspark.daemon\0")
    made_up("proc/20/stat", "20 (python3) S 10 1 1")
    made_up("proc/10/cmdline", "/opt/java/bin/java\0-cp\0x\0--executor-id\x007\0--cores\x002\0")
    assert machine._java() == ("7", "10")


def test_instructions_are_those_of_either_kind_of_processor(made_up):
    made_up("proc/cpuinfo", "model name\t: A\nflags\t\t: fpu avx2 avx512f avx512_vnni\n")
    assert machine.instruction_flags() >= {"avx2", "avx512f", "avx512_vnni"}
    assert machine._processor() == "A"
    made_up("proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert machine.instruction_flags() >= {"asimd", "bf16"}


def test_folders_are_those_that_the_user_gave_spark(monkeypatch):
    own = "/big/spark-0b0d7b1e-5a0f-4b8e-9f1e-0123456789ab"
    inner = f"{own}/executor-1b0d7b1e-5a0f-4b8e-9f1e-0123456789ab"
    monkeypatch.setenv(
        "SPARK_LOCAL_DIRS", f"{inner}/blockmgr-2b0d7b1e-5a0f-4b8e-9f1e-0123456789ab,/d"
    )
    assert machine._folders(["/given"])[:2] == ["/big", "/d"]
    monkeypatch.setenv("SPARK_EXECUTOR_DIRS", f"/a/{inner[5:]}:/b")
    assert machine._folders(["/given"])[:2] == ["/a", "/b"]
    monkeypatch.delenv("SPARK_EXECUTOR_DIRS")
    monkeypatch.delenv("SPARK_LOCAL_DIRS")
    assert machine._folders(["/given"])[0] == "/given"


def test_a_folder_that_cannot_be_written_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    assert machine._disk(str(tmp_path / "file"))["problem"] == "Not a directory"
    assert machine._disk(str(tmp_path / "not" / "yet"))["problem"] == ""


def test_paths_are_tried_as_they_are(tmp_path):
    (tmp_path / "file").write_text("x")
    here = [str(tmp_path), str(tmp_path / "file"), str(tmp_path / "none")]
    assert list(reach(here).values()) == ["", "", "No such file or directory"]


def test_it_needs_no_package():
    """It is sent to workers that have none."""
    names = Path(machine.__file__).read_text("utf-8").splitlines()
    words = [
        line.split()[1].partition(".")[0] for line in names if line.startswith(("import ", "from "))
    ]
    assert {*words} <= sys.stdlib_module_names
