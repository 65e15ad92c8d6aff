"""Prompts of a sentence-transformers folder: which text stands before each text, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ember.errors import InvalidConfig, InvalidInput
from ember.worker.json_files import read_settings

__all__ = ["Prompts", "Role"]

Role = Literal["query", "document"]

# What sentence-transformers documents as prompts for documents too. Its encode_document never
# comes to them, because every model of it has a prompt "document", if an empty one.
_OTHER_DOCUMENT_PROMPTS = ("passage", "corpus")


@dataclass(frozen=True)
class Prompts:
    """The prompts of a folder by name, and the name of the one that is there by default."""

    by_name: Mapping[str, str]
    default: str | None

    @classmethod
    def read(cls, folder: Path) -> Prompts:
        """Those in config_sentence_transformers.json. Raises InvalidInput for a damaged file."""
        file = folder / "config_sentence_transformers.json"
        settings = read_settings(file)
        named = settings.get("prompts") or {}
        if not isinstance(named, dict):
            raise InvalidInput(f"{file}: its prompts are no texts by name")
        named = {name: text or "" for name, text in named.items()}
        if strange := [name for name, text in named.items() if not isinstance(text, str)]:
            raise InvalidInput(f"{file}: its prompt {strange[0]} is no text")
        default = settings.get("default_prompt_name")
        text = isinstance(default, str)
        if default is not None and not (text and default in {*named, "query", "document"}):
            raise InvalidInput(f"{file}: its default prompt {default!r} is not among its prompts")
        return cls(named, default)

    def choose(self, role: Role | None, prompt: str | None, *, by_default: bool) -> str:
        """The text that stands before each text; "" for none.

        prompt: the name of a prompt of the folder, or the text itself; goes before `role`.
        role: takes the prompt of that name, or none, as encode_query and encode_document do; never
            the folder's default one.
        by_default: the folder's default prompt stands where neither is given.

        Raises InvalidConfig when `prompt` is a single word and no name of a prompt: a misspelt name
        would else be put before each text.
        """
        if prompt is not None:
            if prompt in self.by_name or prompt in ("query", "document"):
                return self.by_name.get(prompt, "")
            if prompt.isascii() and prompt.replace("-", "_").isidentifier():
                known = ", ".join(sorted(self.by_name)) or "none"
                raise InvalidConfig(
                    f"model.prompt: the model has no prompt of the name {prompt!r} (its prompts: "
                    f"{known}); a text of your own ends in a colon or a space, such as 'query: '"
                )
            return prompt
        if role is not None:
            return self.by_name.get(role, "")
        return self.by_name.get(self.default, "") if self.default and by_default else ""

    def passed_over(self, role: Role | None, prompt: str | None) -> str | None:
        """The name of a prompt for documents that `role: document` does not take."""
        if role != "document" or prompt is not None or self.by_name.get("document"):
            return None
        return next((name for name in _OTHER_DOCUMENT_PROMPTS if self.by_name.get(name)), None)
