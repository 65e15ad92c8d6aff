"""The command line of a job, and what it says of itself."""

from __future__ import annotations

import argparse
import logging
import re
import shutil
from functools import partial
from typing import Any

from pydantic import BaseModel

from ember.settings.config_text import as_help, as_yaml
from ember.spark import console

__all__ = ["job_parser"]

_WIDTH = 100
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+@=-]{0,127}")
_TEMPLATE = (
    "Every key is here with its default. A required one is empty: give it a value. Before a value "
    "that is null or {} by default may stand a section: take the # from the lines below it.",
)


def job_parser(job: str, kind: type[BaseModel], about: str) -> argparse.ArgumentParser:
    """The arguments of a job, whose help lists the keys of its configuration.

    kind: of the configuration. about: what the job does, in a sentence.
    """
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
    parser = _Parser(
        f"ember {job}",
        description=about,
        epilog=f"keys of the configuration:\n\n{as_help(kind, width)}",
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=width),
    )
    parser.add_argument("--config", metavar="FILE", help="configuration, in YAML")
    parser.add_argument(
        *("--set",),
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="override one dotted key of the configuration; may be repeated",
    )
    parser.add_argument(
        *("--run-id",), metavar="ID", type=_run_id, help="names the run in logs and manifest"
    )
    parser.add_argument(
        *("--dry-run",),
        action="store_true",
        help="check configuration, input, model and device; write nothing",
    )
    parser.add_argument(
        *("--print-config",),
        action=_PrintConfig,
        nargs=0,
        const=as_yaml(kind, [f"ember {job} --config FILE", about, *_TEMPLATE]),
        help="print a configuration to start from, with every key and its default, and exit",
    )
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose help is no failure when nobody reads it to its end."""

    def print_help(self, file: Any = None) -> None:
        if file is None:
            show(self.format_help())
        else:
            super().print_help(file)


class _PrintConfig(argparse.Action):
    """Print the text in `const`, as --help does its own."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        show(str(self.const))
        parser.exit()


def show(text: str) -> None:
    """Print what was asked for to read; whoever reads the beginning only may close the pipe."""
    console.say(text.rstrip("\n"), logging.DEBUG)


def _run_id(text: str) -> str:
    """A run id as schedulers give them; it stands in logs, manifests and names of files."""
    if not _RUN_ID.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text[:200]!r} is no run id; give up to 128 letters, digits and . _ : + @ = - that "
            "begin with a letter or digit"
        )
    return text
