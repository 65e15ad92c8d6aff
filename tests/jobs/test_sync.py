"""Tables that follow their input: equal to a fresh run, and only new content through the model."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import leftovers, manifest, picture, rows, write
from ember.embedding.model_work import ModelWork
from ember.embedding.sync import Sync, check
from ember.errors import InvalidConfig
from ember.settings.outputs import RowsOutputConfig
from ember.spark.done_rows import DoneRows
from ember.spark.staging import Staging
from tiny_models import tiny_gpt2

WORDS = ["cat", "dog", "mat", "house", "tree", "blue", "big", "small", "runs", "sat"]
SEQUENCES, STEPS = 100, 4
Rows = list[tuple[str, str | None]]


def sha(content: str | bytes | None) -> str | None:
    data = content.encode() if isinstance(content, str) else content
    return None if data is None else hashlib.sha256(data).hexdigest()


@dataclass
class Corpus:
    """One sequence of changes: rows that are added, changed, swapped, repeated and deleted."""

    number: int
    rows: Rows = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.number)
        self.rows = [self._row() for _ in range(3)]

    def step(self) -> None:
        for _ in range(self.random.choice([0, 1, 1, 2])):
            place = self.random.randrange(len(self.rows)) if self.rows else None
            change = self.random.choice(["add", "change", "delete", "swap", "repeat"])
            if change == "add" or place is None:
                self.rows.append(self._row())
            elif change == "change":
                self.rows[place] = (self.rows[place][0], self._content())
            elif change == "delete":
                del self.rows[place]
            elif change == "swap":
                (one, first), (other, last) = self.rows[place], self.rows[0]
                self.rows[place], self.rows[0] = (one, last), (other, first)
            else:
                self.rows.append(self.random.choice([self.rows[place], (self.rows[place][0], "a")]))

    def _row(self) -> tuple[str, str | None]:
        return f"{self.number}-{self.random.randrange(12)}", self._content()

    def _content(self) -> str | None:
        drawn = self.random.random()
        if drawn < 0.1:
            return self.random.choice([None, "", "  "])
        shared = " ".join(self.random.choices(WORDS, k=2))  # with other corpora
        return shared if drawn < 0.6 else f"{shared} {self.number}"


@dataclass
class Expected:
    """What runs through the model, by brute force."""

    published: Rows = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def runs(self, now: Rows, *, retry: bool = True) -> Counter[str | None]:
        """How many rows of each content run."""
        rest: list[str | None] = []
        before = of_ids(self.published)
        for key, contents in of_ids(now).items():
            kept = all(fine(each) or each is None or not retry for each in contents)
            if contents != before.get(key) or not kept:
                rest += contents.elements()
        new = {each for each in rest if each is not None and each not in self.known}
        return Counter({**dict.fromkeys(new, 1), None: rest.count(None)})

    def publish(self, now: Rows) -> None:
        self.published = list(now)
        self.known = {content for _, content in now if content is not None and fine(content)}


def of_ids(now: Rows) -> dict[str, Counter[str | None]]:
    found: dict[str, Counter[str | None]] = {}
    for key, content in now:
        found.setdefault(key, Counter())[content] += 1
    return found


def fine(content: str | None) -> bool:
    return content is not None and bool(content.strip())


class Nights:
    """Runs of one output over inputs that change, and what each of them published."""

    def __init__(self, embed_job, bert, folder: Path) -> None:
        self.job = embed_job
        self.folder, self.source, self.out = folder, folder / "in", folder / "work" / "out"
        self.given = {
            "input__id": "id",
            "input__modality": "text",
            "model__name": bert,
            "limits__max_failed_fraction": 1.0,
        }
        self.drawn = random.Random(7)
        self.expected = Expected()
        self.seen: dict[str | None, None] = {}
        self.published: list[tuple[Rows, list[dict]]] = []

    def put(self, now: Rows) -> None:
        """Write the input, under other names and in other files than before."""
        self.seen |= dict.fromkeys(content for _, content in now)
        for each in self.source.glob("*"):
            each.unlink()
        shuffled = self.drawn.sample(now, len(now))
        parts = self.drawn.randint(1, 3)
        for part in range(parts):
            ids, contents = zip(*shuffled[part::parts], strict=True)
            name = f"{self.drawn.randrange(10**6)}.parquet"
            write(self.source / name, id=ids, content=pa.array(contents, pa.string()))

    def run(self, **settings) -> tuple[int, str]:
        follow = {"input__path": self.source, "output__path": self.out, "output__mode": "sync"}
        return self.job(**self.given, **follow, **settings)

    def kill(self, owner: type, name: str, stop) -> None:
        """Kill a run there; what it has done of the model's work is known from then on."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(owner, name, stop)
            assert self.run()[0] == 130
        found = self.out.parent.glob(f".{self.out.name}.staging/**/new/*.parquet")
        rows = [row for file in found for row in pq.read_table(file).to_pylist()]
        hashes = {row["content_hash"] for row in rows if row["status"] == "ok"}
        self.expected.known |= {each for each in self.seen if each and sha(each) in hashes}

    def check(self, now: Rows, *, retry: bool) -> None:
        """Run, and count what went through the model and what became of the rows."""
        ran: list[int] = []
        fill = Sync.fill

        def counting(self: Sync) -> None:
            ran.append(sum(pq.read_metadata(each).num_rows for each in staged(self)))
            fill(self)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Sync, "fill", counting)
            assert self.run(output__retry_failed=retry) == (0, "")
        told, was = manifest(self.out)["counts"], self.expected.published
        assert told["embedded"] == ran[0] == self.expected.runs(now, retry=retry).total()
        assert told["rows"] == len(now) == told["reused"] + told["copied"] + told["embedded"]
        assert told["new"] == sum(key not in dict(was) for key, _ in now)
        assert told["gone"] == sum(key not in dict(now) for key, _ in was)
        self.expected.publish(now)
        self.published.append((now, pq.read_table(self.out).to_pylist()))

    def fresh(self) -> dict[str | None, dict]:
        """What a run without any history makes of each content that there was."""
        contents = list(self.seen)
        ids = [str(number) for number in range(len(contents))]
        path = write(self.folder / "all.parquet", id=ids, content=pa.array(contents, pa.string()))
        out = self.folder / "fresh"
        assert self.job(**self.given, input__path=path, output__path=out)[0] == 0
        return {contents[int(key)]: row for key, row in rows(out, "id").items()}


def staged(run: Sync) -> list[Path]:
    return sorted(Path(run.output.staging.new.removeprefix("file:")).glob("*.parquet"))


def stop(*_, **__) -> None:
    raise KeyboardInterrupt


def lose(run: Sync) -> None:
    """As if every other task had not ended."""
    for file in staged(run)[::2]:
        file.unlink()
    raise KeyboardInterrupt


def test_any_sequence_of_changes_and_kills_equals_a_fresh_run(embed_job, bert, tmp_path):
    """100 seeded sequences beside each other in one table, files renamed at every step."""
    corpora = [Corpus(number) for number in range(SEQUENCES)]
    nights = Nights(embed_job, bert, tmp_path)
    kills = {1: (Sync, "fill", lose), 2: (DoneRows, "keep", stop), 3: (Staging, "publish", stop)}
    for step in range(STEPS):
        nights.put([row for corpus in corpora for row in corpus.rows])
        if step in kills:
            nights.kill(*kills[step])
            for corpus in corpora[::3]:  # the input goes on changing
                corpus.step()
        now = [row for corpus in corpora for row in corpus.rows]
        nights.put(now)
        nights.check(now, retry=step != 3)
        for corpus in corpora:
            corpus.step()
    assert leftovers(nights.out.parent) == ["out"]

    fresh = nights.fresh()
    for now, table in nights.published:
        pairs = Counter((row["id"], row["content_hash"]) for row in table)
        assert pairs == Counter((key, sha(content)) for key, content in now)
        by_hash = {sha(content): fresh[content] for _, content in now}
        for row in table:
            alone = by_hash[row["content_hash"]]
            assert (row["status"], row["error"]) == (alone["status"], alone["error"])
            assert (row["embedding"] is None) == (alone["embedding"] is None)
        ok = [row for row in table if row["status"] == "ok"]
        ours = np.array([row["embedding"] for row in ok])
        theirs = np.array([by_hash[row["content_hash"]]["embedding"] for row in ok])
        assert np.abs(ours - theirs).max() < 1e-5


def counts_of_a_run(job, out: Path, settings: dict) -> dict[str, int]:
    assert job(**settings, output__path=out, output__mode="sync") == (0, "")
    return manifest(out)["counts"]


def equal_to_a_fresh_run(job, out: Path, settings: dict) -> dict[str, int]:
    """Sync, hold the table against one made anew, and return the counts of the manifest."""
    fresh = out.with_name(f"fresh-{out.name}")
    counts = counts_of_a_run(job, out, settings)
    assert job(**settings, output__path=fresh, output__mode="overwrite") == (0, "")
    ours, theirs = (
        sorted(pq.read_table(each).to_pylist(), key=lambda row: (row["id"], row.get("chunk") or 0))
        for each in (out, fresh)
    )
    assert len(ours) == len(theirs)
    for row, other in zip(ours, theirs, strict=True):
        hashed, vector, alone = (
            row.pop("content_hash"),
            row.pop("embedding", None),
            other.pop("embedding", None),
        )
        assert hashed is None or len(hashed) == 64
        for each in [*(row.get("predictions") or []), *(other.get("predictions") or [])]:
            each["score"] = round(each["score"], 4)
        assert row == other
        assert (vector is None) == (alone is None)
        assert vector is None or np.allclose(vector, alone, atol=1e-5)
    return counts


def test_files_are_known_by_their_bytes_whatever_their_paths(run_job, resnet, tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "work" / "out"
    pictures.mkdir()
    for name, seed in (("a", 1), ("b", 2), ("c", 1)):
        (pictures / name).write_bytes(picture(seed))
    settings = {
        "input__path": tmp_path / "in.parquet",
        "input__id": "id",
        "input__modality": "image",
        "input__content_is": "paths",
        "input__root": pictures,
        "model__name": resnet,
        "limits__max_failed_fraction": 0.5,
    }

    def put(**paths: str | None) -> None:
        write(tmp_path / "in.parquet", id=list(paths), content=list(paths.values()))

    put(a="a", b="b", c="c", d="gone", e=None)
    told = counts_of_a_run(partial(run_job, "classify"), out, settings)
    assert (told["classified"], told["copied"]) == (4, 1)  # a, b, and the two without a file
    hashes = {key: row["content_hash"] for key, row in rows(out, "id").items()}
    assert hashes == {**dict.fromkeys("ac", sha(picture(1))), "b": sha(picture(2)), "d": None,
                      "e": None}  # fmt: skip
    (pictures / "b").write_bytes(picture(3))  # under the same path
    (pictures / "a").rename(pictures / "moved")
    (pictures / "gone").write_bytes(picture(2))
    put(a="moved", b="b", c="c", d="gone", e=None)
    told = equal_to_a_fresh_run(partial(run_job, "classify"), out, settings)
    assert (told["classified"], told["copied"], told["reused"]) == (1, 1, 3)
    assert (told["changed"], told["unchanged"]) == (2, 3)


def test_chunks_and_prompts_follow_as_well(run_job, bert, tmp_path):
    out, long = tmp_path / "work" / "out", "the cat sat on a mat and the big dog runs " * 3
    gpt2 = f"hf:{tiny_gpt2(tmp_path / 'gpt2')}"
    settings = {
        "input__path": tmp_path / "in.parquet",
        "input__id": "id",
        "input__modality": "text",
        "limits__max_failed_fraction": 0.5,
    }
    cut = {**settings, "model__name": bert, "chunk__tokens": 8, "chunk__overlap": 2}
    asked = {
        **settings,
        "model__name": gpt2,
        "generation__max_new_tokens": 4,
        "prompt__template": "a {content}",
        "generation__sampling": "{seed: 1}",
    }
    write(tmp_path / "in.parquet", id=["a", "b", "c"], content=[long, "a dog", long])
    told = counts_of_a_run(partial(run_job, "embed"), out, cut)
    assert (told["embedded"], told["copied"], told["input_rows"]) == (2, 1, 3)
    texts = tmp_path / "work" / "texts"
    told = counts_of_a_run(partial(run_job, "describe"), texts, asked)
    assert (told["described"], told["copied"]) == (3, 0)  # tokens are drawn by the id

    write(tmp_path / "in.parquet", id=["a", "c", "d", "e"], content=["a dog", long, None, "a dog"])
    told = equal_to_a_fresh_run(partial(run_job, "embed"), out, cut)
    assert (told["embedded"], told["copied"], told["reused"], told["gone"]) == (1, 2, 1, 1)
    told = equal_to_a_fresh_run(partial(run_job, "describe"), texts, asked)
    assert (told["described"], told["reused"]) == (3, 1)


def test_what_has_not_changed_is_left_alone_and_other_settings_do_all_again(
    embed_job, bert, tmp_path
):
    path = write(tmp_path / "in.parquet", id=[1, 2, 3], content=["a cat", "a dog", None])
    out = tmp_path / "work" / "out"
    given = {
        "input__path": path,
        "input__id": "id",
        "input__modality": "text",
        "model__name": bert,
        "output__path": out,
        "limits__max_failed_fraction": 0.5,
    }
    sync = {**given, "output__mode": "sync"}
    assert embed_job(**given)[0] == 0
    code, message = embed_job(**sync)
    assert (code, "are done again" in message) == (0, True)
    told = manifest(out)
    assert "no content hashes" in told["everything_again"]
    files = {each.name: each.stat().st_mtime_ns for each in out.glob("part-*")}
    Path(path).rename(tmp_path / "other.parquet")
    sync["input__path"] = tmp_path / "other.parquet"
    assert embed_job("--run-id=second", **sync) == (0, "")
    assert {each.name: each.stat().st_mtime_ns for each in out.glob("part-*")} == files
    again = manifest(out)
    assert (again["run_id"], again["model_loads"], again["model"]) == ("second", 0, told["model"])
    assert (again["counts"]["unchanged"], again["counts"]["embedded"]) == (3, 0)
    assert leftovers(out.parent) == ["out"]
    assert pq.read_table(out).num_rows == 3

    code, message = embed_job(**{**sync, "output__mode": "resume"})
    assert (code, "content_hash was sha256" in message) == (2, True)
    code, message = embed_job(**sync, model__layer="cls")
    assert (code, "are done again" in message) == (0, True)
    assert manifest(out)["counts"]["embedded"] == 3
    code, message = embed_job(**{**sync, "limits__max_failed_fraction": 0.1}, model__layer="cls")
    assert (code, "1 of 3 rows failed" in message) == (3, True)


def test_what_cannot_follow_its_input_is_refused():
    def refusal(work: object = None, **output) -> str:
        with pytest.raises(InvalidConfig) as caught:
            check(RowsOutputConfig(**{"mode": "sync", **(output or {"path": "out"})}), work)
        return str(caught.value)

    assert "output.retry_failed is for output.mode sync" in refusal(
        path="out", mode="fail", retry_failed=False
    )
    assert "output.merge_into" in refusal(merge_into="t", format="delta")
    assert "a head labels embeddings" in refusal()
    spec = SimpleNamespace(calibration="rows")
    work = ModelWork("embed", None, None, spec, None, {})  # type: ignore[arg-type]
    assert "int8" in refusal(work)
