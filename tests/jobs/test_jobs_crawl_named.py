"""A crawl by its name: listing, sample, units; from a disk and from a server on loopback that fails on the way."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from jobs_crawls import CRAWL, CRAWLED, LISTING, CrawlHere
from jobs_web_server import WebServer
from story_runs import all_rows, carnac

from carnac.core.errors import InputError, RecipeError
from carnac.jobs.recipes import load_checked

ARCHIVES = [path for path in CRAWLED.files if path != LISTING]


def urls(rows: list[dict[str, Any]]) -> list[str]:
    return [row["url"] for row in rows]


def test_a_crawl_is_read_by_its_name(here: CrawlHere, server: WebServer) -> None:
    rows = here(crawl=CRAWL, crawl_root=server.url)
    assert urls(rows) == list(CRAWLED.records)
    for row in rows:
        path, offset, _ = CRAWLED.records[row["url"]]
        assert (row["warc_file"], row["warc_offset"]) == (path.rpartition("/")[2], offset)
    assert here.manifest["inputs"] == {"crawl": CRAWL, "crawl_root": server.url}
    assert len(here.done) == 6
    here(crawl=CRAWL, crawl_root=f"{server.url}/")
    assert here.done == []


def test_a_disk_gives_the_same_rows(here: CrawlHere, server: WebServer, tmp_path: Path) -> None:
    over_http = here(crawl=CRAWL, crawl_root=server.url)
    CRAWLED.write(tmp_path / "mirror")
    here.output = tmp_path / "again"
    assert here(crawl=CRAWL, crawl_root=str(tmp_path / "mirror")) == over_http


def test_a_sample_is_one_file_per_unit_and_grows_by_adding(here: CrawlHere, server: WebServer) -> None:
    met: list[str] = []
    for sample in (1, 2, 4, 6, 9):
        rows = here(crawl=CRAWL, crawl_root=server.url, sample=sample)
        files = list(dict.fromkeys(row["warc_file"] for row in rows))
        assert len(files) == min(sample, 6)
        assert set(met) <= set(files)
        assert len(here.done) == len(files) - len(met)
        assert files == sorted(files)  # in the order of the listing
        met = files
    others = {
        tuple(dict.fromkeys(row["warc_file"] for row in here(crawl=CRAWL, crawl_root=server.url, sample=2, seed=seed)))
        for seed in range(5)
    }
    assert len(others) > 1


def test_the_server_fails_on_the_way(here: CrawlHere, server: WebServer) -> None:
    for number, path in enumerate(ARCHIVES):
        server.faults[path] = [["503", "503"], ["cut"], ["silent", "cut:10"], []][number % 4]
    server.faults[LISTING] = ["503", "cut"]
    assert urls(here(crawl=CRAWL, crawl_root=server.url)) == list(CRAWLED.records)
    assert here.lost == {}


def test_a_server_without_ranges_or_head_gives_the_same(here: CrawlHere, server: WebServer) -> None:
    server.knows_ranges = server.knows_head = False
    assert urls(here(crawl=CRAWL, crawl_root=server.url)) == list(CRAWLED.records)


def test_an_archive_that_changed_is_read_again_and_no_other(here: CrawlHere, server: WebServer) -> None:
    here(crawl=CRAWL, crawl_root=server.url)
    server.files[ARCHIVES[2]] = CRAWLED.files[ARCHIVES[3]]
    rows = here(crawl=CRAWL, crawl_root=server.url)
    assert here.done == [f"{CRAWL}-00002"]
    assert urls(rows).count("https://a.example/3/0") == 2


def test_limit_is_so_many_pages_of_each_archive(here: CrawlHere, server: WebServer) -> None:
    rows = here(crawl=CRAWL, crawl_root=server.url, sample=3, limit=2)
    assert len(rows) == 6
    assert {url.rpartition("/")[2] for url in urls(rows)} == {"0", "1"}


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        (None, "no such crawl as 'CC-MAIN-2026-30'. Wanted a name such as"),
        (b"crawl-data/x.warc.gz\n", "no gzip file"),
        (gzip.compress(b"crawl-data/x.warc.gz\n" * 50, mtime=0)[:-20], "ends in the middle"),
        (gzip.compress(b"\n\n", mtime=0), "names no file"),
        (gzip.compress(b"ok/a.warc.gz\n../../x.warc.gz\n", mtime=0), "line 2: got '../../x.warc.gz'"),
        (gzip.compress(b"http://other.example/x.warc.gz\n", mtime=0), "line 1: got 'http://other"),
        (gzip.compress(b"<html><body>It works!</body></html>", mtime=0), "line 1: got"),
        (gzip.compress(b"crawl-data/gone.warc.gz\n", mtime=0), "gone.warc.gz: cannot be read (No such file"),
    ],
)
def test_a_wrong_listing_is_a_sentence(here: CrawlHere, server: WebServer, listing: bytes | None, said: str) -> None:
    if listing is None:
        del server.files[LISTING]
    else:
        server.files[LISTING] = listing
    with pytest.raises(InputError) as raised:
        here(crawl=CRAWL, crawl_root=server.url)
    assert said in str(raised.value)
    assert not (here.output / "manifest.json").exists()


def test_warcs_may_be_urls(here: CrawlHere, server: WebServer) -> None:
    rows = here(warcs=[f"{server.url}{path}" for path in ARCHIVES[:2]])
    assert urls(rows) == list(CRAWLED.records)[:8]
    assert here.manifest["inputs"]["warcs"] == [f"{server.url}{path}" for path in ARCHIVES[:2]]
    with pytest.raises(InputError, match="a web server cannot be listed"):
        here(warcs=[f"{server.url}/crawl-data/*.warc.gz"])
    with pytest.raises(InputError, match=r"gone\.warc\.gz: cannot be read"):
        here(warcs=[f"{server.url}/gone.warc.gz"])


def test_the_command_reads_a_crawl_in_workers_and_goes_on(server: WebServer, tmp_path: Path) -> None:
    recipe = tmp_path / "crawl.toml"
    recipe.write_text(f'job = "crawl"\ncrawl = "{CRAWL}"\ncrawl_root = "{server.url}"\noutput = "documents"\n')
    server.faults[ARCHIVES[1]] = ["404"] * 20  # found by HEAD, then gone
    said = carnac(tmp_path, "run", "crawl.toml", code=1)
    assert "1 of 6 units failed" in said
    server.faults.clear()
    assert "1 of 6 units done" in carnac(tmp_path, "run", "crawl.toml")
    assert urls(all_rows(tmp_path / "documents")) == list(CRAWLED.records)
    # The recipe that is kept beside the output runs again as it is.
    assert "all done before" in carnac(tmp_path, "run", "documents/recipe.toml")
    images = tmp_path / "images.toml"
    images.write_text('job = "images"\ndocuments = "documents"\noutput = "images"\n')
    before = dict(server.sent)
    carnac(tmp_path, "run", "images.toml")
    assert dict(server.sent) == before  # archives of pages are not searched for images


@pytest.mark.parametrize(
    ("settings", "line", "said"),
    [
        ("", 1, "job: says nothing of what to read. Wanted one of: warcs, crawl, pointers, pages."),
        ('warcs = ["a"]\ncrawl = "b"', 4, "crawl: warcs is given too."),
        ('warcs = ["a"]\nsample = 3', 4, "sample: says nothing of warcs. Wanted it with crawl only."),
        ('crawl = "a"\nbase_url = "http://x/"', 4, "base_url: says nothing of crawl. Wanted it with pages only."),
        ('crawl = "../x"', 3, "crawl: got '../x', wanted"),
        ('crawl = "a"\nsample = 0', 4, "sample: got 0, wanted"),
        ('crawl = "a"\ncrawl_root = "ftp://x/"', 4, "crawl_root: ftp://x/: no store is known by ftp://"),
        ('pages = ["*.html"]', 1, "base_url: missing. Wanted the URL at which"),
        ('pages = ["*.html"]\nbase_url = "docs/"', 4, "base_url: got 'docs/'. Wanted the URL"),
    ],
)
def test_a_wrong_recipe_is_a_sentence_with_its_line(tmp_path: Path, settings: str, line: int, said: str) -> None:
    path = tmp_path / "crawl.toml"
    path.write_text(f'job = "crawl"\noutput = "documents"\n{settings}\n')
    with pytest.raises(RecipeError) as raised:
        load_checked([path], [])
    assert f"crawl.toml:{line}: {said}" in str(raised.value)
