"""The ways to run a job, as a user types them; `python jobs/…` is what tests/cluster kills."""

from __future__ import annotations

import subprocess
from importlib.metadata import version

import pytest

from cluster.processes import BIN, ROOT, environment, settings
from corpora import manifest, vectors, write, write_pictures
from ember import cli
from ember.settings.comparison import ExportConfig
from ember.settings.config import load


def run(command, umask=-1, **extra):
    command = [str(BIN / command[0]), *command[1:]]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(**extra),
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
    )


def test_spark_submit_writes_the_table_and_refuses_to_write_it_twice(tmp_path, resnet):
    given = settings(
        input__path=write_pictures(tmp_path / "in.parquet", 10),
        input__id="image_id",
        model__name=resnet,
        output__path=tmp_path / "out",
        input__modality="image",
    )
    command = ["spark-submit", "jobs/embed.py", "--config", "conf/embed_images.yaml", *given]
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert len(vectors(tmp_path / "out", "image_id")) == 10
    assert "10 rows" in done.stdout
    again = run(command)  # spark-submit has an exit code of its own to pass on
    assert again.returncode == 2
    said = again.stdout + again.stderr  # and puts both streams of its program on stdout
    assert "exists; set output.mode" in said
    assert "Traceback" not in said


def test_spark_submit_in_an_ascii_locale_refuses_arguments_that_have_lost_their_letters(tmp_path):
    columns = {"id": ["a", "b", "c"], "embedding": [[1.0, 2.0], [3.0, 1.0], [5.0, 0.5]]}
    write(tmp_path / "größe" / "in.parquet", **columns)
    write(tmp_path / "gr????e" / "in.parquet", **columns)  # what the argument becomes
    given = settings(
        input__path=tmp_path / "größe", input__id="id", dimension=2, output__path=tmp_path / "out"
    )
    done = run(["spark-submit", "jobs/project.py", *given], LC_ALL="C")
    assert done.returncode == 2
    said = done.stdout + done.stderr
    assert f"the argument 'input.path={tmp_path}/gr????e'" in said.replace("--set=", "")
    assert "start Spark with LC_ALL=C.UTF-8 in its environment" in said
    assert not (tmp_path / "out").exists()


def test_spark_submit_heeds_the_umask_and_takes_a_glob_in_an_ascii_locale(tmp_path):
    columns = {"id": ["a", "b", "c"], "embedding": [[1.0, 2.0], [3.0, 1.0], [5.0, 0.5]]}
    write(tmp_path / "in" / "part-1.parquet", **columns)
    out = tmp_path / "out"
    given = settings(
        input__path=tmp_path / "in" / "part-?.parquet",
        input__id="id",
        dimension=2,
        output__path=out,
    )
    done = run(["spark-submit", "jobs/project.py", *given], umask=0o077, LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert len(vectors(out, "id")) == 3
    assert {each.stat().st_mode & 0o077 for each in [out, *out.rglob("*")]} == {0}


def test_the_console_script_starts_a_session_that_a_properties_file_decides(tmp_path, resnet):
    (tmp_path / "spark-defaults.conf").write_text(
        "# a comment\n\nspark.master local[1]\nspark.driver.memory=600m\n"
        "spark.driver.extraJavaOptions -XX:TieredStopAtLevel=1\n"
    )
    given = settings(
        input__path=write_pictures(tmp_path / "in.parquet", 3),
        input__id="image_id",
        input__modality="image",
        model__name=resnet,
        output__path=tmp_path / "out",
    )
    done = run(["ember", "embed", *given], SPARK_CONF_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "3 rows" in done.stdout
    assert manifest(tmp_path / "out")["spark"]["master"] == "local[1]"


def test_the_help_of_a_job_is_the_same_in_all_three_ways():
    one, two, three = (
        run([*command, "--help"], COLUMNS="90")
        for command in (
            ["spark-submit", "jobs/join.py"],
            ["python", "jobs/join.py"],
            ["ember", "join"],
        )
    )
    assert (one.returncode, two.returncode, three.returncode) == (0, 0, 0)
    assert one.stdout == two.stdout == three.stdout
    assert three.stdout.startswith("usage: ember join ")
    assert "Find all pairs of rows that are similar enough" in three.stdout
    assert "\n  threshold (number; required)\n" in three.stdout
    assert max(map(len, three.stdout.splitlines())) <= 90


def test_a_printed_configuration_is_the_same_by_script_and_by_name(tmp_path):
    script, name = (
        run([*command, "--print-config"])
        for command in (["python", "jobs/export.py"], ["ember", "export"])
    )
    assert (script.returncode, name.returncode) == (0, 0)
    assert script.stdout == name.stdout
    file = tmp_path / "export.yaml"
    file.write_text(name.stdout)
    given = ["corpus.path=a", "corpus.id=i", "output.path=o"]
    assert load(ExportConfig, str(file), given) == load(ExportConfig, None, given)


def test_an_unknown_job_shows_the_usage():
    done = run(["ember", "embde"])
    assert done.returncode == 2
    assert "usage: ember {classify,dedup,describe,doctor,embed," in done.stderr
    assert "there is no job 'embde' (did you mean embed?)" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["EMBD"], "no job 'EMBD' (did you mean embed?)"),
        (["nothing-like-it"], "no job 'nothing-like-it'\n"),
        (["--verson"], "no option '--verson' (did you mean --version?)"),
        (["x" * 10_000], "x'\nusage: "),
    ],
)
def test_what_is_no_job_is_said_with_the_nearest_one(capsys, given, said):
    assert cli.main(given) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert len(printed.err) < 500
    assert not printed.out


@pytest.mark.parametrize(("given", "code"), [(["--help"], 0), (["-h"], 0), ([], 2)])
def test_the_help_has_a_line_for_each_job(capsys, monkeypatch, given, code):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert cli.main(given) == code
    printed = capsys.readouterr()
    lines = (printed.err if code else printed.out).splitlines()
    files = [file for file in sorted((ROOT / "jobs").glob("*.py")) if file.stem != "__init__"]
    listed = lines[lines.index("jobs:") + 1 :]
    assert len(listed) == len(files)
    for file, line in zip(files, listed, strict=True):
        name, about = line.split(maxsplit=1)
        assert name == file.stem
        assert file.read_text("utf-8").startswith(f'"""{about}"""')
    assert max(map(len, lines)) <= 100


def test_the_version_is_that_of_the_package(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ember {version('ember-spark')}\n"


@pytest.mark.parametrize("given", ["--help", "--version", "embde"])
def test_what_the_command_says_of_itself_needs_no_library(given):
    """Python with what is installed, but for the libraries that take seconds to import."""
    program = (
        "import sys; from ember.cli import main; main(sys.argv[1:]); "
        "print(*{m.split('.')[0] for m in sys.modules} - sys.stdlib_module_names)"
    )
    done = run(["python", "-c", program, given])
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "ember" in loaded
    assert not loaded & {"pyspark", "pyarrow", "numpy", "pydantic", "yaml", "torch", "tensorflow"}
