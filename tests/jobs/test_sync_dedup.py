"""dedup with output.mode sync: after any change of the rows, the tables that a full run gives.

Each sequence of changes is of texts in words of its own, so that no group has rows of two.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from corpora import leftovers, manifest, write
from ember.spark.staging import Staging

SEQUENCES, NIGHTS, WIDTH = 45, 1, 16
TEXTS = {"id": "id", "content": "text"}


class Texts:
    """Rows by id: text (None is no text), priority, vector (None was never embedded)."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(5)
        self.rows: dict[str, list] = {}
        for sequence in range(SEQUENCES):
            self.add(sequence, int(self.rng.integers(1, 12)))

    def of(self, sequence: int) -> list[str]:
        return [key for key in self.rows if key.startswith(f"{sequence}-")]

    def row(self, sequence: int) -> list:
        """A text of its own, or an edited copy of another row's, with a vector that is or is not
        like that one's."""
        there = [key for key in self.of(sequence) if self.rows[key][0]]
        words = [f"s{sequence}w{n}" for n in self.rng.integers(0, 40, 12)]
        vector = self.rng.normal(size=WIDTH).astype(np.float32)
        if there and self.rng.random() < 0.7:
            text, _, other = self.rows[there[self.rng.integers(len(there))]]
            words = text.split()
            dice = self.rng.random()
            if dice < 0.3:
                words = [word.upper() for word in words]
            elif dice < 0.8:
                words[self.rng.integers(len(words))] = f"s{sequence}new{self.rng.integers(9)}"
            else:
                self.rng.shuffle(words)
            if other is not None and self.rng.random() < 0.5:
                vector = other + 0.02 * vector
        missing = self.rng.random(2) < 0.03
        text = None if missing[0] else " ".join(words)
        return [text, int(self.rng.integers(4)), None if missing[1] else vector]

    def add(self, sequence: int, count: int) -> None:
        for _ in range(count):
            self.rows[f"{sequence}-{self.rng.integers(100):02}"] = self.row(sequence)

    def change(self) -> None:
        for sequence in range(SEQUENCES):
            if self.rng.random() < 0.3:
                continue
            for key in self.of(sequence):
                dice = self.rng.random()
                if dice < 0.07:
                    del self.rows[key]
                elif dice < 0.12:
                    self.rows[key] = self.row(sequence)
                elif dice < 0.17:
                    self.rows[key][1] = int(self.rng.integers(4))
                elif dice < 0.2 and self.rows[key][2] is not None:
                    self.rows[key][2] = self.rng.normal(size=WIDTH).astype(np.float32)
            self.add(sequence, int(self.rng.integers(0, 3)))

    def write(self, folder) -> None:
        """As two tables, in files whose names and order are others each night."""
        for name in ("texts", "vectors"):
            (folder / name).mkdir(exist_ok=True)
            for file in (folder / name).iterdir():
                file.unlink()
        for part in np.array_split(self.rng.permutation(list(self.rows)), 3):
            name = f"{self.rng.integers(1e9)}.parquet"
            texts, priorities, vectors = zip(*(self.rows[key] for key in part), strict=True)
            columns = {"id": part, "text": pa.array(texts, pa.string()), "priority": priorities}
            pq.write_table(pa.table(columns), folder / "texts" / name)
            have = [key for key, vector in zip(part, vectors, strict=True) if vector is not None]
            lists = pa.array([self.rows[key][2] for key in have], pa.list_(pa.float32()))
            columns = {"id": pa.array(have, pa.string()), "embedding": lists}
            pq.write_table(pa.table(columns), folder / "vectors" / name)


def shades(seed: int, side: int = 64) -> bytes:
    """A smooth picture, which stays the same one when it is drawn in another size."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def tables(out):
    found = {}
    for name in ("kept", "removed"):
        rows = pq.read_table(out / name).to_pylist()
        found[name] = sorted(tuple(row.values()) for row in rows)
    return found


def assert_equal(run_job, out, full, settings):
    """A synced output, held against a full run with these settings."""
    assert run_job("dedup", **settings, output__path=full, output__mode="overwrite")[0] == 0
    assert tables(out) == tables(full)
    assert manifest(out)["counts"] == manifest(full)["counts"]


def test_deduplicated_tables_follow_their_rows(run_job, tmp_path, monkeypatch):
    texts = Texts()
    out, full = tmp_path / "work" / "out", tmp_path / "full"
    settings = {
        "input__path": tmp_path / "texts",
        "input__id": "id",
        "input__content": "text",
        "input__modality": "text",
        "input__embedding": f"{{path: {tmp_path}/vectors, id: id}}",
        "tiers": "[exact, {minhash: 0.5}, {embedding: 0.9}]",
        "keep": "{first_by: priority}",
        "limits__max_failed_fraction": 0.5,
        "report": "false",
    }
    sync = {**settings, "output__path": out, "output__mode": "sync"}
    for night in range(NIGHTS + 1):
        texts.write(tmp_path)
        if night == NIGHTS:
            with monkeypatch.context() as patched:
                die = lambda *_: (_ for _ in ()).throw(OSError("killed"))  # noqa: E731
                patched.setattr(Staging, "publish", die)
                code, told = run_job("dedup", **sync)
                assert (code, "OSError: killed" in told) == (1, True), told
        assert run_job("dedup", **sync)[0] == 0
        how = "what changed" if night else "everything"
        assert manifest(out)["sync"]["compared"] == how
        if night < NIGHTS:
            texts.change()
    assert leftovers(out.parent) == ["out"]
    assert_equal(run_job, out, full, settings)
    by_tier = manifest(full)["counts"]["by_tier"]
    assert min(by_tier.values()) >= SEQUENCES // 9, by_tier


def test_copies_in_another_table_follow_both(run_job, tmp_path):
    out, full = tmp_path / "work" / "out", tmp_path / "full"
    words = [f"word{number}" for number in range(300)]
    rng = np.random.default_rng(6)
    known = {f"train-{n:02}": " ".join(rng.choice(words, 12)) for n in range(40)}
    ours = {f"test-{n:02}": known[f"train-{n:02}"] for n in range(20)}
    ours |= {f"test-{n:02}": " ".join(rng.choice(words, 12)) for n in range(20, 40)}
    settings = {
        **{f"input__{key}": value for key, value in TEXTS.items()},
        "input__path": tmp_path / "input",
        "input__modality": "text",
        **{f"against__{key}": value for key, value in TEXTS.items()},
        "against__path": tmp_path / "against",
        "tiers": "[exact, {minhash: 0.5}]",
        "report": "false",
    }
    nights = [
        lambda: None,
        # test-03 has a copy no more
        lambda: (
            known.pop("train-03")
            and known.update({"train-25": ours["test-25"].upper(), "train-90": "a b c d e f"})
        ),
        lambda: ours.update({"test-30": f"{known['train-33']} more", "test-05": "of its own here"}),
    ]
    for night, change in enumerate(nights):
        change()
        known.pop(f"train-0{night}")
        write(tmp_path / "input" / f"{night}.parquet", id=[*ours], text=[*ours.values()])
        write(tmp_path / "against" / f"{night}.parquet", id=[*known], text=[*known.values()])
        for name in ("input", "against"):
            (tmp_path / name / f"{night - 1}.parquet").unlink(missing_ok=True)
        sync = {**settings, "output__path": out, "output__mode": "sync"}
        assert run_job("dedup", **sync)[0] == 0
        assert manifest(out)["sync"]["compared"] == ("what changed" if night else "everything")
    assert_equal(run_job, out, full, settings)
    removed = {row["id"] for row in pq.read_table(out / "removed").to_pylist()}
    assert {"test-04", "test-25", "test-30"} <= removed
    assert not {"test-00", "test-01", "test-02", "test-05"} & removed


def test_copies_of_pictures_follow_their_table(run_job, tmp_path):
    out, full = tmp_path / "work" / "out", tmp_path / "full"
    pictures = {f"p{n}": shades(n) for n in range(8)} | {f"q{n}": shades(n, 96) for n in range(3)}
    settings = {
        "input__path": tmp_path / "in",
        "input__id": "id",
        "input__content": "content",
        "input__modality": "image",
        "tiers": "[exact, {perceptual: 8}]",
        "report": "false",
    }
    nights = [
        lambda: None,
        lambda: (
            pictures.pop("p0") and pictures.update(q5=shades(5, 96), q1=shades(1), p2=shades(50))
        ),
    ]
    for night, change in enumerate(nights):
        change()
        write(tmp_path / "in" / f"{night}.parquet", id=[*pictures], content=[*pictures.values()])
        (tmp_path / "in" / f"{night - 1}.parquet").unlink(missing_ok=True)
        sync = {**settings, "output__path": out, "output__mode": "sync"}
        assert run_job("dedup", **sync)[0] == 0
        assert manifest(out)["sync"]["compared"] == ("what changed" if night else "everything")
    assert_equal(run_job, out, full, settings)
    removed = pq.read_table(out / "removed").to_pylist()
    assert {tuple(sorted((row["id"], row["kept_id"]))) for row in removed} == {
        ("p1", "q1"),
        ("p5", "q5"),
    }
