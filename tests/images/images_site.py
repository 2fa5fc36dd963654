"""A server on loopback that also misbehaves."""

from __future__ import annotations

import functools
import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@functools.cache
def bomb() -> bytes:
    """100 MB in 100 kB, with the first bytes of a JPEG."""
    return gzip.compress(b"\xff\xd8\xff\xe0" + bytes(100_000_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as the server met it. `began` and `ended` (the answer was sent) are of one clock, in seconds."""

    host: str
    path: str
    headers: dict[str, str]
    began: float
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Robots:
    """What robots.txt of a host answers."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Site(ThreadingHTTPServer):
    """A server on loopback for any host, that also misbehaves: the path says how.

    `log` holds (path, headers) of each request but those for robots.txt, `requests` all of them once answered. A host
    that is not in `robots` has none (404). `failures` counts down the 503 that `/flaky` and `/busy` still give.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, picture: bytes, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), Page)
        self.picture = picture
        self.log: list[tuple[str, dict[str, str]]] = []
        self.requests: list[Request] = []
        self.begun = 0
        self.robots: dict[str, Robots] = {}
        self.failures = 0
        self.retry_after = ""
        self.connections: set[tuple[str, int]] = set()
        self.counting = threading.Lock()
        self.ended = threading.Event()
        self.released = threading.Event()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"

    def asked(self, path: str, host: str | None = None) -> list[Request]:
        """Return the requests for a path, in the order of their beginning."""
        # A client may have an answer a moment before it stands in the log.
        deadline = time.monotonic() + 0.5
        while len(self.requests) < self.begun and time.monotonic() < deadline:
            time.sleep(0.01)
        found = [request for request in self.requests if request.path == path and host in (None, request.host)]
        return sorted(found, key=lambda request: request.began)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that leave early are what is tested."""


@contextmanager
def served(picture: bytes, address: str = "127.0.0.1") -> Iterator[Site]:
    """Serve a site for the length of a block."""
    server = Site(picture, address)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, *parts: object) -> None:
        pass

    def do_GET(self) -> None:
        began = time.monotonic()
        with self.server.counting:
            self.server.begun += 1
        headers = dict(self.headers)
        host = headers.get("Host", "").rpartition(":")[0]
        if self.path != "/robots.txt":
            self.server.log.append((self.path, headers))
        self.server.connections.add(self.client_address)
        name, _, rest = self.path.partition("?")[0].lstrip("/").partition("/")
        with suppress(BrokenPipeError, ConnectionResetError):  # clients leave early here: that is what is tested
            if name == "robots.txt":
                self.say_robots(host)
            else:
                getattr(self, f"say_{name}")(rest)
        request = Request(host=host, path=self.path, headers=headers, began=began, ended=time.monotonic())
        self.server.requests.append(request)

    def head(self, status: int, **headers: str | int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send(self, body: bytes, **headers: str | int) -> None:
        self.head(200, Content_Length=len(body), **headers)
        self.wfile.write(body)

    def say_robots(self, host: str) -> None:
        robots = self.server.robots.get(host, Robots(status=404))
        body = robots.text.encode()
        self.head(robots.status, Content_Length=len(body), **robots.headers)
        self.wfile.write(body)

    def say_flaky(self, _rest: str) -> None:
        """Answer 503 as often as `failures` says, then the picture; with `retry_after`, say when to come again."""
        self.server.failures -= 1
        if self.server.failures < 0:
            self.send(self.server.picture)
        elif self.server.retry_after:
            self.head(503, Content_Length=0, Retry_After=self.server.retry_after)
        else:
            self.head(503, Content_Length=0)

    def say_slow(self, rest: str) -> None:
        """`/slow/0.3/any`: the picture after 0.3 s."""
        self.server.ended.wait(float(rest.partition("/")[0]))
        self.send(self.server.picture)

    def say_page(self, _rest: str) -> None:
        self.send(b"<!doctype html><html><p>You may not embed this.</p></html>" * 100, Content_Type="image/jpeg")

    def say_endless_page(self, _rest: str) -> None:
        self.close_connection = True
        self.head(200)
        while not self.server.ended.is_set():
            self.wfile.write(b"<p>on and on</p>" * 1000)

    def say_nothing(self, _rest: str) -> None:
        self.send(b"")

    def say_header(self, rest: str) -> None:
        """`/header/X-Robots-Tag/noai`: the picture with that header; `|` parts two of the name."""
        name, _, value = unquote(rest).partition("/")
        self.send_response(200)
        for line in value.split("|"):
            self.send_header(name, line)
        self.send_header("Content-Length", str(len(self.server.picture)))
        self.end_headers()
        self.wfile.write(self.server.picture)

    def say_many_headers(self, rest: str) -> None:
        self.head(200, Content_Length=len(self.server.picture), **{f"X_{number}": "x" for number in range(int(rest))})
        self.wfile.write(self.server.picture)

    def say_long_header(self, rest: str) -> None:
        self.send(self.server.picture, X_Long="x" * int(rest))

    def say_ok(self, _rest: str) -> None:
        self.send(self.server.picture, Set_Cookie="seen=1")

    def say_status(self, rest: str) -> None:
        self.head(int(rest.partition("/")[0]), Content_Length=0)

    def say_redirect(self, rest: str) -> None:
        """`/redirect/3` leads to the picture in three steps."""
        left = int(rest)
        self.head(302, Location=f"/redirect/{left - 1}" if left > 1 else "/ok", Content_Length=0)

    def say_loop(self, _rest: str) -> None:
        self.head(301, Location=self.path, Content_Length=0)

    def say_to(self, rest: str) -> None:
        self.head(302, Location=rest, Content_Length=0)

    def say_trickle(self, _rest: str) -> None:
        self.head(200, Content_Length=1000)
        for _ in range(1000):
            self.wfile.write(b"x")
            if self.server.ended.wait(0.02):
                return

    def say_trickle_header(self, _rest: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in range(1000):
            self.wfile.write(b"x")
            if self.server.ended.wait(0.02):
                return

    def say_silence(self, _rest: str) -> None:
        self.server.ended.wait(20)

    def say_big(self, _rest: str) -> None:
        self.send(self.server.picture + bytes(300_000))

    def say_endless(self, _rest: str) -> None:
        self.close_connection = True
        self.head(200)
        self.wfile.write(self.server.picture)
        while not self.server.ended.is_set():
            self.wfile.write(bytes(10_000))

    def say_cut(self, _rest: str) -> None:
        self.close_connection = True
        self.head(200, Content_Length=len(self.server.picture) + 1000)
        self.wfile.write(self.server.picture)

    def say_no_answer(self, _rest: str) -> None:
        self.close_connection = True

    def say_nonsense(self, _rest: str) -> None:
        self.close_connection = True
        self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")

    def say_bomb(self, _rest: str) -> None:
        self.send(bomb(), Content_Encoding="gzip")

    def say_gzip(self, rest: str) -> None:
        self.send(gzip.compress(self.server.picture), Content_Encoding=rest or "gzip")

    def say_gzip_cut(self, _rest: str) -> None:
        self.send(gzip.compress(self.server.picture)[:-100], Content_Encoding="gzip")

    def say_not_gzip(self, _rest: str) -> None:
        self.send(self.server.picture, Content_Encoding="gzip")

    def say_held_back(self, rest: str) -> None:
        self.server.released.wait(20)
        self.say_ok(rest)
