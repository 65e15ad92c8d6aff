"""The templates of pages, and what of them stands inline, with the hashes that allow it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["Inline", "inline", "templates"]


@dataclass(frozen=True)
class Inline:
    """The text of a style or script, and the source expression that allows exactly this text.

    W3C, Content Security Policy Level 3.
    """

    text: str

    @property
    def hash(self) -> str:
        digest = hashlib.sha256(self.text.encode()).digest()
        return f"sha256-{base64.b64encode(digest).decode()}"


def inline(*names: str) -> Inline:
    """Files of the folder `templates`, one behind the other."""
    folder = files("ember.report") / "templates"
    return Inline("".join((folder / name).read_text("utf-8") for name in names))


def templates() -> Environment:
    """The environment in which pages are rendered: every text is escaped."""
    return Environment(
        loader=PackageLoader("ember.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
