"""The JSON files of a model's folder, with errors that name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ember.errors import InvalidInput

__all__ = ["read_json", "read_settings"]


def read_json(file: Path) -> Any:
    """What a JSON file holds. Raises InvalidInput when it is not there or is damaged."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{file} cannot be read as JSON: {error}") from None


def read_settings(file: Path) -> dict[str, Any]:
    """The names and values in a JSON file; {} where there is no such file.

    Raises InvalidInput when it is damaged or holds something else.
    """
    found = read_json(file) if file.is_file() else {}
    if not isinstance(found, dict):
        raise InvalidInput(f"{file} holds no names with values")
    return found
