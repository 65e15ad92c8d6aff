"""What the documentation says holds together: its examples, and the files and tests it names."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

import ember
from corpora import manifest, rows, write_pictures
from ember.jobs.pipeline import JOBS
from ember.pipeline.planning import plan
from ember.settings import config
from ember.settings.config_keys import Key, keys_of, walk
from ember.settings.config_text import type_name
from ember.settings.diagnosis import DoctorConfig
from ember.settings.pipeline import PipelineConfig

CONF = Path(__file__).parent.parent / "conf"
EXAMPLES = sorted((CONF / "examples").glob("*.yaml"))
KINDS = {name: kind for name, (kind, _) in JOBS.items()}
# Those that are no step of a pipeline as well.
ALL_KINDS = KINDS | {"doctor": DoctorConfig, "pipeline": PipelineConfig}
# A file for each job or kind of evaluation, named for the job.
TEMPLATES = [file for file in sorted(CONF.glob("*.yaml")) if file.stem != "pipeline_demo"]


def kind_of(file: Path) -> type[config.Config]:
    return ALL_KINDS[file.stem.partition("_")[0]]


def given(node: yaml.MappingNode, keys: tuple[Key, ...], value: Any) -> Iterator[Any]:
    """The keys that a file gives, with their values and the numbers of their lines."""
    known = {key.last: key for key in keys}
    for name, inner in node.value:
        key, own = known[name.value], getattr(value, name.value)
        yield key, own, name.start_mark.line
        if key.form == "section" and isinstance(inner, yaml.MappingNode):
            yield from given(inner, key.keys, own)


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_a_setting_in_conf_that_is_no_default_says_so(file):
    """Tables and columns are the user's own; of all else a reader may take the default for it."""
    text = file.read_text("utf-8")
    loaded = config.load(kind_of(file), str(file), [])
    lines = text.splitlines()
    for key, value, line in given(yaml.compose(text), keys_of(kind_of(file)), loaded):
        own = (
            key.required
            or key.form
            or {"text", "path"} & set(re.findall(r"\b(?:text|path)\b", type_name(key.annotation)))
        )
        if not own and value != key.default:
            told = [lines[line]]
            told += lines[line + 1 : line + 2]
            assert re.search(r"# .*\bdefault: ", "\n".join(told)), f"{file.name}: {key.name}"


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.stem)
def test_a_key_in_a_comment_of_conf_is_one_of_its_job(file):
    known = {key.last for key in walk(keys_of(kind_of(file)))}
    own = {"describe": {"label", "captions"}, "dedup": {"perceptual", "minhash", "first_by"}}
    names = own.get(file.stem, set())  # by example
    for line in file.read_text("utf-8").splitlines():
        if re.match(r"# +([a-z_]+: |\{)", line):
            code = line[1:].partition("#")[0]
            found = set(re.findall(r"(?:^ *|[{,] *)([a-z_]+): ", code))
            assert found <= known | names, line


def test_every_job_has_a_file_in_conf():
    assert {file.stem.partition("_")[0] for file in TEMPLATES} == set(ALL_KINDS) - {"pipeline"}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_step_of_an_example_is_valid(file):
    work = plan(config.load(PipelineConfig, str(file), []), KINDS)
    embedded = {step.name for step in work.steps if step.job == "embed"}
    read = {name for step in work.steps for name in step.needs}
    assert embedded <= read  # nothing is embedded in vain
    text = file.read_text("utf-8")
    assert f"--config conf/examples/{file.name}" in text
    assert all(f"\n  {name}: " in text for name in config.load(PipelineConfig, str(file), []).vars)


def test_there_is_an_example_of_each_system():
    assert [file.stem for file in EXAMPLES] == [
        "classifier_comparison",
        "deduplication",
        "image_search",
        "multi_modal_labels",
        "text_pairs",
        "text_to_image_search",
    ]


ROOT = CONF.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
# The scripts of a shell that a page may use beside jobs, and what the suite takes from it.
TOOLS = {"airflow", "grep", "pip", "awk", "python3.11", "pip-audit", "spark-class"}
REQUIRED = {"input.path": "a", "input.id": "i", "input.modality": "text", "model.name": "hf:m"}
REQUIRED |= {"output.path": "o"}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(language: str) -> list[Any]:
    """The fenced blocks of a language in all pages, each named by its page and line."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for block in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, block.start()) + 1
            found.append(pytest.param(block[1], id=f"{name_of(page)}:{line}"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_names_is_there(page):
    text = page.read_text("utf-8")
    tests = "\n".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in tests, name
    for link in re.findall(r"\]\((?!https?:)([^)#]*)#?[^)]*\)", text):
        assert (page.parent / link).exists(), link
    homes = [ROOT, ROOT / "lib" / "ember", ROOT / "tests"]
    endings = r"(?:/|\.(?:py|md|yaml|lock|sh|properties))"
    named = re.findall(rf"`((?:[\w.-]+/)*[\w-]*{endings})(?: [^`]*)?`", text)
    for name in named:
        of_users = name.startswith(("out/", "data/", "_")) or "NAME" in name or "KIND" in name
        assert of_users or any((home / name).exists() for home in homes), name


def test_the_walks_of_the_architecture_are_short():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    files = {}
    for told in re.findall(r"^\*\*.*?(?=\n\n)", text, re.MULTILINE | re.DOTALL):
        name, _, walk = told.removeprefix("**").partition("**")
        files[name] = re.findall(
            r"`([\w/]+\.py)`(?=[^`]*→|[;.]|$)", walk.partition(" For texts")[0]
        )
    page = files["evaluate"] + files.pop("evaluate, with its page")
    assert {name: len(set(walked)) for name, walked in files.items()} == {
        "embed": 25,
        "train, then classify": 23,
        "evaluate": 16,
        "search": 25,
    }
    assert len(set(page)) == 26


def test_the_readme_is_a_page_of_a_product():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 300


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml_in_a_page_is_a_configuration(block, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    file = tmp_path / "block.yaml"
    file.write_text(block, "utf-8")
    given = yaml.safe_load(block)
    if "steps" in given:
        assert plan(config.load(PipelineConfig, str(file), []), KINDS).steps
        return
    jobs = {"dedup": {"tiers", "keep", "against", "pairs"}, "map": {"color"}}
    kind = KINDS[next((name for name, keys in jobs.items() if keys & given.keys()), "embed")]
    missing = [
        f"{key}={value}"
        for key, value in REQUIRED.items()
        if key.partition(".")[0] not in given and key.partition(".")[0] in kind.model_fields
    ]
    config.load(kind, str(file), missing)


def commands() -> list[Any]:
    """Each command of the blocks for a shell, as its words."""
    found = []
    for block in blocks("bash"):
        text = block.values[0].replace("\\\n", " ")
        for number, line in enumerate(text.splitlines()):
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # of the environment
                del words[0]
            if words:
                found.append(pytest.param(words, id=f"{block.id}+{number}"))
    return found


@pytest.mark.parametrize("words", commands())
def test_a_command_in_a_page_names_what_there_is(words):
    jobs = [word for word in words if re.fullmatch(r"jobs/\w+\.py", word)]
    if words[0] == "ember":
        jobs = [f"jobs/{words[1]}.py"]
    if jobs:
        kind = ALL_KINDS[Path(jobs[0]).stem]
        assert (ROOT / jobs[0]).is_file()
        following = list(pairwise(words))
        values = dict(following)
        assert "--config" not in values or (ROOT / values["--config"]).is_file()
        pairs = [value for word, value in following if word == "--set"]
        known = {key.name for key in walk(keys_of(kind))}
        for pair in pairs:
            assert pair.partition("=")[0] in known, pair
        if values.get("--config"):
            config.load(kind, str(ROOT / values["--config"]), pairs)
        return
    scripts = [word for word in words if word.startswith(("scripts/", "tests/"))]
    for word in scripts:
        assert (ROOT / word).exists(), word
    if scripts and scripts[0].endswith(".py"):
        source = (ROOT / scripts[0]).read_text("utf-8")
        for option in re.findall(r"--[a-z-]+", " ".join(words)):
            assert f'"{option}"' in source, option
    assert scripts or Path(words[0]).name in {*TOOLS, "python"}, words


@pytest.mark.parametrize("block", blocks("python"))
def test_python_in_a_page_runs(block, spark, tmp_path, resnet, bert):
    """On a tiny corpus and with tiny models in place of those that are named."""
    for named in set(re.findall(r"\bember\.(\w+)\(", block)):
        assert named in ember.__all__
    corpus = write_pictures(tmp_path / "images.parquet", 6)
    for named, ours in {
        '"data/images.parquet"': repr(corpus),
        '"out/images"': repr(str(tmp_path / "out")),
        '"s3a://bucket/embeddings"': repr(_published(corpus, tmp_path / "published")),
        '"keras:ResNet50"': repr(resnet),
        ', weights="imagenet"': "",
        '"hf:bert-base-uncased"': repr(bert),
        "dimension=256": "dimension=4",
    }.items():
        block = block.replace(named, ours)
    space = {"spark": spark, "df": spark.read.parquet(corpus)}
    exec(compile(block, "block", "exec"), space)
    assert space["table"].count() == 6
    if "ember" not in space:
        return
    assert {row["query_id"] for row in space["neighbors"].collect()} == {
        f"picture-{number:04}" for number in range(6)
    }
    assert all(row["score"] >= 0.9 for row in space["pairs"].collect())
    if "scored" in space:  # by functions of Spark's
        found = space["scored"].collect()
        assert len(found) == 12
        assert all(abs(row["score"] - row["cosine"]) < 1e-5 for row in found)
        (center,) = space["center"].collect()
        assert abs(sum(value**2 for value in center["center"]) - 1) < 1e-5


def _published(table, folder):
    """A folder with a table, and beside it rows that its manifest does not name."""
    folder.mkdir()
    for name in ("part-0.parquet", "part-1.parquet"):
        shutil.copy(table, folder / name)
    (folder / "_manifest.json").write_text('{"files": {"part-0.parquet": 1, "report.html": 1}}')
    return str(folder)


def test_the_configuration_of_the_readme_runs_and_is_resumed(run_job, resnet, tmp_path):
    block = next(each.values[0] for each in blocks("yaml") if each.id.startswith("README"))
    block = block.replace('"keras:ResNet50", weights: imagenet', f'"{resnet}"')
    block = block.replace("data/images.parquet", write_pictures(tmp_path / "in.parquet", 3))
    file = tmp_path / "embed.yaml"
    file.write_text(block.replace("out/images", str(tmp_path / "out")), "utf-8")
    for _ in range(2):
        assert run_job("embed", f"--config={file}") == (0, "")
    assert len(rows(tmp_path / "out", "image_id")) == 3
    assert manifest(tmp_path / "out")["counts"]["reused"] == 3
