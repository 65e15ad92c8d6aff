"""The folder where a training run keeps what it needs to go on, wherever executors can reach it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pyarrow.fs as pafs

__all__ = ["Workspace"]


class Workspace:
    """Files in one folder, by name; a path, or a URI of a file system that Arrow knows."""

    def __init__(self, uri: str) -> None:
        scheme, colon, rest = uri.partition(":")
        if not colon or scheme == "file":
            self.files: pafs.FileSystem = pafs.LocalFileSystem()
            self.root = "/" + rest.lstrip("/") if colon else uri
        else:
            self.files, self.root = pafs.FileSystem.from_uri(f"{scheme}:{quote(rest, safe='/@:')}")

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        return bool(self.files.get_file_info(self.path(name)).type != pafs.FileType.NotFound)

    def read(self, name: str) -> bytes:
        with self.files.open_input_stream(self.path(name)) as stream:
            content: bytes = stream.read()
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all, replacing one that is there."""
        target = self.path(name)
        self.files.create_dir(target.rpartition("/")[0], recursive=True)
        partial = f"{target}.partial"
        with self.files.open_output_stream(partial) as stream:
            stream.write(content)
        self.files.move(partial, target)

    def delete(self, name: str) -> None:
        if self.exists(name):
            self.files.delete_file(self.path(name))

    def put_folder(self, local: str, name: str) -> None:
        """Copy the files of a local folder into the folder `name`."""
        for file in sorted(Path(local).iterdir()):
            self.write(f"{name}/{file.name}", file.read_bytes())
