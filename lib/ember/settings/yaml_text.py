"""YAML into Python values, of a bounded size, with unquoted scalars left as they were written.

What an unquoted scalar is depends on the key it stands for, which is not known here: `010` may be a
name or a number, `3e38` a number or a column. So it comes out as `Plain`, which
`ember.settings.typed` makes a value of the key's type. Where no type decides, YAML 1.2 does
(`natural`).
"""

from __future__ import annotations

import math
import re
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

__all__ = ["MAX_DEPTH", "NULLS", "Plain", "YamlProblem", "natural", "parse_yaml", "read_yaml"]

# Larger than any configuration with a list of thousands of classes, and read in seconds.
_MAX_BYTES = 2**20
_MAX_VALUES = 100_000
_SHOWN = 500
# Deeper than any configuration, and far from where Python ends.
MAX_DEPTH = 50
NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_WORDS: dict[str, Any] = {
    **dict.fromkeys(NULLS),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class YamlProblem(ValueError):
    """A text that is not YAML, or larger or deeper than a configuration may be."""


class Plain(str):
    """An unquoted scalar, or the value of a --set: its text, whose type the key decides."""

    __slots__ = ()


def natural(text: str) -> Any:
    """What YAML 1.2's core schema makes of an unquoted scalar: None, bool, int, float or str."""
    if text in _WORDS:
        return _WORDS[text]
    try:
        if _DECIMAL.fullmatch(text):
            return int(text)
        if _BASED.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            return float(text)
    except ValueError:  # more digits than Python converts
        pass
    return str(text)


def read_yaml(file: str) -> Any:
    """The values of a YAML file in UTF-8, in whatever locale. Raises YamlProblem and OSError."""
    with Path(file).open("rb") as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise YamlProblem(f"it is larger than {_MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlProblem(f"it is not in UTF-8: {error}") from None
    return parse_yaml(text)


def parse_yaml(text: str) -> Any:
    """The values of a YAML text: dict, list, str, Plain, None; no two share an object.

    Raises:
        YamlProblem: also for a key given twice, or aliases that unfold without end.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _unfolded(node, {}) > _MAX_VALUES:
            raise YamlProblem(f"its aliases unfold to more than {_MAX_VALUES} values")
        return _separate(loader.construct_document(node))
    except YamlProblem:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two of odd escapes
        raise YamlProblem(" ".join(str(error).split())[:_SHOWN]) from None
    except RecursionError:
        raise YamlProblem("it is nested too deeply") from None


def _unfolded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values `node` holds, those behind aliases as often as they are named."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = _MAX_VALUES + 1  # what it is for one that holds itself
        mapping = isinstance(node, yaml.MappingNode)
        inner = chain.from_iterable(node.value) if mapping else node.value
        known[id(node)] = 1 + sum(_unfolded(each, known) for each in inner)
    return known[id(node)]


def _separate(value: Any, depth: int = 0) -> Any:
    """A copy in which what two aliases name is there twice, so that each can be changed."""
    if depth > MAX_DEPTH:
        raise YamlProblem(f"it is nested too deeply: more than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {key: _separate(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_separate(each, depth + 1) for each in value]
    return value


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """YAML without keys that hide one another, and with unquoted scalars as `Plain`."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in given:
                    raise yaml.YAMLError(
                        f"{key.value} is given twice in one place,{node.start_mark}"
                    )
                given.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return {str(key) if isinstance(key, str) else key: mapping[key] for key in mapping}


def _text(loader: _Loader, node: yaml.Node) -> str:
    written: str = loader.construct_scalar(node)
    try:  # as JSON has it, an escape may be half of a character
        text = written.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise yaml.YAMLError(f"half a character is no text,{node.start_mark}") from None
    return Plain(text) if node.style is None else str(text)


# Of YAML 1.1's guesses at what a scalar is, only the merge of sections and null remain.
_Loader.yaml_implicit_resolvers = {
    "<": [("tag:yaml.org,2002:merge", re.compile(r"^<<$"))],
    **{
        first: [("tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"))]
        for first in ("~", "n", "N", "")
    },
}
# The key decides the type, so a tag that names another one is refused, as an unknown tag is.
_Loader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in ("null", "seq", "map")
}
_Loader.add_constructor("tag:yaml.org,2002:str", _text)
