"""`carnac run RECIPE --record ID`: one lost record again, through the real command line, on a real crawl."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from story_runs import RECIPES, all_rows, carnac, command

CRAWL = str(RECIPES / "01-crawl.toml")
SITE = "https://example.org"


def page(path: str, body: bytes) -> bytes:
    """Return the WARC record of a page."""
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {SITE}/{path}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


SOUND = b"<p>The river runs past the old mill and the people of the town walk along it in the evening.</p>"
SLOW = b"<p>" + b"<a href=x>the old mill</a> " * 330_000  # 9 MB: seconds of CPU, not the half that the run gives
# Two whose name the test knows, and one that is cut: it is lost while the archive is read.
PAGES = {"sound": SOUND, "deep": b"<div>" * 20_000, "slow": SLOW, "cafe": "<p>caf\xe9</p>".encode() + SOUND}


@dataclass(frozen=True)
class Crawl:
    """A folder in which one archive with bad pages was crawled. `offsets` are those of `PAGES`."""

    folder: Path
    offsets: dict[str, int]

    @property
    def documents(self) -> Path:
        """Its output."""
        return self.folder / "out/tiny/documents"

    def name(self, path: str) -> str:
        """Return the name of a page's record."""
        return f"crawl.warc@{self.offsets[path]}"

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run the recipe."""
        return carnac(self.folder, "run", CRAWL, "--set", "warcs=['crawl.warc']", *arguments, code=code)


TIGHT = ("--set", "limits.cpu_seconds=0.5")


def crawl_of(folder: Path) -> Crawl:
    offsets, archive = {}, b""
    for path, body in PAGES.items():
        offsets[path] = len(archive)
        archive += page(path, body)
    offsets["cut"] = len(archive)
    (folder / "crawl.warc").write_bytes(archive + page("cut", SOUND)[:-60])
    return Crawl(folder=folder, offsets=offsets)


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Crawl:
    """The archive crawled, with less time for a record than the slow page takes."""
    crawl = crawl_of(tmp_path_factory.mktemp("record"))
    crawl.run(*TIGHT)
    return crawl


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the time of change and the bytes of every file and folder."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, b"" if path.is_dir() else path.read_bytes())
        for path in [folder, *folder.rglob("*")]
    }


def test_the_run_loses_what_it_should_and_keeps_the_rest(crawl: Crawl) -> None:
    counts = json.loads((crawl.documents / "manifest.json").read_bytes())["counts"]
    lost = {name: number for name, number in counts.items() if name.startswith("lost.")}
    assert lost == {"lost.too_deep": 1, "lost.too_slow": 1, "lost.truncated_archive": 1}
    assert [row["url"] for row in all_rows(crawl.documents)] == [f"{SITE}/sound", f"{SITE}/cafe"]


def test_a_record_that_raised_raises_again_with_its_traceback(crawl: Crawl) -> None:
    before = everything(crawl.folder)
    # A traceback is asked for here; everywhere else `carnac` of the story's runs takes it for a failure.
    process = command(crawl.folder, "run", CRAWL, "--set", "warcs=['crawl.warc']", "--record", crawl.name("deep"))
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert "Traceback (most recent call last):" in out
    assert f"{crawl.name('deep')}: lost by documents, unit crawl: too_deep. 10,000 elements open" in out
    assert "RecordError: too_deep: 10,000 elements open" in out
    assert "extract.py" in out
    assert "lost again after " in out
    assert out.rstrip().endswith("s; its traceback is above.")
    assert everything(crawl.folder) == before


def test_a_record_that_ended_its_process_does_so_again_or_gives_its_result_within_wider_limits(crawl: Crawl) -> None:
    before = everything(crawl.folder)
    out = crawl.run("--record", crawl.name("slow"), *TIGHT)
    assert f"{crawl.name('slow')}: lost by documents, unit crawl: too_slow. it took more than 0.5 s of CPU time" in out
    assert "lost again after " in out
    assert "too_slow; it took more than 0.5 s of CPU time." in out
    wider = crawl.run("--record", crawl.name("slow"))
    assert "Document(id=" in wider
    [part] = crawl.documents.glob("*.parquet")
    removed = part.relative_to(crawl.folder)
    assert f"what it gives is above. To take it in, remove {removed} and run the recipe again." in wider
    assert everything(crawl.folder) == before


def test_what_the_sentence_advises_takes_the_record_in(tmp_path: Path) -> None:
    crawl = crawl_of(tmp_path)
    crawl.run(*TIGHT)
    for part in crawl.documents.glob("*.parquet"):
        part.unlink()
    crawl.run()
    assert [row["url"] for row in all_rows(crawl.documents)] == [f"{SITE}/{path}" for path in ("sound", "slow", "cafe")]


def test_a_record_lost_while_the_archive_was_read_is_not_tried_by_its_unit(crawl: Crawl) -> None:
    before = everything(crawl.folder)
    out = crawl.run("--record", crawl.name("cut"))
    assert f"{crawl.name('cut')}: lost by documents, unit crawl: truncated_archive" in out
    assert "its unit does not try this record: it was lost while the input was read" in out
    assert everything(crawl.folder) == before


@pytest.mark.parametrize("name", ["crawl.warc@1", "sound"])
def test_a_record_that_was_not_lost_is_said_to_be_unknown(crawl: Crawl, name: str) -> None:
    before = everything(crawl.folder)
    out = crawl.run("--record", crawl.name("sound") if name == "sound" else name, code=1)
    assert "carnac: " in out
    assert "no recipe of this run has lost this record. Wanted a record's name as carnac show lists it" in out
    assert everything(crawl.folder) == before


def test_before_any_run_there_is_nothing_lost_and_it_says_what_to_do(tmp_path: Path) -> None:
    crawl = crawl_of(tmp_path)
    before = everything(tmp_path)
    out = crawl.run("--record", crawl.name("deep"), code=1)
    assert "carnac: out/tiny/documents: 1 of 1 units are not done" in out
    assert "Run the recipe first; carnac show then names what was lost." in out
    assert everything(tmp_path) == before


def test_the_names_that_show_lists_are_the_names_to_give(crawl: Crawl) -> None:
    listed = carnac(crawl.folder, "show", str(crawl.documents))
    for path in ("deep", "slow", "cut"):
        assert crawl.name(path) in listed
