"""A small web on loopback: many host names, one server, and a log of what was asked. Hosts behave as they are told."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

from carnac.core.schema import DOCUMENTS
from carnac.engine.manifest import collect_parts, manifest_of, write_manifest
from carnac.engine.part import Part
from carnac.engine.unit import Stage

DOCUMENTS_STAGE = Stage(name="documents", version=1, schema=DOCUMENTS, work=None)


class ImageWeb:
    """`answers` maps host and path ("a.test/1.png") to a status or the URL it redirects to; all else is a picture."""

    def __init__(self) -> None:
        self.answers: dict[str, int | str] = {}
        self.pictures: dict[str, bytes] = {}  # other than the usual ones
        self.asked: list[str] = []
        self.seconds_per_image = 0.0
        self.port = 0

    def url(self, place: str) -> str:
        """Return the URL of `a.test/1.png`."""
        host, _, path = place.partition("/")
        return f"http://{host}:{self.port}/{path}"

    def times_asked(self) -> Counter[str]:
        """Return how often each image was asked for."""
        return Counter(place for place in self.asked if not place.endswith("/robots.txt"))


def picture(place: str) -> bytes:
    """Return a small picture that no other place has."""
    colour = hash(place) & 0xFFFFFF
    Image.new("RGB", (160 + colour % 37, 160), f"#{colour:06x}").save(out := io.BytesIO(), "PNG")
    return out.getvalue()


@contextmanager
def serve(web: ImageWeb) -> Iterator[ImageWeb]:
    """Serve `web` while the block runs."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            place = f"{self.headers['Host'].partition(':')[0]}{self.path}"
            web.asked.append(place)
            answer = web.answers.get(place, 404 if self.path == "/robots.txt" else 200)
            body = web.pictures.get(place) or picture(place) if answer == 200 else b""
            if body:
                time.sleep(web.seconds_per_image)
            self.send_response(302 if isinstance(answer, str) else answer)
            if isinstance(answer, str):
                self.send_header("Location", answer)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class names it so
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    web.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_documents(folder: Path, pages: dict[str, list[list[str]]]) -> None:
    """Write a documents folder: a part for each name, a document for each list of image URLs."""
    units = []
    for name, documents in pages.items():
        unit = DOCUMENTS_STAGE.unit(name, None, settings={}, inputs=[str(documents)])
        folder.mkdir(parents=True, exist_ok=True)
        with Part(DOCUMENTS_STAGE, unit, folder) as part:
            for number, urls in enumerate(documents):
                row = dict.fromkeys(DOCUMENTS.names) | {"id": f"{name}{number}", "url": f"http://{name}.test/{number}"}
                part.write(row | {"texts": ["words", *[None] * len(urls)], "images": [None, *urls]})
                part.count("images", len(urls))
        units.append(unit)
    write_manifest(manifest_of(DOCUMENTS_STAGE, folder, collect_parts(folder, units), {}, {}))
