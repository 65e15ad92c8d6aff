"""A pipeline with a step for each job that executors with OpenVINO alone can do, and its corpus."""

from __future__ import annotations

from typing import Any

from corpora import picture

STEPS = (
    *("embed", "embed_texts", "project", "search", "join"),
    *("train", "classify", "evaluate", "export"),
)


def columns(rows: int) -> dict[str, Any]:
    """Pictures and texts with labels; each row has a copy."""
    return {
        "id": [f"i{number:02}" for number in range(rows)],
        "image": [picture(number // 2) for number in range(rows)],
        "text": [f"the cat sat on mat {number // 2}" for number in range(rows)],
        "label": [["cat", "dog"][number // 2 % 2] for number in range(rows)],
    }


def pipeline(corpus: str, out: str, resnet: str, bert: str) -> dict[str, Any]:
    """Its configuration: what is at `corpus`, and an output for each step in `out`."""
    images = {"path": corpus, "id": "id", "content": "image", "modality": "image"}
    texts = {"path": corpus, "id": "id", "content": "text", "modality": "text"}
    labels = {"path": corpus, "id": "id", "label": "label"}
    table = {"path": "$embed", "id": "id"}
    steps = {
        "embed": {"job": "embed", "input": images, "model": _model(resnet)},
        "embed_texts": {"job": "embed", "input": texts, "model": _model(bert)},
        "project": {"job": "project", "input": table, "dimension": 8},
        "search": {"job": "search", "queries": table, "corpus": None, "k": 3, "exclude_self": True},
        "join": {"job": "join", "left": table, "threshold": 0.99},
        "train": {"job": "train", "features": [table], "labels": labels},
        "classify": {"job": "classify", "features": [table], "head": "$train"},
        "evaluate": {
            "job": "evaluate",
            "kind": "classification",
            "predictions": {"path": "$classify", "id": "id"},
            "truth": labels,
            "report": False,
        },
        "export": {"job": "export", "corpus": table},
    }
    for name, step in steps.items():
        step["output"] = {"path": f"{out}/{name}"}
    return {"steps": steps, "report": False, "output": {"path": f"{out}/pipeline"}}


def _model(name: str) -> dict[str, str]:
    return {"name": name, "runtime": "openvino"}
