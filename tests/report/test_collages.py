"""Pages of searches, joins and pipelines: what they show, and what hostile rows cannot do there."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import pytest

from ember.errors import InvalidInput
from ember.report import Report, Step, Table, render, render_steps
from ember.report.galleries import neighbor_gallery
from ember.report.report import Item, from_json, to_json
from ember.worker.images.thumbnails import thumbnail
from odd_images import encoded, picture
from report_pages import BROWSER, HOSTILE, MANIFEST, Page, check_safe, figure, visit


def thumb(seed=0, size=(200, 100)):
    made = thumbnail(encoded(picture(*size, seed=seed), "PNG"))
    kind = "png" if made.data.startswith(b"\x89") else "jpeg"
    image = f"data:image/{kind};base64,{base64.b64encode(made.data).decode()}"
    return {"image": image, "width": made.width, "height": made.height}


def scores(*counted):
    rows = [{"lower": n / 4, "upper": (n + 1) / 4, **dict.fromkeys(counted, n)} for n in range(4)]
    figures = [figure(f"{name} score", 0.5) for name in ("mean", "lowest", "median", "highest")]
    return figures, Table(["lower", "upper", *counted], rows)


def likeness(side, ids):
    values = np.eye(len(ids)).tolist()
    rows = [{"side": side, "id": i, "values": v} for i, v in zip(ids, values, strict=True)]
    return Table(["side", "id", "values"], rows)


def search(ids, items):
    """A report of a search in which each id finds the two that come next."""
    figures, bins = scores("first", "neighbors")
    rows = [
        {"query_id": each, "rank": rank, "neighbor_id": ids[(n + rank) % len(ids)], "score": 0.25}
        for n, each in enumerate(ids)
        for rank in (1, 2)
    ]
    tables = {
        "scores": bins,
        "neighbors": Table(["query_id", "rank", "neighbor_id", "score"], rows),
        "similarities": likeness("queries", ids),
    }
    return Report("search", figures, (), tables, {"queries": items} if items else {})


def join(ids, items):
    """A report of a join whose ids all are one group."""
    figures, bins = scores("pairs")
    pairs = [{"left_id": ids[0], "right_id": each, "score": 0.875} for each in ids[1:]]
    members = [
        {
            "group_id": ids[0],
            "size": 99,
            "id": each,
            "representative": each == ids[0],
            "score": None if each == ids[0] else 0.875,
        }
        for each in ids
    ]
    tables = {
        "scores": bins,
        "closest": Table(["left_id", "right_id", "score"], pairs),
        "nearest": Table(["left_id", "right_id", "score"], pairs[:1]),
        "similarities": likeness("left", ids),
        "sizes": Table(["size", "groups"], [{"size": 99, "groups": 1}]),
        "groups": Table(list(members[0]), members),
    }
    return Report("join", figures, (), tables, {"left": items} if items else {})


CONFIG = {"metric": "cosine", "mode": "exact", "k": 2, "threshold": 0.8}
SEARCHED = {**MANIFEST, "config": CONFIG, "tables": {"left": {"rows": 60}}}
JOINED = SEARCHED | {"counts": {"rows": 9, "groups": {"groups": 1, "rows": 99, "largest": 99}}}


def items(ids):
    """For each id another kind of item, in turn: a thumbnail, a text, a reason; all hostile."""
    kinds = [thumb(), {"text": HOSTILE[0]}, {"reason": HOSTILE[1]}, thumb(1, (20, 10))]
    return {each: Item(HOSTILE[2], **kinds[n % len(kinds)]) for n, each in enumerate(ids)}


@pytest.mark.parametrize(("make", "manifest"), [(search, SEARCHED), (join, JOINED)])
def test_hostile_rows_are_shown_and_do_nothing(make, manifest):
    shown = items(HOSTILE)
    page = check_safe(render(make(HOSTILE, shown), manifest))
    images = [a for tag, a in page.elements if tag == "img" and "thumb" in (a["class"] or "")]
    assert {a["src"] for a in images} == {i.image for i in shown.values() if i.image}
    assert {a["alt"] for a in images} == {f"{HOSTILE[2]}, {HOSTILE[n]}" for n in (0, 3, 4)}
    assert any(a["class"] == "thumb tiny" for a in images)
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[2]} <= set(page.texts)
    # Without content there are ids alone, and no room is kept for anything else.
    bare = check_safe(render(make(HOSTILE, {}), manifest))
    assert set(HOSTILE) <= set(bare.texts)
    classes = [(attributes.get("class") or "").split() for _, attributes in bare.elements]
    assert not {"thumb", "text", "blank"} & {name for names in classes for name in names}


def test_a_row_that_its_content_lacks_says_so():
    ids = ["a", "b", "c"]
    page = Page(render(search(ids, {"a": Item(text="words")}), SEARCHED))
    assert page.texts.count("not in the table of contents") == 6
    assert page.texts.count("words") == 3


def test_thumbnails_stand_below_a_text_that_leads_them():
    report = search(["a", "b", "c"], {})
    words = {each: Item(text=each) for each in "abc"}
    thumbs = {each: Item(**thumb()) for each in "abc"}
    for queries, corpus, style in (
        (words, thumbs, "titled"),
        (thumbs, words, "texts"),
        (words, words, "texts"),
        (thumbs, thumbs, "thumbs"),
        ({}, {}, "bare"),
    ):
        both = replace(report, items={"queries": queries, "corpus": corpus})
        assert neighbor_gallery(both).style == style


def test_what_is_kept_as_json_makes_the_same_page():
    report = search(HOSTILE, items(HOSTILE))
    again = from_json(to_json(report))
    assert render(again, SEARCHED) == render(report, SEARCHED)


def test_a_file_that_ember_did_not_keep_is_refused():
    kept = json.loads(to_json(search(["a", "b"], {"a": Item(**thumb())})))
    svg = "data:image/svg+xml;base64,PHN2Zz4="
    for change in (
        {"version": 0},
        {"items": {"queries": {"a": {"image": svg}}}},
        {"items": {"queries": {"a": {"image": thumb()["image"] + '" onload="alert(1)'}}}},
        {"items": {"queries": {"a": {"onload": "x"}}}},
        {"tables": {"scores": None}},
    ):
        with pytest.raises(InvalidInput):
            from_json(json.dumps(kept | change))
    for text in ("", "[]", "{}"):
        with pytest.raises(InvalidInput):
            from_json(text)


def steps():
    ids = ["a1", "b2", "c3", *HOSTILE]
    return [
        Step("pictures", "embed", "up to date", None, "out/e", {**MANIFEST, "model": {"x": 0.1}}),
        Step("nearest", "search", "ran", 1.25, "out/n", SEARCHED, search(ids, items(ids))),
        Step(HOSTILE[0], "join", "up to date", None, "out/p", JOINED, join(ids, items(ids))),
        Step("head", "train", "failed", 0.5, "out/h", message=HOSTILE[1]),
        Step("labels", "classify", "not run"),
    ]


def test_a_training_shows_its_accuracy_and_a_classification_by_its_head_its_counts():
    metrics = {"test": {"accuracy": 0.9375}}
    trained = {**MANIFEST, "head": {"metrics": metrics}, "counts": {"rows": 41}}
    labeled = {**MANIFEST, "head": "5f0c2a", "counts": {"rows": 43}}
    given = [
        Step("head", "train", "ran", 1.0, "out/h", trained),
        Step("labels", "classify", "ran", 1.0, "out/l", labeled),
    ]
    texts = check_safe(render_steps(given, MANIFEST)).texts
    assert "test accuracy" in texts
    assert {"0.9375", "41", "43"} <= set(texts)


def test_the_page_of_a_pipeline_has_all_that_its_steps_have_alone():
    given = steps()
    page = check_safe(render_steps(given, MANIFEST))
    rows = page.tables["steps"]
    assert [row[2] for row in rows] == ["up to date", "ran", "up to date", "failed", "not run"]
    # Of what was up to date as of the run that made it: its manifest says 1.25.
    assert [row[3] for row in rows] == ["1.2", "1.2", "1.2", "0.5", "–"]
    assert page.values["steps"][1][3:6] == ["1.25", "60", "60"]
    alone = Page(render(given[2].report, given[2].manifest))
    ours = {key: table for key, table in page.tables.items() if key.startswith("step-3-")}
    assert ours == {f"step-3-{key}": table for key, table in alone.tables.items()}
    assert ["model.x", "0.1"] in page.tables["step-1-facts"]
    assert page.texts.count(HOSTILE[1]) >= 2
    check_safe(render_steps([], MANIFEST))
    check_safe(render_steps([replace(given[0], manifest={})], MANIFEST))


def test_the_page_of_a_pipeline_opens_with_what_ran_what_failed_and_the_main_figures():
    phases = {"check": 0.25, "page": 2.5}
    counts = {"rows": {"train": 30, "test": 10}, "failed": {"corrupt": 2}}
    head = {"metrics": {"test": {"accuracy": 0.9375}}}
    recall = {"recall": {"measured": 0.97, "interval_95": [0.96, 0.98]}}
    judged = Report("classification", [figure("accuracy", 0.5, 0.4, 0.6), figure("ece", 0.1)])
    sides = {"left": {"rows": 50, "rejected": 3}, "right": {"rows": 40, "rejected": 0}}
    chunks = {"rows": 90, "input_rows": 20}
    given = [
        Step(
            "vectors", "embed", "ran", 3.0, "out/v", {"counts": chunks}, message="k is 5 and was 3"
        ),
        Step("short", "project", "ran", 3.0, "out/s", {"counts": {"rows": 7, "rejected": 1}}),
        Step(
            "head",
            "train",
            "up to date",
            None,
            "out/h",
            {**MANIFEST, "counts": counts, "head": head},
        ),
        Step(
            "near", "search", "ran", 2.0, "out/n", {**SEARCHED, "tables": sides, "search": recall}
        ),
        Step("judge", "evaluate", "ran", 1.0, "out/e", {**MANIFEST, "job": "evaluate"}, judged),
        Step("labels", "classify", "failed", 0.5, "out/l", message="no such model"),
        Step("more", "embed", "not run"),
    ]
    text = render_steps(given, {**MANIFEST, "seconds": phases})
    page = check_safe(text)
    assert "7 steps: 4 ran, 1 up to date, 1 failed, 1 not run. This run took 2.8 s." in text
    assert [row[4:6] for row in page.tables["steps"]] == [
        *(["20", "90"], ["8", "7"], ["42", "–"], ["93", "60"], ["60", "–"], ["–", "–"], ["–", "–"])
    ]
    notes = " ".join(" ".join(page.texts).split())
    opening = [
        "labels failed no such model",
        "head: test accuracy 0.9375",
        "near: recall 0.9700 0.9600 to 0.9800",
        "judge: accuracy 0.5000 0.4000 to 0.6000",
        "What each step did",
        "The seconds of a step that was up to date are those of the run that made its output.",
        "embed, ran in 3.0 s because k is 5 and was 3.",
        "train, up to date, made in 1.2 s by run r1.",
    ]
    places = [notes.find(each) for each in opening]
    assert -1 not in places
    assert places == sorted(places)


LOOK = """
const lines = (id) => [...document.querySelectorAll(`#${id} .strips > li`)]
  .filter((line) => !line.hidden).map((line) => line.querySelector(".id").textContent);
found.before = lines("step-2-neighbors");
const gallery = document.getElementById("step-2-neighbors");
fill(gallery.querySelector("input"), "a1 C3");
found.filtered = lines("step-2-neighbors");
found.told = gallery.querySelector("output").textContent;
fill(gallery.querySelector("input"), "");
found.after = lines("step-2-neighbors");
const table = document.querySelector("#step-2-neighbor_rows");
table.querySelectorAll("thead button")[1].click();
found.ranks = [...table.querySelectorAll("tbody td:nth-child(2)")].map((cell) => cell.textContent);
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome")
def test_a_browser_filters_collages_and_nothing_hostile_runs(tmp_path):
    found = visit(render_steps(steps(), MANIFEST), tmp_path, LOOK)
    assert found["before"] == found["after"] == ["a1", "b2", "c3", *HOSTILE]
    # a1 finds b2 and c3; the last but one finds the last and a1.
    assert found["filtered"] == ["a1"]
    assert found["told"] == "1 of 8 queries"
    assert found["ranks"] == ["2"] * 8 + ["1"] * 8
    assert {name.removesuffix("true") for name in found["images"]} == {"thumb", "thumb tiny"}
    assert len(found["darkCharts"]) == 4
