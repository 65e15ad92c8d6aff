"""Report pages: the result of a run in one HTML file that needs nothing else.

`collect`, `collect_search`, `collect_join` and `collect_copies` take from Spark what a page shows;
`add_page` renders it and keeps it beside the page, where `read_step` finds it for the page of all
steps of a pipeline, `render_steps`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ember.report.collect import collect
from ember.report.collect_copies import collect_copies
from ember.report.collect_map import collect_map
from ember.report.collect_pairs import collect_join, collect_search
from ember.report.publishing import (
    HIDDEN_PAGE,
    add_map,
    add_page,
    check_map_packages,
    check_packages,
    check_page,
    map_link,
    read_step,
)
from ember.report.report import Report, Step, Table

if TYPE_CHECKING:
    from ember.report.page import render, render_steps

__all__ = ["HIDDEN_PAGE", "Report", "Step", "Table", "add_map", "add_page", "check_map_packages"]
__all__ += ["check_packages", "check_page", "collect", "collect_copies", "collect_join"]
__all__ += ["collect_map", "collect_search", "map_link", "read_step"]
__all__ += ["render", "render_steps"]


def __getattr__(name: str) -> Any:
    if name in ("render", "render_steps"):  # need matplotlib and Jinja2, the extra `report`
        return getattr(import_module("ember.report.page"), name)
    raise AttributeError(f"module 'ember.report' has no attribute {name!r}")
