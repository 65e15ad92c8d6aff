"""An S3 server on this machine, for the tests of `s3a:`."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

from cluster.processes import ROOT

USER, SECRET = "EMBERUSER", "hUsHhUsHhUsH"
# moto's server looks whose key it is, and at no signature. Forms it would take apart.
_HEADERS = {
    "Authorization": f"AWS4-HMAC-SHA256 Credential={USER}/20200101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0",
    "Content-Type": "application/octet-stream",
}


class Store:
    """Buckets of a server, reached without Hadoop."""

    def __init__(self, port: int) -> None:
        self.port = port

    def put(self, name: str, data: bytes = b"") -> None:
        """Write an object, or make a bucket."""
        self._ask("PUT", name, data)

    def get(self, name: str) -> bytes:
        """An object; raises FileNotFoundError."""
        return self._ask("GET", name)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        found: list[str] = []
        after = ""
        while True:
            query = f"?list-type=2&prefix={quote(prefix, safe='')}&start-after={quote(after)}"
            listed = self._ask("GET", bucket, query=query).decode()
            page = [unquote(key) for key in re.findall(r"<Key>([^<]*)</Key>", listed)]
            found += page
            if not page or "<IsTruncated>true" not in listed:
                return found
            after = page[-1]

    def _ask(self, method: str, name: str, data: bytes | None = None, query: str = "") -> bytes:
        url = f"http://127.0.0.1:{self.port}/{quote(name)}{query}"
        request = urllib.request.Request(url, data=data, headers=_HEADERS, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise FileNotFoundError(name) from None
            raise


def jars() -> list[str]:
    """The jars of `s3a:`; skips the test where they are not in the cache."""
    command = [ROOT / "scripts" / "cluster" / "jars", "--cached", "objectstore"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(found.stderr.strip())
    return found.stdout.split()


@contextmanager
def served(environment: Path) -> Iterator[Store]:
    """A new server of moto's, from an environment of its own."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [environment / "moto" / "bin" / "moto_server", "-H", "127.0.0.1", "-p", str(port)]
    with Path(os.devnull).open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        store = Store(port)
        for _ in range(600):
            try:
                store.put("corpus")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, "moto's server ended"
                time.sleep(0.1)
        store.put("out")
        yield store
    finally:
        process.kill()
        process.wait()
