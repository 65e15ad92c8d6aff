"""Commands in poor surroundings: an ASCII locale, a stdout that is gone, a strict umask."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from cluster.processes import BIN, ROOT, environment
from corpora import manifest, rows, write
from ember.errors import InvalidInput
from ember.job import Run
from ember.spark import console
from ember.spark.storage import Storage

NAME = "größe 日本 #1"


def vectors(path):
    matrix = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    ids = [f"né-{number}" for number in range(8)]
    return write(path, schlüssel=ids, embedding=pa.array(list(matrix), pa.list_(pa.float32())))


def test_a_job_in_an_ascii_locale_names_and_shows_all_letters_and_heeds_the_umask(tmp_path):
    vectors(tmp_path / NAME / "in.parquet")
    (tmp_path / "größe.yaml").write_text(
        f"input: {{path: '{tmp_path / NAME}', id: schlüssel}}\ndimension: 2\n", "utf-8"
    )
    out = tmp_path / f"{NAME} out"
    command = [str(BIN / "ember"), "project", f"--config={tmp_path / 'größe.yaml'}"]
    command += [f"--set=output.path={out}", "--run-id=run:1+1"]
    poor = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment(**poor), capture_output=True, check=False, umask=0o077
    )
    assert done.returncode == 0, done.stderr
    assert sorted(rows(out, "schlüssel")) == [f"né-{number}" for number in range(8)]
    assert manifest(out)["run_id"] == "run:1+1"
    assert "8 rows of 2 dimensions in file:" in done.stdout.decode()
    modes = {each.stat().st_mode & 0o077 for each in [out, *out.rglob("*")]}
    assert modes == {0}


def stdout(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    return stream


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", r"\xe9\u65e5"), ("latin-1", r"é\u65e5")])
def test_the_last_word_is_escaped_where_stdout_lacks_its_letters(monkeypatch, encoding, shown):
    stream = stdout(monkeypatch, encoding)
    run = Run("embed", None, "id", False, None)
    run.say("é日")
    assert stream.buffer.getvalue().decode(encoding) == f"ember embed: {shown} (run id)\n"


def test_a_stdout_that_is_closed_full_or_a_broken_pipe_is_no_failure():
    program = "from ember.spark.console import say; [say('x' * 9999) for _ in range(99)]"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as broken:
        broken.stdout.close()
        assert (broken.wait(), broken.stderr.read()) == (
            0,
            b"stdout takes no more: [Errno 32] Broken pipe\n",
        )
    for target in (">&-", "> /dev/full"):
        done = subprocess.run(
            ["sh", "-c", f'"$0" -c "$1" {target}', sys.executable, program], check=False
        )
        assert done.returncode == 0


def test_java_that_cannot_name_a_file_is_told_before_any_work(spark, tmp_path, monkeypatch):
    storage = Storage(spark)
    system = spark._jvm.java.lang.System
    before = system.setProperty("sun.jnu.encoding", "ANSI_X3.4-1968")
    try:
        with pytest.raises(InvalidInput, match=r"in ANSI_X3.4-1968 here and cannot name .*LC_ALL"):
            storage.qualify(str(tmp_path / NAME))
        assert storage.qualify("/plain") == "file:/plain"
    finally:
        system.setProperty("sun.jnu.encoding", before)


def test_only_an_ascii_locale_is_changed(monkeypatch):
    for encoding, changed in (("ANSI_X3.4-1968", "C.UTF-8"), ("UTF-8", None), ("ISO-8859-1", None)):
        monkeypatch.delenv("LC_ALL", raising=False)
        monkeypatch.setattr("locale.getencoding", lambda encoding=encoding: encoding)
        console.let_java_have_unicode()
        assert os.environ.get("LC_ALL") == changed


@pytest.mark.parametrize(
    "given", ["a\nb", "../x", "a/b", "", "x" * 129, "-a", "a b", "é", ".a", "a\0"]
)
def test_a_run_id_that_is_no_name_is_refused(run_job, capsys, given):
    with pytest.raises(SystemExit, match="2"):
        run_job("project", f"--run-id={given}")
    assert "is no run id; give up to 128 letters, digits" in capsys.readouterr().err
