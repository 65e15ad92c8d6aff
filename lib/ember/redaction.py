"""Secrets that stand in paths: user names, passwords and signatures of URIs, made unreadable.

Imports nothing of Ember, so that every part can use it: errors when they are made, manifests and
logs when they are written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["HIDDEN", "redact", "redact_all"]

HIDDEN = "***"

# scheme://user:password@host, of which Azure makes container@account. A password may hold slashes,
# as old keys of S3 do; a port does not make the path that follows it a password.
_USER = re.compile(
    r"\b(?:abfs|wasb)s?://[^/:\s@]+@"
    r"|(://)(?:[^/\s\"'<>]*@|[^/\s@\"'<>:]{0,300}:(?!\d+/)[^\s@\"'<>]{0,300}@)"
)
_WORDS = (
    "sig|token|secret|passw|pwd|passphrase|credential|key|auth|session|x-amz-|x-goog-|x-oss-|"
    "policy|assertion|jwt|code"
)
# A parameter of a query or a fragment whose name says that it is a secret: sig=, X-Amz-Signature=.
_PARAMETER = re.compile(
    rf"([?&;#](?:amp;)?[^=&;#?\s\"'<>]{{0,99}}(?:{_WORDS})[^=&;#\s\"'<>]{{0,99}}=)[^&;#\s\"'<>]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """`text` with `***` for the user information and the signed parameters of URIs in it.

    >>> redact("s3a://ME:WORD@bucket/a.parquet, https://host/a.jpg?size=3&sig=abc")
    's3a://***@bucket/a.parquet, https://host/a.jpg?size=3&sig=***'
    """
    if "://" not in text and "=" not in text:
        return text
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(_without_user, text))


def _without_user(found: re.Match[str]) -> str:
    return f"{found[1]}{HIDDEN}@" if found[1] else found[0]


def redact_all(value: Any) -> Any:
    """The same for every text in a value as JSON has it: mappings, lists, texts; keys as well."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact_all(key): redact_all(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(each) for each in value]
    return value
