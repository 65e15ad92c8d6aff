"""The report page: its numbers are the tables', its texts are only texts, and it runs in a browser.

Rendering needs no Spark; the job that publishes the page is tested in tests/jobs.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from importlib.resources import files

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from ember.report import Report, Table, drawing
from ember.report.charts import confusion
from ember.report.page import chapter_of, picture_files, render
from report_pages import BROWSER, HOSTILE, MANIFEST, Page, check_safe, figure, visit


def classification(names, ids, extra=()):
    """A report whose classes are `names`: 7 rows each, some taken for the next."""
    rng = np.random.default_rng(len(names))
    classes, pairs = [], []
    for number, name in enumerate(names):
        row = {"class": name, "tp": 5, "support": 7, "predicted": 6}
        for each in ("precision", "recall", "f1"):
            low, value, high = np.sort(rng.random(3)).tolist()
            row |= {each: value, f"{each}_low": low, f"{each}_high": high}
        classes.append(row)
        other = names[(number + 1) % len(names)]
        pairs.append({"truth": name, "predicted": name, "count": 5})
        pairs.append({"truth": name, "predicted": other, "count": 1})
        pairs.append({"truth": name, "predicted": None, "count": 1})
    bins = [
        {
            "bin": n,
            "lower": n / 5,
            "upper": (n + 1) / 5,
            "count": n,
            "confidence": (n + 0.4) / 5 if n else None,
            "accuracy": rng.random() if n else None,
            "low": None,
            "high": None,
        }
        for n in range(5)
    ]
    worst = [
        {
            "id": each,
            "truth": names[0],
            "predicted": names[-1],
            "score": 1 / (n + 3),
            "reason": None,
        }
        for n, each in enumerate(ids)
    ]
    off = [row for row in pairs if row["predicted"] not in (None, row["truth"])]
    tables = {"per_class": classes, "most_confused": off, "reliability": bins, "worst": worst}
    if len(names) <= 50:
        tables["confusion"] = pairs
    return Report(
        "classification",
        [
            figure("accuracy", 2 / 3, 0.6123456789, 0.7),
            figure("ece", 1.25e-05, n=58),
            figure("macro_f1", None),
            *extra,
        ],
        [{"reason": "without a prediction, counted as wrong", "rows": 2, "ids": ids[:2]}],
        {name: Table(list(rows[0]), rows) for name, rows in tables.items() if rows},
    )


def same_numbers(page: Page, key: str, rows, names):
    """The exact values of the page's columns of numbers are those of the rows, in order."""
    found = [[value for value in row if value is not None] for row in page.values[key]]
    wanted = [["" if row[n] is None else repr(row[n]) for n in names] for row in rows]
    assert found == wanted


def test_every_number_on_the_page_is_that_of_the_tables():
    slices = [figure("accuracy", 0.25, 0.1, 0.5, 8, "half=b")]
    slices += [figure(m, 0.125, n=8, slice="half=b") for m in ("ece", "macro_f1")]
    report = classification(["ant", "bee", "cat"], ["r1", "r2", "r3"], slices)
    page = check_safe(render(report, MANIFEST))
    same_numbers(page, "figures", report.figures[:3], ("value", "low", "high", "n"))
    assert [row[:5] for row in page.tables["figures"]] == [
        ["accuracy", "0.6667", "0.6123", "0.7000", "60"],
        ["ece", "1.25e-05", "–", "–", "58"],
        ["macro_f1", "–", "–", "–", "60"],
    ]
    classes = report.tables["per_class"].rows
    names = ("f1", "precision", "recall", "tp", "support", "predicted")
    same_numbers(page, "per_class", classes, names)
    for key, names in {
        "most_confused": ("count",),
        "reliability": ("bin", "lower", "upper", "count", "confidence", "accuracy"),
        "worst": ("score",),
    }.items():
        same_numbers(page, key, report.tables[key].rows, names)
    assert page.values["slices"][1][1:3] == ["8", "0.25"]
    assert [row[0] for row in page.tables["worst"]] == ["r1", "r2", "r3"]
    assert page.tables["issues"] == [["without a prediction, counted as wrong", "2", "r1, r2"]]
    assert ["truth.path", "data/labels"] in page.tables["config"]
    assert page.tables["seconds"] == [["judge", "1.25"]]
    assert page.tables["inputs"] == [["file:/data/labels/part-0.parquet"]]
    # The whisker of the first figure: 0.6 to 0.7 on 320 pixels with a margin of 6.
    assert "0.6 95% interval 0.7" in "".join(page.texts)
    span = next(a for tag, a in page.elements if tag == "line" and a["class"] == "span")
    assert float(span["x1"]) == pytest.approx(6 + 308 * 0.123456789, abs=0.01)
    assert float(span["x2"]) == pytest.approx(6 + 308, abs=0.01)


def charts(page: Page):
    return [a for tag, a in page.elements if tag == "svg" and a["class"] == "chart"]


def test_charts_are_drawn_once_in_the_colors_of_the_page_with_a_text_for_each():
    report = classification(["ant", "bee", "cat"], ["r1"])
    text = render(report, MANIFEST)
    page = check_safe(text)
    drawn = charts(page)
    assert [each["role"] for each in drawn] == ["img"] * 3
    assert "ant taken for bee, 1 rows" in drawn[1]["aria-label"]
    assert not [tag for tag, _ in page.elements if tag == "img"]
    for each in drawn:
        assert each["viewbox"] == f"0 0 {each['width']} {each['height']}"
    assert {"ant", "bee", "cat", "answer", "accuracy", "mean score of the bin"} <= set(page.texts)
    assert render(report, MANIFEST) == text


def test_what_a_matplotlibrc_says_changes_no_page():
    report = classification(["ant", "bee", "cat"], ["r1"])
    text = render(report, MANIFEST)
    theirs = {"axes.facecolor": "black", "legend.labelcolor": "red", "axes.grid": True}
    theirs |= {"savefig.bbox": "tight", "text.usetex": True}
    with mpl.rc_context(theirs):
        assert render(report, MANIFEST) == text
        files = picture_files(chapter_of(report, MANIFEST).sections)
    assert files == picture_files(chapter_of(report, MANIFEST).sections)


def test_the_files_of_charts_are_png_twice_as_large_as_on_the_page():
    report = classification(["ant", "bee", "cat"], ["r1"])
    drawn = charts(Page(render(report, MANIFEST)))
    made = picture_files(chapter_of(report, MANIFEST).sections)
    assert list(made) == ["per_class.png", "confusion.png", "reliability.png"]
    for each, file in zip(drawn, made.values(), strict=True):
        image = Image.open(io.BytesIO(file))
        assert image.format == "PNG"
        assert image.size == (2 * int(each["width"]), 2 * int(each["height"]))
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    assert picture_files(chapter_of(report, MANIFEST).sections) == made


def test_a_matrix_is_the_darker_the_larger_the_share_of_the_truth():
    counts = np.array([[3, 1], [0, 0]])
    page = Page(confusion(["a", "b"], ["a", "b"], counts).svg)
    cells = [a["fill-opacity"] for tag, a in page.elements if tag == "path" and a["fill"] != "none"]
    assert cells == ["0.75", "0.25"]


def figures_of(*rows):
    """The whiskers of figures in the page's table, the head of their column, and its pixels."""
    page = check_safe(render(Report("classification", list(rows)), MANIFEST))
    text = "".join(page.texts)
    head = re.search(r"(\S+) 95% interval (\S+)", text)
    ends = [float(end.replace("−", "-")) for end in head.groups()]
    marks = [
        [float(a[name]) for name in names]
        for tag, names in (("line", ("x1", "x2")), ("circle", ("cx",)))
        for t, a in page.elements
        if t == tag and a.get("class") in ("span", None)
    ]
    return ends, marks


@pytest.mark.parametrize(
    ("rows", "ends"),
    [
        ([(0.99, 0.985, 0.9931)], (0.985, 0.995)),
        ([(0.6, 0.5, 0.7), (0.62, 0.55, 0.68)], (0.5, 0.7)),
        ([(0.3, None, None), (0.1, 0.0, 0.2)], (0.0, 0.2)),
        ([(1.0, 1.0, 1.0)], (0.995, 1.0)),
        ([(0.0, 0.0, 0.0)], (0.0, 1.0)),
        ([(-0.02, -0.03, 0.01)], (-0.04, 0.04)),
        ([(0.123456, 0.0512, 0.98765)], (0.0, 1.0)),
        ([(812.0, 650.5, 901.0)], (600.0, 1000.0)),
    ],
)
def test_the_axis_of_intervals_zooms_to_the_figures_and_hides_no_end(rows, ends):
    """Each mark is where the ends that the head of the column names put it."""
    named = [figure(f"f{n}", *row) for n, row in enumerate(rows)]
    (low, high), marks = figures_of(*named)
    assert (low, high) == ends
    spans = [[a, b] for _, a, b in rows if a is not None]
    values = [[value] for value, a, _ in rows if a is not None]
    wanted = [[6 + 308 * (x - low) / (high - low) for x in each] for each in [*spans, *values]]
    assert np.allclose(np.concatenate(marks), np.concatenate(wanted), atol=0.02)
    assert all(6 <= x <= 314 for mark in marks for x in mark)


def test_figures_far_apart_have_axes_on_which_their_intervals_are_seen():
    rows = [figure("accuracy", 0.99, 0.985, 0.993), figure("ece", 0.02, 0.013, 0.031)]
    rows += [figure("macro_f1", 0.989, 0.986, 0.994), figure("micro_f1", 0.5), figure("x", None)]
    page = check_safe(render(Report("classification", rows), MANIFEST))
    ends = [row[-1].split() for row in page.tables["figures"]]
    assert ends == [["0.985", "0.995"], ["0.01", "0.035"], ["0.985", "0.995"], [], []]
    # On axes of 220 pixels with a margin of 6.
    spans = [a for tag, a in page.elements if tag == "line" and a["class"] == "span"]
    wanted = [6, 6 + 208 * 0.8, 6 + 208 * 0.12, 6 + 208 * 0.84, 6 + 208 * 0.1, 6 + 208 * 0.9]
    found = [float(each[end]) for each in spans for end in ("x1", "x2")]
    assert np.allclose(found, wanted, atol=0.02)


def test_hostile_strings_are_text_wherever_they_stand():
    report = classification(HOSTILE, HOSTILE, [figure("accuracy", 0.5, slice=HOSTILE[0])])
    slices = [figure(name, 0.5, slice=HOSTILE[0]) for name in ("ece", "macro_f1")]
    issues = [{"reason": each, "rows": 1, "ids": HOSTILE} for each in HOSTILE]
    report = Report(report.kind, [*report.figures, *slices], issues, report.tables)
    config = dict.fromkeys(HOSTILE, HOSTILE) | {"nested": {HOSTILE[1]: HOSTILE[0]}}
    manifest = {
        **MANIFEST,
        "run_id": HOSTILE[0],
        "finished": HOSTILE[1],
        "config": config,
        "unmet": HOSTILE,
        "versions": dict.fromkeys(HOSTILE, HOSTILE[2]),
        "input_files": HOSTILE,
    }
    page = check_safe(render(report, manifest))
    assert [row[0] for row in page.tables["worst"]] == HOSTILE
    assert [row[0] for row in page.tables["per_class"]] == HOSTILE
    assert [row[0] for row in page.tables["inputs"]] == HOSTILE
    assert page.tables["slices"][1][0] == HOSTILE[0]
    assert any(HOSTILE[1] in each["aria-label"] for each in charts(page))


def test_many_classes_have_no_heat_map_and_a_picture_of_the_worst():
    report = classification([f"class {n}" for n in range(60)], ["r1"])
    page = check_safe(render(report, MANIFEST))
    alts = [each["aria-label"] for each in charts(page)]
    assert [each.split(".")[0] for each in alts] == [
        "Precision and recall of 40 classes",
        "Reliability curve: accuracy by mean score, in 4 bins with rows",
    ]
    assert len(page.tables["per_class"]) == 60
    assert "The picture has the 40 of lowest F1." in page.texts


@pytest.mark.parametrize("kind", ["classification", "multilabel", "retrieval", "similarity"])
def test_an_empty_evaluation_has_a_page(kind):
    figures = [figure(name, None, n=0) for name in ("accuracy", "map", "recall@1", "recall@5")]
    names = ("per_class", "per_label", "most_confused", "confusion", "reliability", "worst")
    columns = ["class", "label", "f1", "precision", "recall", "tp", "support", "predicted"]
    tables = {name: Table(columns, []) for name in names}
    page = check_safe(render(Report(kind, figures, [], tables), MANIFEST))
    assert len(page.tables["figures"]) == 4
    assert page.tables["worst"] == []
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert not charts(page)


def test_a_comparison_shows_both_runs_and_the_paired_difference():
    figures = [
        figure("accuracy", 0.8, 0.7, 0.9),
        figure("ece", 0.1),
        figure("baseline_accuracy", 0.75, 0.65, 0.85),
        figure("baseline_ece", 0.3),
        figure("difference_accuracy", 0.05, -0.01, 0.11),
        figure("difference_ece", -0.2),
    ]
    page = check_safe(render(Report("compare", figures), MANIFEST))
    assert page.tables["figures"] == [
        ["accuracy", "0.8000", "0.7500", "0.0500", "−0.0100", "0.1100", "60", ""],
        ["ece", "0.1000", "0.3000", "−0.2000", "–", "–", "60", ""],
    ]
    # The axis is symmetric, and its origin in the middle.
    origin = next(a for tag, a in page.elements if tag == "line" and a["class"] == "origin")
    assert float(origin["x1"]) == 160
    text = "".join(page.texts)
    assert "difference_accuracy" in text
    assert "−0.2 95% interval 0.2" in text


def test_drift_is_told_by_its_tests_and_drawn_by_its_scores():
    tests = [
        {
            "test": name,
            "method": "permutations",
            "p_value": p,
            "adjusted_p_value": 2 * p,
            "drift": d,
        }
        for name, p, d in (("scores", 0.001, True), ("labels", 0.4, False))
    ]
    scores = [{"score": n / 4, "reference": 5, "current": n} for n in range(5)]
    tables = {"tests": tests, "scores": scores, "labels": [{"label": HOSTILE[0], "reference": 3}]}
    report = Report(
        "drift",
        [figure("score_ks", 0.4, 0.3, 0.5)],
        tables={name: Table(list(rows[0]), rows) for name, rows in tables.items()},
    )
    config = {"kind": "drift", "false_alarms": 0.05}
    page = check_safe(render(report, {**MANIFEST, "config": config}))
    assert "Drift in scores. 60 rows of both tables" in "".join(page.texts)
    assert [row[0] for row in page.tables["tests"]] == ["scores", "labels"]
    same_numbers(page, "tests", tests, ("p_value", "adjusted_p_value"))
    (drawn,) = charts(page)
    # 0.2 x 2 of the reference and (0 + 1) / 10 of the current rows lie at or below 0.25.
    assert drawn["aria-label"].endswith("reference and current, at most 0.3000 at 0.25 apart.")
    assert page.tables["labels"][0][0] == HOSTILE[0]


def test_figures_at_several_ranks_are_drawn_by_rank():
    figures = [
        figure(f"{name}@{k}", k / 20, 0.01, 0.9) for name in ("recall", "ndcg") for k in (1, 5)
    ]
    page = check_safe(render(Report("retrieval", figures), MANIFEST))
    alts = [each["aria-label"] for each in charts(page)]
    assert alts == ["recall, ndcg at the first k documents, by k."]


def test_charts_have_the_light_colors_of_the_page_in_their_files():
    style = (files("ember.report") / "templates" / "page.css").read_text("utf-8")
    for name in ("paper", "ink", "faint", "line", "first", "second"):
        assert f"--{name}: light-dark({getattr(drawing, name.upper())}, " in style


def test_what_a_job_imports_needs_none_of_the_packages_that_make_a_page():
    names = "matplotlib", "jinja2"
    code = f"import sys, ember.report; print({{*sys.modules}} & {{*{names}}} or 'none')"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "none\n"


def test_text_has_the_contrast_of_wcag_aa_in_both_themes():
    style = (files("ember.report") / "templates" / "page.css").read_text("utf-8")
    colors = re.findall(r"--(\w+): light-dark\((#\w+), (#\w+)\)", style)
    light = {name: one for name, one, _ in colors}
    dark = {name: other for name, _, other in colors}

    def luminance(color: str) -> float:
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for theme in (light, dark):
        for paper in ("paper", "sheet"):
            for ink in ("ink", "faint", "first", "warn", "good"):
                low, high = sorted(luminance(theme[name]) for name in (paper, ink))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (paper, ink)


# Uses the table of the worst rows as a reader does.
LOOK = """
const worst = document.getElementById("worst");
const rows = () => [...worst.querySelectorAll("tbody tr")].filter((row) => !row.hidden);
const ids = () => rows().map((row) => row.cells[0].textContent);
found.before = ids();
const button = worst.querySelectorAll("thead button")[3];
button.click(); button.click();
found.sorted = ids();
found.sort = button.closest("th").getAttribute("aria-sort");
fill(worst.querySelector("input"), "R1");
found.filtered = ids();
found.told = worst.querySelector("output").textContent;
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome")
def test_a_browser_shows_it_without_errors_or_requests_and_its_tables_work(tmp_path):
    ids = [*HOSTILE, *(f"r{n}" for n in range(9)), "r10", "r11"]
    report = classification(["ant", HOSTILE[1], HOSTILE[2]], ids)
    found = visit(render(report, MANIFEST), tmp_path, LOOK)
    assert found["before"] == ids
    assert found["sorted"] == ids[::-1]
    assert found["sort"] == "ascending"
    assert found["filtered"] == ["r11", "r10", "r1"]
    assert found["told"] == f"3 of {len(ids)} rows"
    assert found["images"] == []
    assert len(found["darkCharts"]) == 3
