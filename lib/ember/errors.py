"""What can go wrong, as one tree; each branch has the exit code that a scheduler sees.

    EmberError                 1  unexpected
    ├── InvalidInput           2  configuration, schema, paths, model: nothing was written
    │   ├── InvalidConfig      2  the configuration file or a --set
    │   └── OtherSettings      2  an output that cannot be resumed with these settings
    ├── TooManyFailures        3  more failed rows than limits.max_failed_fraction
    ├── TooManyPairs           3  more pairs than limits.max_pairs
    ├── DeviceMissing          4  a GPU was asked for and is not there
    └── RequirementNotMet      5  a figure named under `require` was not reached

The module needs Python alone, so that both the driver side and the executor side can use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile

from ember.redaction import redact

__all__ = [
    "DeviceMissing",
    "EmberError",
    "InvalidConfig",
    "InvalidInput",
    "OtherSettings",
    "RequirementNotMet",
    "TooManyFailures",
    "TooManyPairs",
    "find_in_text",
]


# What stands below the message of an exception in a traceback, or in Spark's text around it.
_ENDS_MESSAGE = re.compile(
    r"\s|$|Traceback \(|During handling of|The above exception|Caused by: |Driver stacktrace:"
)


class EmberError(Exception):
    """A failure that Ember can explain: the message says what, where, and what to change.

    Passwords and signatures of URIs in the message are hidden.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


class InvalidInput(EmberError):
    """Something the user gave cannot be used; nothing was written."""

    exit_code = 2


class InvalidConfig(InvalidInput):
    """The configuration does not hold together."""


class OtherSettings(InvalidInput):
    """What is to be resumed was made with other settings."""


class TooManyFailures(EmberError):
    """More rows failed than the ceiling allows; nothing was published."""

    exit_code = 3


class TooManyPairs(EmberError):
    """A join has more pairs than the ceiling allows; nothing was published."""

    exit_code = 3


class DeviceMissing(EmberError):
    """A GPU was asked for and is not usable on the machine that ran the task."""

    exit_code = 4


class RequirementNotMet(EmberError):
    """A required figure was not reached."""

    exit_code = 5


def find_in_text(text: str) -> EmberError | None:
    """Recover the error that a Python worker raised from Spark's text of the failure.

    Spark hands an exception of a worker to the driver as the text of its traceback. The last line
    that starts with the qualified name of an error of Ember is that exception; its message goes on
    to the next line that is indented, blank, or Spark's.

    Returns None when the text names none.
    """
    by_name = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in _tree(EmberError)}
    lines = text.splitlines()
    for number in range(len(lines) - 1, -1, -1):
        name, _, message = lines[number].strip().partition(": ")
        if kind := by_name.get(name.removesuffix(":")):
            more = takewhile(lambda line: not _ENDS_MESSAGE.match(line), lines[number + 1 :])
            # Not by its own __init__, which may want more than a message.
            return kind.__new__(kind, "\n".join([message, *more]))
    return None


def _tree(kind: type[EmberError]) -> Iterator[type[EmberError]]:
    """A class and all that inherit from it, wherever they are defined."""
    yield kind
    for each in kind.__subclasses__():
        yield from _tree(each)
