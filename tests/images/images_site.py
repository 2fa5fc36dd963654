"""A server on loopback that also misbehaves."""

from __future__ import annotations

import functools
import gzip
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@functools.cache
def bomb() -> bytes:
    """100 MB in 100 kB."""
    return gzip.compress(bytes(100_000_000))


class Site(ThreadingHTTPServer):
    """A server on loopback that also misbehaves: the path says how. `log` holds (path, headers) of each request."""

    daemon_threads = True

    def __init__(self, picture: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.picture = picture
        self.log: list[tuple[str, dict[str, str]]] = []
        self.connections: set[tuple[str, int]] = set()
        self.ended = threading.Event()
        self.released = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, *parts: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.log.append((self.path, dict(self.headers)))
        self.server.connections.add(self.client_address)
        name, _, rest = self.path.partition("?")[0].lstrip("/").partition("/")
        with suppress(BrokenPipeError, ConnectionResetError):  # clients leave early here: that is what is tested
            getattr(self, f"say_{name}")(rest)

    def head(self, status: int, **headers: str | int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send(self, body: bytes, **headers: str | int) -> None:
        self.head(200, Content_Length=len(body), **headers)
        self.wfile.write(body)

    def say_ok(self, _rest: str) -> None:
        self.send(self.server.picture, Set_Cookie="seen=1")

    def say_status(self, rest: str) -> None:
        self.head(int(rest), Content_Length=0)

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
        self.send(bytes(300_000))

    def say_endless(self, _rest: str) -> None:
        self.close_connection = True
        self.head(200)
        while not self.server.ended.is_set():
            self.wfile.write(bytes(10_000))

    def say_cut(self, _rest: str) -> None:
        self.close_connection = True
        self.head(200, Content_Length=1000)
        self.wfile.write(bytes(500))

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
