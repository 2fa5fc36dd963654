"""A web server on loopback that holds files as Common Crawl's does: HEAD, ETag, ranges; and that fails when told to."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RANGE = re.compile(r"bytes=(\d+)-(\d*)$")


class WebServer(ThreadingHTTPServer):
    """`files` by path. `faults` holds, by path, what goes wrong with the next GET requests, in order:

    a status ("503"), or "cut" after half of the body, or "cut:N" after N bytes, or "silent": no answer at all.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.faults: defaultdict[str, list[str]] = defaultdict(list)
        self.knows_ranges = True
        self.knows_head = True
        self.log: list[tuple[str, str, str | None]] = []  # (method, path, range)
        self.sent: Counter[str] = Counter()  # bytes of bodies, by path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def gets(self, path: str) -> list[str | None]:
        """Return the ranges asked for of a path."""
        return [asked for method, name, asked in self.log if method == "GET" and name == path]


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def log_message(self, *parts: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.server.log.append(("HEAD", self.path, None))
        if not self.server.knows_head:
            self.say(405, {})
        elif self.path in self.server.files:
            self.say(200, self.facts(), size=len(self.server.files[self.path]))
        else:
            self.say(404, {})

    def facts(self) -> dict[str, str]:
        digest = hashlib.sha256(self.server.files[self.path]).hexdigest()
        return {"ETag": f'"{digest[:32]}"', "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT"}

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.log.append(("GET", self.path, asked))
        fault = self.server.faults[self.path].pop(0) if self.server.faults[self.path] else ""
        with suppress(BrokenPipeError, ConnectionResetError):  # clients may leave early
            self.answer(asked, fault)

    def answer(self, asked: str | None, fault: str) -> None:
        body = self.server.files.get(self.path)
        if fault == "silent":
            self.close_connection = True
        elif fault.isdecimal():
            self.say(int(fault), {})
        elif body is None:
            self.say(404, {})
        elif asked and self.server.knows_ranges and (found := RANGE.match(asked)):
            start, stop = int(found[1]), min(int(found[2] or len(body)) + 1, len(body))
            if start >= len(body):
                self.say(416, {"Content-Range": f"bytes */{len(body)}"})
            else:
                told = {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}", **self.facts()}
                self.say(206, told, body[start:stop], fault)
        else:
            self.say(200, self.facts(), body, fault)

    def say(
        self, status: int, headers: dict[str, str], body: bytes = b"", fault: str = "", size: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body) if size is None else size)}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault.startswith("cut"):
            self.close_connection = True
            body = body[: int(fault[4:]) if fault[4:] else len(body) // 2]
        for start in range(0, len(body), 1 << 16):
            self.wfile.write(body[start : start + (1 << 16)])
            self.server.sent[self.path] += len(body[start : start + (1 << 16)])


@contextmanager
def web_server() -> Iterator[WebServer]:
    """A running server."""
    server = WebServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
