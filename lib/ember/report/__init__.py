"""The report page: what an evaluation found, in one HTML file that needs nothing else.

`collect` reads the tables from Spark; the rest works on plain rows. matplotlib and Jinja2, the
extra `report`, are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ember.report.collecting import add_page, check_packages, collect
    from ember.report.content import Report, Table
    from ember.report.page import render

__all__ = ["Report", "Table", "add_page", "check_packages", "collect", "render"]

_HOMES = {
    "Report": "content",
    "Table": "content",
    "add_page": "collecting",
    "check_packages": "collecting",
    "collect": "collecting",
    "render": "page",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"ember.report.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ember.report' has no attribute {name!r}")
