"""A pipeline with a step for each job, and its corpus, for suites of clusters and of versions."""

from __future__ import annotations

from typing import Any

from corpora import picture

# Those that executors with OpenVINO alone can do, and those that want torch there.
STEPS = (
    *("embed", "embed_texts", "project", "search", "join", "train", "classify"),
    *("evaluate", "retrieval", "dedup", "map", "export"),
)
WITH_TORCH = ("describe", "finetune")
# The cosine from which rows are pairs of `join`, and the neighbors that `search` finds.
THRESHOLD, NEIGHBORS = 0.99, 3
# Of the texts, half the rows are embedded: those of the first day.
SOME = "day = DATE'2026-11-01'"


def columns(rows: int) -> dict[str, Any]:
    """Pictures and texts with labels and days; each picture is there twice, one after the other."""
    numbers = range(rows)
    return {
        "id": [f"i{number:02}" for number in numbers],
        "image": [picture(number // 2) for number in numbers],
        "text": [f"the cat sat on mat {number}" for number in numbers],
        "label": [["cat", "dog"][number // 2 % 2] for number in numbers],
        "day": [f"2026-11-{number % 2 + 1:02}" for number in numbers],
    }


def pipeline(
    corpus: str,
    out: str,
    resnet: str,
    bert: str,
    gpt2: str | None = None,
    runtime: str = "openvino",
) -> dict[str, Any]:
    """Its configuration: what is at `corpus`, and an output for each step in `out`.

    gpt2: what describes, where executors have torch; without it there is no step that wants it.
    """
    images = {"path": corpus, "id": "id", "content": "image", "modality": "image"}
    texts = {"path": corpus, "id": "id", "content": "text", "modality": "text", "where": SOME}
    labels = {"path": corpus, "id": "id", "label": "label"}
    table = {"path": "$embed", "id": "id"}
    steps: dict[str, dict[str, Any]] = {
        "embed": {"input": images, "model": {"name": resnet, "runtime": runtime}},
        "embed_texts": {
            "job": "embed",
            "input": texts,
            "model": {"name": bert, "runtime": runtime},
        },
        "project": {"input": table, "dimension": 8},
        "search": {"queries": table, "corpus": None, "k": NEIGHBORS, "exclude_self": True},
        "join": {"left": table, "threshold": THRESHOLD, "groups": {"path": f"{out}/groups"}},
        "train": {"features": [table], "labels": labels},
        "classify": {"features": [table], "head": "$train"},
        "evaluate": {
            "kind": "classification",
            "predictions": {"path": "$classify", "id": "id"},
            "truth": labels,
        },
        "retrieval": {
            "job": "evaluate",
            "kind": "retrieval",
            "neighbors": {"path": "$search"},
            "truth": labels,
        },
        "dedup": {"input": images, "tiers": ["exact", "perceptual"]},
        "map": {
            "input": table,
            "color": [{"path": corpus, "id": "id", "column": "label"}],
            "content": {"path": corpus, "id": "id", "content": "image"},
        },
        "export": {"corpus": table},
    }
    if gpt2:
        steps["describe"] = {"input": texts, "model": {"name": gpt2}}
        steps["finetune"] = {
            "input": images,
            "labels": labels,
            "model": {"name": resnet},
            "epochs": {"head": 2, "full": 1},
        }
    for name, step in steps.items():
        step.setdefault("job", name)
        step["output"] = {"path": f"{out}/{name}"}
        step["limits"] = {"max_failed_fraction": 0.1}
    return {"steps": steps, "output": {"path": f"{out}/pipeline"}}


def job(step: str) -> str:
    """The job of a step, for the table of jobs by environment."""
    return {"embed_texts": "embed", "retrieval": "evaluate"}.get(step, step)
