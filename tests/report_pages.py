"""Report pages as tests read them: taken apart, checked for what must not be there, visited."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<svg onload=alert(1)><a href='javascript:alert(1)'>x</a></svg>",
    "{{ 7 * 7 }}{% raw %} $\\frac{1$ -->",
    "line\nbreak\x07 \u202egnp.exe 猫 🐈",
]
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "div", "h1", "h2", "h3", "p"),
    *("b", "button", "nav", "a", "main", "section", "ul", "li", "dl", "dt", "dd", "small"),
    *("output", "label", "input", "table", "thead", "tbody", "tr", "th", "td", "span", "svg"),
    *("line", "circle", "figure", "img", "details", "summary", "pre", "script", "h4", "article"),
    *("path", "text"),
}
MANIFEST = {
    "run_id": "r1",
    "finished": "2026-01-02T03:04:05+00:00",
    "counts": {"rows": 60, "failed": 2},
    "config": {"kind": "classification", "truth": {"path": "data/labels", "id": None}},
    "versions": {"python": "3.11.0"},
    "input_files": ["file:/data/labels/part-0.parquet"],
    "seconds": {"judge": 1.25},
    "unmet": [],
}


class Page(HTMLParser):
    """A page as a browser takes it apart: elements, texts of elements, tables by key."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.values: dict[str, list[list[str | None]]] = {}
        self._open: list[str] = []
        self._key = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.elements.append((tag, values))
        if tag not in {"meta", "input", "img"}:
            self._open.append(tag)
        if values.get("class") == "table":
            self._key = values["id"]
            self.tables[self._key], self.values[self._key] = [], []
        elif tag == "tr" and "tbody" in self._open:
            self.tables[self._key].append([])
            self.values[self._key].append([])
        elif tag in {"td", "th"} and "tbody" in self._open:
            self.tables[self._key][-1].append("")
            self.values[self._key][-1].append(values.get("data-value"))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in {"script", "style"}:
            self.scripts.append(data)
            return
        self.texts.append(data)
        if "tbody" in self._open and {"td", "th"} & set(self._open):
            self.tables[self._key][-1][-1] += data


def figure(metric, value, low=None, high=None, n=60, slice="all"):
    return {"metric": metric, "slice": slice, "value": value, "low": low, "high": high, "n": n}


def check_safe(text: str) -> Page:
    """Only the page's own elements, attributes and scripts, each script named in the policy."""
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag in TAGS, tag
        assert not {"style", "srcdoc", "action"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert re.match("data:image/(png|jpeg);base64,|#", attributes.get(name) or "#")
        for name in {"fill", "stroke"} & set(attributes):
            assert re.fullmatch(r"none|var\(--[a-z]+\)", attributes[name] or "")
    policy = next(a["content"] for t, a in page.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert [tag for tag, _ in page.elements].count("script") == 1
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    anchors = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert {anchor.removeprefix("#") for anchor in anchors} <= set(names)
    for inline in page.scripts:
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    return page


BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# Around what a test does with the page as a reader would: what the browser noticed meanwhile. All
# of it while the page loads, after which the browser prints it, however busy the machine is.
_VISIT = """
const attempts = [];
addEventListener("error", (event) => attempts.push("error " + event.message));
addEventListener("securitypolicyviolation", (event) => attempts.push("policy " + event.blockedURI));
addEventListener("load", () => {
  const found = {};
  const paper = () => getComputedStyle(document.body).backgroundColor;
  const colors = () => [...document.querySelectorAll(".chart")].map((chart) => {
    const ink = getComputedStyle(chart.querySelector('text[fill="var(--ink)"]')).fill;
    return chart.checkVisibility() && chart.getBoundingClientRect().width > 100 ? ink : "hidden";
  });
  const fill = (input, text) => { input.value = text; input.dispatchEvent(new Event("input")); };
  LOOK
  found.light = paper();
  found.lightCharts = colors();
  document.getElementById("theme").click();
  found.dark = paper();
  const images = [...document.images].filter((image) => image.checkVisibility());
  found.images = images.map(
    (image) => image.className + (image.complete && image.naturalWidth > 0));
  found.darkCharts = colors();
  found.wide = document.documentElement.scrollWidth > innerWidth;
  found.resources = performance.getEntriesByType("resource")
    .map((entry) => entry.name.slice(0, 11));
  found.attempts = attempts;
  document.documentElement.replaceChildren(JSON.stringify(found));
});
"""


def visit(text: str, folder: Path, look: str) -> dict[str, Any]:
    """What `look`, statements that fill `found`, sees of the page on a phone's screen.

    Fails for errors, requests, a page wider than the screen, or pictures that do not show.
    """
    script = _VISIT.replace("LOOK", look)
    # The visit is a second script, which the policy must be told of.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = text.replace("script-src '", f"script-src 'sha256-{digest}' '", 1)
    text = text.replace("<script>", f"<script>{script}</script><script>", 1)
    path = folder / "visited.html"
    path.write_text(text, "utf-8")
    command = [
        *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-dev-shm-usage", "--enable-logging=stderr"),
        *(f"--user-data-dir={folder / 'profile'}", "--window-size=390,800", "--dump-dom"),
        path.as_uri(),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, errors = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert "CONSOLE" not in errors, errors
    found: dict[str, Any] = json.loads("".join(Page(out).texts))
    assert (found["light"], found["dark"]) == ("rgb(255, 255, 255)", "rgb(21, 24, 28)")
    assert all(each.endswith("true") for each in found["images"]), found["images"]
    assert set(found["lightCharts"]) <= {"rgb(28, 33, 38)"}
    assert set(found["darkCharts"]) <= {"rgb(226, 230, 234)"}
    assert not found["wide"]
    assert set(found["resources"]) <= {"data:image/"}
    assert found["attempts"] == []
    return found
