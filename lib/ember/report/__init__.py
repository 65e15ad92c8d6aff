"""Report pages: what a run found, in one HTML file that needs nothing else.

`collect`, `collect_search` and `collect_join` take from Spark what a page shows; the rest works on
plain rows, which `add_page` keeps beside the page. `read_step` and `render_steps` make one page of
all steps of a pipeline. matplotlib and Jinja2, the extra `report`, are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember.report.collecting import collect
    from ember.report.combined import Step, read_step, render_steps
    from ember.report.content import Report, Table
    from ember.report.page import render
    from ember.report.publishing import HIDDEN_PAGE, add_page, check_packages, check_page
    from ember.report.sampling import collect_join, collect_search

__all__ = ["HIDDEN_PAGE", "Report", "Step", "Table", "add_page", "check_packages", "check_page"]
__all__ += ["collect", "collect_join", "collect_search", "read_step", "render", "render_steps"]

_HOMES = {
    "HIDDEN_PAGE": "publishing",
    "Report": "content",
    "Step": "combined",
    "Table": "content",
    "add_page": "publishing",
    "check_packages": "publishing",
    "check_page": "publishing",
    "collect": "collecting",
    "collect_join": "sampling",
    "collect_search": "sampling",
    "read_step": "combined",
    "render": "page",
    "render_steps": "combined",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"ember.report.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ember.report' has no attribute {name!r}")
