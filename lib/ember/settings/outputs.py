"""Where jobs write, and what happens to what is there."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ember.settings.config import Config
from ember.settings.file_size import FileSize, in_bytes
from ember.settings.names import Name, TableTarget, Target

__all__ = [
    "NewOutputConfig",
    "NewTableOutputConfig",
    "OutputConfig",
    "RowsOutputConfig",
    "SyncMode",
    "TableOutputConfig",
]

SyncMode = Annotated[
    Literal["fail", "overwrite", "resume", "sync"],
    Field(
        description="What to do when the output exists: refuse, replace it, do the rest, or do "
        "what changed."
    ),
]
"""Of outputs that can also follow an input that changes."""

_NewMode = Annotated[
    Literal["fail", "overwrite"],
    Field(description="What to do when the output exists: refuse, or replace what this job wrote."),
]


class OutputConfig(Config):
    """Where the table goes, and what happens when one is there."""

    path: Target = Field(description="Folder to write.")
    mode: Literal["fail", "overwrite", "resume"] = Field(
        default="fail",
        description="What to do when the output exists: refuse, replace what this job wrote, or "
        "keep what is done and do the rest.",
    )


class NewOutputConfig(Config):
    """Where a table goes that is made in one piece."""

    path: Target = Field(description="Folder to write.")
    mode: _NewMode = "fail"


class _PlaceConfig(Config):
    """A folder or a table of Spark's catalogs, as which rows are published."""

    either: ClassVar[tuple[str, ...]] = ("path", "table")

    path: Target = Field(default="", description="Folder to write; or give table in its place.")
    table: TableTarget | None = Field(
        default=None,
        description="In place of path, a table of Spark's catalogs; its schema has to be there.",
    )
    format: Literal["parquet", "delta", "iceberg"] = Field(
        default="parquet",
        description="Format of the table; delta and iceberg need jars of theirs, and iceberg a "
        "name.",
    )
    staging: Name | None = Field(
        default=None,
        description="Folder for staged rows and the manifest of a table; null: where its schema "
        "is.",
    )


class TableOutputConfig(_PlaceConfig):
    """Where rows go that many tasks make, and how they lie in files."""

    mode: SyncMode = "fail"
    file_size: FileSize = Field(
        default="256 MB",
        description="About how large published files are, in bytes or such as 256 MB; smaller ones "
        "that tasks left are merged.",
    )
    sorted: bool = Field(
        default=False,
        description="Whether rows are sorted by id, within files and from file to file; who reads "
        "some ids can skip the rest.",
    )

    @property
    def file_bytes(self) -> int:
        """`file_size` in bytes."""
        return in_bytes(self.file_size)


class NewTableOutputConfig(_PlaceConfig):
    """Where rows go that are made in one piece."""

    mode: _NewMode = "fail"


class RowsOutputConfig(TableOutputConfig):
    """Where the result of each row of the input goes."""

    either: ClassVar[tuple[str, ...]] = ("path", "table", "merge_into")

    retry_failed: bool = Field(
        default=True,
        description="With mode sync, whether rows that failed are done again though their content "
        "is the same.",
    )
    merge_into: TableTarget | None = Field(
        default=None,
        description="In place of path, a Delta or Iceberg table with these ids that gets the "
        "results as columns.",
    )
