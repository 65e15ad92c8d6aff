"""A proxy before an object store that answers 503, and cuts connections."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

_BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_OWN = ("connection", "content-length", "transfer-encoding")


@contextmanager
def faulty_proxy(port: int, share: float) -> Iterator[tuple[int, Counter[str]]]:
    """A proxy before the server at `port` that spoils a share of the requests.

    Half of these get 503, a quarter no answer, a quarter half an answer. Yields the proxy's own
    port, and how many requests were "busy", "cut" and "passed".
    """
    server = _Server(port, share)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], server.told
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, share: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = port
        self.told: Counter[str] = Counter()
        self._share, self._random = share, random.Random(0)

    def fate(self) -> str:
        """What becomes of the next request."""
        draw = self._random.random() / self._share
        return "passed" if draw > 1 else "busy" if draw < 0.5 else "none" if draw < 0.75 else "half"

    def handle_error(self, *_: Any) -> None:
        """Say nothing of a client that gave up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fate = self.server.fate()
        self.server.told["cut" if fate in ("none", "half") else fate] += 1
        if fate == "busy":
            self._answer(503, {}, _BUSY)
        elif fate == "none":
            self._cut()
        else:
            with closing(HTTPConnection("127.0.0.1", self.server.behind)) as behind:
                found = self._forward(behind, body)
                content = found.read()
            headers = {k: v for k, v in found.getheaders() if k.lower() not in _OWN}
            length = found.getheader("Content-Length") if self.command == "HEAD" else None
            headers["Content-Length"] = length or str(len(content))
            cut = fate == "half"
            self._answer(found.status, headers, content[: len(content) // 2] if cut else content)
            if cut:
                self._cut()

    def _forward(self, behind: HTTPConnection, body: bytes) -> HTTPResponse:
        behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for key, value in self.headers.items():
            if key.lower() not in ("connection", "expect"):
                behind.putheader(key, value)
        behind.endheaders(body)
        return behind.getresponse()

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
