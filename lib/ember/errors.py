"""What can go wrong, as one tree; each branch has the exit code that a scheduler sees.

    EmberError                 1  unexpected
    ├── InvalidInput           2  configuration, schema, paths, model: nothing was written
    │   ├── InvalidConfig      2  the configuration file or a --set
    │   └── OtherSettings      2  an output that cannot be resumed with these settings
    ├── TooManyFailures        3  more failed rows than limits.max_failed_fraction
    ├── TooManyPairs           3  more pairs than limits.max_pairs
    ├── DeviceMissing          4  a GPU was asked for and is not there
    └── RequirementNotMet      5  a figure named under `require` was not reached

The module imports next to nothing, so that both the driver side and the executor side can use it.
"""

from __future__ import annotations

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
    that starts with the qualified name of a class of this module is that exception.

    Returns None when the text names none of them.
    """
    tree = (DeviceMissing, InvalidConfig, InvalidInput, TooManyFailures, RequirementNotMet)
    by_name = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in tree}
    for line in reversed(text.splitlines()):
        name, colon, message = line.strip().partition(": ")
        if colon and name in by_name:
            return by_name[name](message)
    return None
