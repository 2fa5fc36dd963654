"""What was taken down comes back from no source: the web, folders of pages, other people's sets, conversations."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs_takedown import MARK, everything_in, picture
from PIL import Image
from story_runs import RECIPES, all_rows, carnac
from test_jobs_bad_input import SITE, page, record

NUM_PICTURES = 6


class Site(BaseHTTPRequestHandler):
    """Serves picture N at /N.jpg and at /copy/N.jpg, notes what was asked for, and has no robots.txt."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.rpartition("/")[2].removesuffix(".jpg")
        if not name.isdecimal():
            self.send_error(404)
            return
        payload = picture(int(name))
        self.send_response(200)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class names it so
        pass


@pytest.fixture
def site() -> Iterator[str]:
    Site.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    sets = ("fetch=true", "http.allow_private_addresses=true", "http.delay_seconds=0", "http.backoff_seconds=0.01")
    overrides = [f"--set={one}" for one in sets]
    carnac(folder, "run", str(RECIPES / "01-crawl.toml"), "--set", "warcs=['crawl.warc']")
    carnac(folder, "run", str(RECIPES / "02-images.toml"), *overrides, *arguments)
    return {row["url"]: row for row in all_rows(folder / "out/tiny/images")}


def write_warc(folder: Path, urls: list[str]) -> None:
    links = "".join(f'<img src="{url}">' for url in urls)
    (folder / "crawl.warc").write_bytes(record(f"{SITE}/1", "text/html", page(1, links)))


def test_a_fetched_image_is_never_asked_for_again_nor_kept_from_elsewhere(tmp_path: Path, site: str) -> None:
    urls = [f"{site}/{number}.jpg" for number in range(NUM_PICTURES)]
    write_warc(tmp_path, urls)
    before = fetch(tmp_path)
    assert {row["status"] for row in before.values()} == {"kept"}
    carnac(tmp_path, "takedown", "out", "--url", urls[2], "--sha256", before[urls[4]]["received_sha256"])
    gone = [url.encode() for url in (urls[2], urls[4])]
    assert not [name for name, content in everything_in(tmp_path / "out") if any(url in content for url in gone)]
    Site.asked.clear()
    again = fetch(tmp_path, "--retry", "all")
    assert Site.asked == []
    assert sorted(again) == sorted([url for url in urls if url.encode() not in gone] + [MARK])
    write_warc(tmp_path, [*urls, *(f"{site}/copy/{number}.jpg" for number in (2, 3))])
    after = fetch(tmp_path)
    assert not {"/2.jpg", "/4.jpg"} & set(Site.asked)
    assert (after[f"{site}/copy/2.jpg"]["status"], after[f"{site}/copy/2.jpg"]["reason"]) == ("dropped", "taken_down")
    assert after[f"{site}/copy/3.jpg"]["status"] == "kept"
    stored = before[urls[2]]["sha256"].encode()
    assert not [name for name, content in everything_in(tmp_path / "out") if stored in content]


def test_a_page_of_a_folder_is_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    for number in range(3):
        (tmp_path / f"site/{number}.html").write_bytes(page(number))
    recipe = 'job = "crawl"\npages = ["site/*.html"]\nbase_url = "https://a.test/docs/"\noutput = "out/documents"\n'
    (tmp_path / "crawl.toml").write_text(recipe)
    carnac(tmp_path, "run", "crawl.toml")
    carnac(tmp_path, "takedown", "out/documents", "--url", "http://a.test/docs/1.html")
    assert [row["url"] for row in all_rows(tmp_path / "out/documents")] == [
        "https://a.test/docs/0.html",
        MARK,
        "https://a.test/docs/2.html",
    ]
    for part in (tmp_path / "out/documents").glob("*.parquet"):
        part.unlink()
    carnac(tmp_path, "run", "crawl.toml")
    rows = all_rows(tmp_path / "out/documents")
    assert [row["url"] for row in rows] == ["https://a.test/docs/0.html", "https://a.test/docs/2.html"]
    counts = json.loads((tmp_path / "out/documents/manifest.json").read_bytes())["counts"]
    assert counts["taken_down"] == 1


def test_a_document_of_another_set_loses_what_was_taken_down(tmp_path: Path) -> None:
    urls = ["https://a.test/1.jpg", "https://evil.test/2.jpg", "https://a.test/3.jpg"]
    rows = [
        {
            "texts": [None, f"Words about {number}, as on evil.test."],
            "images": [url, None],
            "url": f"https://b.test/{number}",
        }
        for number, url in enumerate(urls)
    ]
    pq.write_table(pa.Table.from_pylist([{**row, "general_metadata": None} for row in rows]), tmp_path / "set.parquet")
    (tmp_path / "adopt.toml").write_text('job = "adopt"\nobelics = ["set.parquet"]\noutput = "out/documents"\n')
    carnac(tmp_path, "run", "adopt.toml")
    carnac(tmp_path, "takedown", "out", "--domain", "evil.test", "--url", urls[2], "--url", "https://b.test/0")
    (part,) = (tmp_path / "out/documents").glob("*.parquet")
    part.unlink()
    carnac(tmp_path, "run", "adopt.toml")
    after = all_rows(tmp_path / "out/documents")
    assert [(row["url"], row["texts"], row["images"]) for row in after] == [
        ("https://b.test/1", [f"Words about 1, as on {MARK}."], [None]),
        ("https://b.test/2", [f"Words about 2, as on {MARK}."], [None]),
    ]


def test_a_conversation_about_a_picture_goes_and_stays_away(tmp_path: Path) -> None:
    names = []
    for number in range(3):
        Image.effect_noise((90, 70), 10 + number).convert("RGB").save(out := io.BytesIO(), "PNG")
        (tmp_path / f"{number}.png").write_bytes(out.getvalue())
        names.append(hashlib.sha256(out.getvalue()).hexdigest())
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "Noise."}]
    records = [{"id": str(number), "image": f"{number}.png", "conversations": turns} for number in range(3)]
    (tmp_path / "talk.json").write_text(json.dumps(records))
    recipe = 'job = "conversations"\nformat = "llava"\ntrain = ["talk.json"]\noutput = "out/talk"\n'
    (tmp_path / "talk.toml").write_text(recipe + '[split]\nheld_out = 0.0\n[inspect]\nstore = "original"\n')
    carnac(tmp_path, "run", "talk.toml")
    assert len(all_rows(tmp_path / "out/talk/train")) == 3
    carnac(tmp_path, "takedown", "out", "--sha256", names[1])

    def left() -> list[str]:
        rows = all_rows(tmp_path / "out/talk/train")
        return [image["path"].partition(".")[0] for row in rows for image in row["images"] if image]

    assert left() == [names[0], names[2]]
    for part in (tmp_path / "out/talk/train").glob("*.parquet"):
        part.unlink()
    # Another way to keep pictures: the bytes that are read tell.
    carnac(tmp_path, "run", "talk.toml", "--set", "inspect.store='reencoded'")
    assert len(left()) == 2
    assert names[1].encode() not in b"".join(content for _, content in everything_in(tmp_path / "out"))
