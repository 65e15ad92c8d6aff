"""Planted copies: how many of each kind of edit dedup finds, and how much of that is right.

    python scripts/bench/dedup.py edits --images images.parquet --texts texts.parquet --out dedup
        [--count 150]
    python scripts/bench/dedup.py scale --texts 1000000 --out dedup

edits: for each edit a corpus of --count rows of the table as they are and as many edited copies,
    deduplicated by the default tiers with their default thresholds. Recall: the share of copies
    that are in one group with their original. Precision: the share of removed rows whose group
    holds nothing but copies of one original. Columns of the images: image_id, content; of the
    texts: text_id, text.
scale: a table of so many short texts, a tenth of them copies with one word changed and a tenth in
    capitals, by the job in a process of its own: seconds by phase, peak memory.

Writes dedup.json, and the table of the edits in Markdown to stdout.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lib"))

from measure import machine, measure

import ember
from ember.spark.session import spark_session

JOB = Path(__file__).resolve().parents[2] / "jobs" / "dedup.py"
Edit = Callable[[Any, random.Random], Any]


def encoded(image: Image.Image, form: str = "JPEG", quality: int = 90) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, quality=quality)
    return stream.getvalue()


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Without `share` of the picture's sides, half of it at each end."""
    x, y = (round(side * share / 2) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


def marked(image: Image.Image) -> Image.Image:
    """With a half transparent line of text across its lower part."""
    layer = Image.new("RGBA", image.size)
    size = max(12, image.height // 10)
    drawn = ImageDraw.Draw(layer)
    drawn.text((image.width // 10, image.height * 3 // 4), "© example.org", "white", font_size=size)
    layer.putalpha(layer.getchannel("A").point(lambda alpha: alpha // 2))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def of_image(change: Callable[[Image.Image], Image.Image], **how: Any) -> Edit:
    return lambda data, _: encoded(change(Image.open(io.BytesIO(data)).convert("RGB")), **how)


IMAGE_EDITS: Mapping[str, Edit] = {
    "the same bytes": lambda data, _: data,
    "resized to a half": of_image(lambda i: i.resize((i.width // 2, i.height // 2))),
    "squeezed to a square": of_image(lambda i: i.resize((224, 224))),
    "recompressed, quality 30": of_image(lambda i: i, quality=30),
    "as PNG": of_image(lambda i: i, form="PNG"),
    "gray": of_image(lambda i: ImageOps.grayscale(i).convert("RGB")),
    "watermark": of_image(marked),
    "cropped by 2%": of_image(lambda i: cropped(i, 0.02)),
    "cropped by 5%": of_image(lambda i: cropped(i, 0.05)),
    "cropped by 10%": of_image(lambda i: cropped(i, 0.10)),
    "mirrored": of_image(ImageOps.mirror),
}


def with_words(text: str, drawn: random.Random, count: int) -> str:
    words = text.split()
    for place in drawn.sample(range(len(words)), min(count, len(words))):
        words[place] = f"word{drawn.randrange(10**6)}"
    return " ".join(words)


def wide(text: str) -> str:
    """With the full-width forms of ASCII, as East Asian keyboards give."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


TEXT_EDITS: Mapping[str, Edit] = {
    "the same text": lambda text, _: text,
    "capitals": lambda text, _: text.upper(),
    "spacing": lambda text, _: f" {'  '.join(text.split())}\n",
    "full-width letters": lambda text, _: wide(text),
    "without marks": lambda text, _: "".join(c for c in text if c.isalnum() or c.isspace()),
    "1 word changed": lambda text, drawn: with_words(text, drawn, 1),
    "2 words changed": lambda text, drawn: with_words(text, drawn, 2),
    "4 words changed": lambda text, drawn: with_words(text, drawn, 4),
    "5 words added": lambda text, _: f"{text} Read more on our site",
    "the first half": lambda text, _: text[: len(text) // 2],
}


def judged(spark: Any, originals: Mapping[str, Any], edit: Edit, modality: str) -> dict[str, Any]:
    """Recall and precision of one edit, with what they are shares of."""
    drawn = random.Random(0)
    rows = dict(originals)
    rows |= {f"{key}/copy": edit(content, drawn) for key, content in originals.items()}
    kind = pa.string() if modality == "text" else pa.binary()
    with tempfile.TemporaryDirectory(prefix="ember-dedup-") as folder:
        table = pa.table({"id": list(rows), "content": pa.array(list(rows.values()), kind)})
        pq.write_table(table, f"{folder}/rows.parquet")
        found = ember.dedup(
            spark.read.parquet(f"{folder}/rows.parquet"), id="id", modality=modality
        )
        removed = {row.id: row for row in found.removed.collect()}
    members: dict[str, set[str]] = {}
    for row in removed.values():
        members.setdefault(row.kept_id, {row.kept_id}).add(row.id)
    together = 0
    for key in originals:
        ends = {removed[each].kept_id if each in removed else each for each in (key, f"{key}/copy")}
        together += len(ends) == 1
    pure = {
        kept: len({each.removesuffix("/copy") for each in group}) == 1
        for kept, group in members.items()
    }
    right = sum(pure[row.kept_id] for row in removed.values())
    return {
        "n": len(originals),
        "recall": together / len(originals),
        "removed": len(removed),
        "precision": right / len(removed) if removed else None,
        "by_tier": found.facts["counts"]["by_tier"],
    }


def distinct(table: pa.Table, key: str, content: str, count: int) -> dict[str, Any]:
    """Rows by id as text; of equal contents the first."""
    rows: dict[Any, str] = {}
    for name, value in zip(table[key].to_pylist(), table[content].to_pylist(), strict=True):
        rows.setdefault(value, str(name))
    return {name: value for value, name in list(rows.items())[:count]}


def edits(given: argparse.Namespace) -> dict[str, Any]:
    images = distinct(pq.read_table(given.images), "image_id", "content", given.count)
    texts = distinct(pq.read_table(given.texts), "text_id", "text", given.count)
    told: dict[str, Any] = {}
    with spark_session("benchmark") as spark:
        for modality, rows, kinds in (("image", images, IMAGE_EDITS), ("text", texts, TEXT_EDITS)):
            for name, edit in kinds.items():
                told[f"{modality}: {name}"] = judged(spark, rows, edit, modality)
                print(name, told[f"{modality}: {name}"], file=sys.stderr, flush=True)
    print("| edit | recall | precision | found by | n |\n|---|---|---|---|---|")
    for name, row in told.items():
        tiers = ", ".join(f"{tier} {count}" for tier, count in row["by_tier"].items() if count)
        precision = "–" if row["precision"] is None else f"{row['precision']:.3f}"
        print(f"| {name} | {row['recall']:.3f} | {precision} | {tiers or '–'} | {row['n']} |")
    return told


def scale(given: argparse.Namespace) -> dict[str, Any]:
    count, drawn = int(given.texts), random.Random(0)
    words = [f"w{number}" for number in range(50_000)]
    with tempfile.TemporaryDirectory(prefix="ember-dedup-") as folder:
        texts = [" ".join(drawn.choices(words, k=30)) for _ in range(count * 8 // 10)]
        texts += [with_words(text, drawn, 1) for text in texts[: count // 10]]
        texts += [text.upper() for text in texts[count // 10 : count * 2 // 10]]
        pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), f"{folder}/in.parquet")
        values = {"input.path": f"{folder}/in.parquet", "input.id": "id", "input.content": "text"}
        values |= {"input.modality": "text", "output.path": f"{folder}/out"}
        command = [sys.executable, str(JOB), *(f"--set={k}={v}" for k, v in values.items())]
        measured = measure(command, Path(folder, "log"), {})
        manifest = json.loads(Path(folder, "out", "_manifest.json").read_text("utf-8"))
    facts = {"seconds": measured.seconds, "by_phase": manifest["seconds"]}
    facts |= {"worker_mib": measured.worker_mib, "tree_mib": measured.tree_mib}
    return {**facts, "counts": manifest["counts"], "tiers": manifest["tiers"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=["edits", "scale"])
    parser.add_argument("--images")
    parser.add_argument("--texts", required=True)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    file = Path(f"{given.out}.json")
    told = json.loads(file.read_text("utf-8")) if file.exists() else {}
    told[given.part] = {"edits": edits, "scale": scale}[given.part](given)
    told["machine"] = machine()
    file.write_text(json.dumps(told, indent=2, default=str) + "\n", "utf-8")


if __name__ == "__main__":
    main()
