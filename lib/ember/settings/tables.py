"""The tables that jobs read, as the configuration names them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ember.settings.config import Config
from ember.settings.names import Name, Paths, Roots, TableName

__all__ = [
    "ContentIs",
    "ContentIsKey",
    "CorpusConfig",
    "EmbeddingsConfig",
    "InputConfig",
    "OtherTableConfig",
    "RootKey",
    "TableConfig",
]

ContentIs = Literal["bytes", "paths"]
ContentIsKey = Annotated[
    ContentIs | None,
    Field(
        description="What an image column holds: encoded images (bytes), or names of files or URIs "
        "(paths); null: bytes, of a binary column."
    ),
]
RootKey = Annotated[
    Roots | None,
    Field(
        description="For content_is: paths, the folders or URIs under which files may be read; "
        "null: the folder that holds the table at path."
    ),
]


class TableConfig(Config):
    """A table that is read, from files or by its name."""

    either: ClassVar[tuple[str, ...]] = ("path", "table")

    path: Paths = Field(
        default="",
        description="Parquet to read: a folder, a file, a glob, or a list of these, by any URI; or "
        "give table in its place.",
    )
    table: TableName | None = Field(
        default=None,
        description="In place of path, a table or view of Spark's catalogs, as db.name or "
        "catalog.db.name.",
    )
    where: Name | None = Field(
        default=None, description="Condition in SQL; only rows for which it is true are read."
    )

    @property
    def shown(self) -> str:
        """The table as an error names it."""
        if not self.path:
            return f"table {self.table}"
        return self.path if isinstance(self.path, str) else ", ".join(self.path)


class OtherTableConfig(TableConfig):
    """A table beside the input, whose ids have the same name unless it says otherwise."""

    id: Name | None = Field(
        default=None, description="Column that names each row; null: named as in the input."
    )


class EmbeddingsConfig(TableConfig):
    """A table of embeddings, as `embed` writes it."""

    id: Name = Field(description="Column that names each row.")
    embedding: Name = Field(default="embedding", description="Column of the vectors.")


class CorpusConfig(TableConfig):
    """A table of images or texts."""

    id: Name = Field(
        description="Column that names each row; its name and its type, any atomic one, are kept."
    )
    content: Name = Field(
        default="content",
        description="Column of the content: encoded images, paths of image files, or texts.",
    )
    modality: Literal["image", "text"] = Field(description="What the content is.")
    content_is: ContentIsKey = None
    root: RootKey = None


class InputConfig(CorpusConfig):
    """A corpus that a job reads row by row."""

    unique_ids: bool = Field(
        default=False, description="Whether to refuse an input in which an id occurs twice."
    )
