"""The types of keys that name something, marked with what it is for."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field

__all__ = [
    "LocalFile",
    "ModelName",
    "Name",
    "Paths",
    "Roots",
    "Share",
    "Source",
    "TableName",
    "TableTarget",
    "Target",
    "Use",
]


class Use(Enum):
    """Marks the keys that name what a job reads or writes; `pipeline` goes by it."""

    READ = "read"
    READ_TABLE = "read by its name in Spark's catalog"
    READ_LOCAL = "read on the driver's machine"
    MODEL = "a model, its files on the driver's machine or elsewhere"
    MAY_READ = "folders under which rows name files to be read"
    WRITE = "write"
    WRITE_TABLE = "written by its name in Spark's catalog"


Name = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Paths = Annotated[Name | Annotated[list[str], Field(min_length=1)], Use.READ]
Source = Annotated[Name, Use.READ]
Roots = Annotated[Name | Annotated[list[Name], Field(min_length=1)], Use.MAY_READ]
LocalFile = Annotated[Name, Use.READ_LOCAL]
ModelName = Annotated[Name, Use.MODEL]
Target = Annotated[Name, Use.WRITE]
TableName = Annotated[Name, Use.READ_TABLE]
TableTarget = Annotated[Name, Use.WRITE_TABLE]
