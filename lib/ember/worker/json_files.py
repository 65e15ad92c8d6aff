"""The JSON files of a model's folder, with errors that name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ember.errors import InvalidInput

__all__ = ["class_names", "is_unicode", "parse_json", "read_json", "read_settings"]


def parse_json(text: str, source: Any) -> Any:
    """The values of a JSON text. Raises InvalidInput that names `source` when it is damaged."""
    try:
        found = json.loads(text)
        # An escape can stand for half a character, which nothing that is handed texts takes.
        if "\\ud" in text.lower() and not is_unicode(json.dumps(found, ensure_ascii=False)):
            raise InvalidInput(
                f"{source} has a text that is not Unicode: \\uD800 to \\uDFFF go in pairs"
            )
    except ValueError as error:
        raise InvalidInput(f"{source} is not JSON: {error}") from None
    except RecursionError:
        raise InvalidInput(f"{source} is not JSON of settings: it is nested too deeply") from None
    return found


def is_unicode(text: str) -> bool:
    """Has the text no half of a character (a lone surrogate), so that it can be encoded?"""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_json(file: Path) -> Any:
    """What a JSON file holds. Raises InvalidInput when it is not there or is damaged."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read as JSON: {error}") from None
    return parse_json(text, file)


def read_settings(file: Path, *, needed: bool = False) -> dict[str, Any]:
    """The names and values in a JSON file; {} where there is no such file and it is not needed.

    Raises InvalidInput when it is damaged or holds something else.
    """
    found = read_json(file) if needed or file.is_file() else {}
    if not isinstance(found, dict):
        raise InvalidInput(f"{file} holds no names with values")
    return found


def class_names(settings: dict[str, Any], file: Path) -> list[str]:
    """The `architectures` of a config.json, whose settings these are; [] where it names none."""
    found = settings.get("architectures") or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidInput(f"{file}: its architectures are no list of names")
    return found
