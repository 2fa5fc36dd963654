"""An opt-out service on loopback, that also misbehaves, and documents to ask it after."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from jobs_shards_inputs import write_parts

from carnac.core.document import Document, Kind, document_id
from carnac.core.schema import DOCUMENTS, document_to_row
from carnac.engine.manifest import Manifest, read_manifest


class Service(ThreadingHTTPServer):
    """Knows the URLs in `opted_out`. `answers` are given first, one to a request: a status, or a body to say as it is.

    `asked` holds the URLs of every request that was understood, `headers` those of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.opted_out: set[str] = set()
        self.answers: list[int | bytes] = []
        self.retry_after: str | None = None
        self.asked: list[list[str]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/ask"


class Asked(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"

    def log_message(self, *parts: object) -> None:
        pass

    def do_POST(self) -> None:
        urls = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["urls"]
        with self.server.lock:
            self.server.headers.append(dict(self.headers))
            answer = self.server.answers.pop(0) if self.server.answers else None
            if not isinstance(answer, int):
                self.server.asked.append(urls)
        known = [url for url in urls if url in self.server.opted_out]
        body = answer if isinstance(answer, bytes) else json.dumps({"opted_out": known}).encode()
        self.send_response(answer if isinstance(answer, int) else 200)
        if self.server.retry_after is not None:
            self.send_header("Retry-After", self.server.retry_after)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def opt_out_service() -> Iterator[Service]:
    """Serve for the length of a block."""
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_documents(folder: Path, pages: dict[str, list[list[str]]]) -> Manifest:
    """Write documents: by unit, for each page the URLs of it and of its images. Each has a paragraph first."""
    rows = {unit: [document_to_row(_document(*urls)) for urls in each] for unit, each in pages.items()}
    write_parts(folder / "documents", "documents", DOCUMENTS, rows)
    return read_manifest(folder / "documents")


def _document(url: str, *images: str) -> Document:
    kinds: list[Kind] = ["image" for _ in images]
    return Document(
        id=document_id(url, b""),
        url=url,
        warc_file="a.warc.gz",
        warc_offset=0,
        fetched_at=None,
        title=None,
        language=None,
        language_score=None,
        texts=("A paragraph.", *[None] * len(images)),
        images=(None, *images),
        kinds=("paragraph", *kinds),
        image_nodes=(None,) * (1 + len(images)),
    )
