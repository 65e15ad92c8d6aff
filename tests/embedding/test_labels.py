"""Names of classes from files of every form."""

from __future__ import annotations

import json

import pytest

from ember.embedding.labels import read_labels
from ember.errors import InvalidInput

NAMES = ("ant", "bee, honey", "kärcher")
FORMS = {
    "list.json": json.dumps(NAMES),
    "object.json": json.dumps({2: NAMES[2], 0: NAMES[0], 1: NAMES[1]}),
    "keras.json": json.dumps({str(n): [f"n0{n}", name] for n, name in enumerate(NAMES)}),
    "headed.csv": 'index,label\n1,"bee, honey"\n0,ant\n2,kärcher\n',
    "plain.csv": '\ufeff0,ant\n1,"bee, honey"\n2,kärcher',
    "lines.txt": "ant\nbee, honey\r\nkärcher\n\n",
    "no suffix": "ant\nbee, honey\nkärcher",
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_names_by_index(tmp_path, name):
    (tmp_path / name).write_text(FORMS[name], "utf-8")
    assert read_labels(str(tmp_path / name)) == NAMES


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("gap.json", '{"0": "ant", "2": "cow"}', "not number 1"),
        ("word.json", '{"ant": 0}', "keys that are not indices"),
        ("deep.json", '[{"name": "ant"}]', "not strings"),
        ("text.json", "ant", "is not JSON"),
        ("number.json", "3", "neither a list nor an object"),
        ("empty.json", "[]", "names 0 classes"),
        ("twice.csv", "0,ant\n0,bee\n", "more than once"),
        ("one.csv", "index\n0\n", "lacks index or name"),
        ("blank.txt", "ant\n\ncow\n", "line 2"),
        ("empty.txt", "", "line 1"),
    ],
)
def test_a_file_that_names_no_classes_is_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(InvalidInput, match=words):
        read_labels(str(tmp_path / name))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"no file .*nowhere\.txt"):
        read_labels(str(tmp_path / "nowhere.txt"))
