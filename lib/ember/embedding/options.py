"""The keywords of the library's functions that are settings of the jobs, by the same names.

The functions spell them out with the configuration's types and defaults; a test holds defaults and
names together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from ember.settings.config import Config, parse

__all__ = ["BatchSize", "chosen"]

BatchSize = int | Literal["auto"]

ConfigT = TypeVar("ConfigT", bound=Config)


def chosen(kind: type[ConfigT], keywords: Mapping[str, Any], source: str, **more: Any) -> ConfigT:
    """The settings of `kind` that are among a function's keywords, checked as a job's are.

    source: what an error names as their place. more: settings that have other names there.
    Raises InvalidConfig.
    """
    given = {key: keywords[key] for key in kind.model_fields if key in keywords}
    return parse(kind, {key: _plain(value) for key, value in {**given, **more}.items()}, source)


def _plain(value: Any) -> Any:
    """A value as a YAML file would give it."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
