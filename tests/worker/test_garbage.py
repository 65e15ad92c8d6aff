from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from ember.worker import garbage
from ember.worker.garbage import spare_modules


@pytest.fixture(autouse=True)
def unspared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that has spared nothing yet; at the end everything is collected again."""
    monkeypatch.setattr(garbage, "_modules", 0)
    yield
    gc.unfreeze()


class Node:
    """Part of a cycle, which only a collection frees."""

    def __init__(self) -> None:
        self.itself = self


def walked(thing: Any) -> bool:
    """Does a collection look at it?"""
    return any(each is thing for each in gc.get_objects())


def test_what_is_there_is_not_walked_through_again_and_later_garbage_is_collected() -> None:
    loaded = Node()
    assert walked(loaded)
    spare_modules()
    assert not walked(loaded)
    node = Node()
    later = weakref.ref(node)
    assert walked(node)
    del node
    gc.collect()
    assert later() is None


def test_garbage_of_the_first_task_is_collected_before_the_rest_is_spared() -> None:
    node = Node()
    left = weakref.ref(node)
    del node
    spare_modules()
    assert left() is None


def test_only_loaded_modules_make_it_spare_more(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_modules()
    kept = Node()
    spare_modules()
    assert walked(kept)  # as are all that a task without imports leaves behind
    monkeypatch.setitem(sys.modules, "loaded_by_a_later_task", ModuleType("loaded_by_a_later_task"))
    spare_modules()
    assert not walked(kept)
