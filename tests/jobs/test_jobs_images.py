"""The images job end to end: archives first, then HTTP on loopback, only if the recipe says so."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from story_runs import RECIPES, all_rows, carnac
from test_jobs_bad_input import SITE, page, record


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder and keeps its mouth shut."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class names it so
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A server on loopback with twelve pictures; returns its address."""
    folder = tmp_path / "site"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (80 + number, 70), "orchid").save(folder / f"{number}.png")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def crawl(tmp_path: Path, site: str) -> Path:
    """A crawl of two pages: pictures 0 to 9 and a missing one on the web, one more picture in the archive itself."""
    links = "".join(f'<img src="{site}/{number}.png">' for number in (*range(10), 99)) + '<img src="/own.png">'
    Image.new("RGB", (90, 90), "olive").save(own := io.BytesIO(), "PNG")
    records = [
        record(f"{SITE}/1", "text/html", page(1, links)),
        record(f"{SITE}/own.png", "image/png", own.getvalue()),
        record(f"{SITE}/2", "text/html", page(2, f'<img src="{site}/10.png">')),
    ]
    (tmp_path / "crawl.warc").write_bytes(b"".join(records))
    carnac(tmp_path, "run", str(RECIPES / "01-crawl.toml"), "--set", "warcs=['crawl.warc']")
    return tmp_path


def images(folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    carnac(folder, "run", str(RECIPES / "02-images.toml"), *arguments)
    return {row["url"].rpartition("/")[2]: row for row in all_rows(folder / "out/tiny/images")}


def test_without_fetch_nothing_is_asked_of_the_web(crawl: Path) -> None:
    rows = images(crawl)
    assert rows["own.png"]["status"] == "kept"
    assert {row["reason"] for name, row in rows.items() if name != "own.png"} == {"not_in_archive"}


def test_with_fetch_the_rest_comes_over_http(crawl: Path) -> None:
    rows = images(crawl, "--set", "fetch=true", "--set", "http.allow_private_addresses=true")
    assert rows["99.png"]["reason"] == "http_404"
    kept = {name: row for name, row in rows.items() if row["status"] == "kept"}
    assert set(kept) == {"own.png", *(f"{number}.png" for number in range(11))}
    assert {row["source"] for name, row in kept.items() if name != "own.png"} == {"http"}
    for name, row in kept.items():
        pack = (crawl / "out/tiny/images/packs" / row["pack"]).read_bytes()
        payload = pack[row["offset"] : row["offset"] + row["length"]]
        assert hashlib.sha256(payload).hexdigest() == row["sha256"]
        if name != "own.png":
            assert payload == (crawl / "site" / name).read_bytes()


def test_private_addresses_are_refused_by_default(crawl: Path) -> None:
    rows = images(crawl, "--set", "fetch=true")
    assert rows["0.png"]["reason"] == "refused_address"
    assert rows["own.png"]["status"] == "kept"


def test_masks_and_limit_narrow_what_is_wanted(crawl: Path) -> None:
    images(crawl)
    carnac(crawl, "run", str(RECIPES / "03-curate.toml"))
    # The second page has no picture that was kept, so the passes drop it; its link is no longer wanted.
    rows = images(crawl, "--set", "masks='out/tiny/curated/masks/repeats'", "--set", "output='out/tiny/again'")
    wanted = {row["url"].rpartition("/")[2] for row in all_rows(crawl / "out/tiny/again")}
    assert wanted == {"own.png"}
    assert len(rows) == 13
    assert len(images(crawl, "--limit", "3")) == 3


def test_a_crawl_that_was_moved_away_is_a_sentence(crawl: Path) -> None:
    (crawl / "crawl.warc").rename(crawl / "elsewhere.warc")
    out = carnac(crawl, "run", str(RECIPES / "02-images.toml"), code=1)
    assert "crawl.warc: cannot be read" in out
