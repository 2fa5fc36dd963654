"""A server that speaks S3, as a process of its own: moto's, on a port of 127.0.0.1, its requests noted in files.

    python store_process.py FOLDER [PORT]

It writes FOLDER/port when it listens, a line `METHOD PATH?QUERY` to FOLDER/begun as a request comes in, and one
`METHOD STATUS PATH?QUERY` to FOLDER/requests as it is answered. While FOLDER/refuse holds a pattern, requests whose
`METHOD PATH?QUERY` it matches are denied, as by a bucket's policy; while FOLDER/slow holds seconds, so long is waited
before the body of a request is read.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


class Gate:
    """A WSGI application around another: notes each request, refuses or delays those it is told to."""

    def __init__(self, application: Any, folder: Path) -> None:
        self._application, self._folder = application, folder
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, query = environ["REQUEST_METHOD"], environ["QUERY_STRING"]
        # WSGI hands bytes over as latin-1.
        path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace") + (f"?{query}" if query else "")
        self._note("begun", f"{method} {path}")

        def start(status: str, *rest: Any) -> Any:
            self._note("requests", f"{method} {status[:3]} {path}")
            return start_response(status, *rest)

        if (pattern := self._told("refuse")) and re.search(pattern, f"{method} {path}"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(DENIED)))])
            return [DENIED]
        if (seconds := self._told("slow")) and method in ("PUT", "POST"):
            time.sleep(float(seconds))
        answer: Iterable[bytes] = self._application(environ, start)
        return answer

    def _told(self, name: str) -> str:
        try:
            return (self._folder / name).read_text()
        except FileNotFoundError:
            return ""

    def _note(self, name: str, line: str) -> None:
        with self._lock, (self._folder / name).open("a") as file:
            file.write(line + "\n")


def main() -> None:
    """Serve until killed."""
    folder, port = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    gate = Gate(DomainDispatcherApplication(create_backend_app), folder)
    server = make_server("127.0.0.1", port, gate, threaded=True, request_handler=MotoRequestHandler)
    (folder / "port.new").write_text(str(server.server_port))
    (folder / "port.new").rename(folder / "port")
    server.serve_forever()


if __name__ == "__main__":
    main()
