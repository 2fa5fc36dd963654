"""Folders of HTML: which files, which URLs, groups; from a disk and from an S3-type server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jobs_crawls import CrawlHere, page

from carnac.core.errors import InputError
from carnac.jobs.crawl_pages import find_pages, fixed_folder

if TYPE_CHECKING:
    from store_server import Bucket

BASE = "https://docs.example/v2"
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of pages, with what lies beside pages."""
    site = tmp_path / "site"
    (site / "guide" / "a b").mkdir(parents=True)
    for name in ("index.html", "guide/one.html", "guide/two.htm", "guide/a b/d\u00e9j\u00e0.html"):
        (site / name).write_bytes(page(name))
    (site / "guide" / "fragment.html").write_bytes("<p>Le caf\u00e9 est ferm\u00e9 \u00e0 midi.</p>".encode("latin-1"))
    (site / "logo.png").write_bytes(PICTURE)
    (site / "guide" / "bare").write_bytes(page("bare"))  # no suffix: its content says what it is
    return site


def urls(rows: list[dict[str, Any]]) -> list[str]:
    return [row["url"].removeprefix(f"{BASE}/") for row in rows]


def test_a_page_has_the_url_of_its_place_below_the_folder(here: CrawlHere, site: Path) -> None:
    rows = here(pages=[f"{site}/**/*.htm*", f"{site}/**"], base_url=BASE)
    assert urls(rows) == [
        "guide/a%20b/d%C3%A9j%C3%A0.html",
        "guide/fragment.html",
        "guide/one.html",
        "guide/two.htm",
        "index.html",
        "guide/bare",
    ]
    by_url = {row["url"]: row for row in rows}
    assert by_url[f"{BASE}/guide/fragment.html"]["texts"] == ["Le caf\u00e9 est ferm\u00e9 \u00e0 midi."]
    first = by_url[f"{BASE}/guide/one.html"]
    assert (first["warc_file"], first["warc_offset"], first["fetched_at"]) == ("guide/one.html", 0, None)
    assert here.manifest["counts"]["not_a_page"] == 1
    assert here.done == ["pages-000000"]


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("site/**/*.html", "site"),
        ("site/a/b*/c.html", "site/a"),
        ("*.html", "."),
        ("/*.html", "/"),
        ("/srv/x?.html", "/srv"),
        ("site/a/c.html", "site/a"),
        ("s3://bucket/site/*.html", "s3://bucket/site"),
        ("s3://bucket/site/x.html", "s3://bucket/site"),
    ],
)
def test_the_folder_of_a_pattern(pattern: str, folder: str) -> None:
    assert str(fixed_folder(pattern)) == folder


def test_units_resume_and_limit(here: CrawlHere, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    for number in range(10):
        (tmp_path / f"site/{number}.html").write_bytes(page(str(number)))
    settings = {"pages": [f"{tmp_path}/site/*.html"], "base_url": f"{BASE}/", "records_per_unit": 4}
    rows = here(**settings)
    assert urls(rows) == [f"{number}.html" for number in range(10)]
    assert here.done == ["pages-000000", "pages-000001", "pages-000002"]
    (tmp_path / "site/5.html").write_bytes(page("new"))
    assert urls(here(**settings)) == urls(rows)
    assert here.done == ["pages-000001"]
    here(**settings)
    assert here.done == []
    assert urls(here(**settings, limit=1)) == ["0.html", "4.html", "8.html"]


def test_what_cannot_be_read_as_a_page_costs_itself(here: CrawlHere, site: Path) -> None:
    (site / "empty.html").write_bytes(b"")
    (site / "large.html").write_bytes(page("large") + b" " * 3_000)
    (site / "huge.html").touch()
    with (site / "huge.html").open("r+b") as file:
        file.truncate(10 << 30)  # a hole: no disk is used, and nobody reads it to its end
    rows = here(pages=[f"{site}/*.html"], base_url=BASE, extract={"max_page_bytes": 2_000})
    assert urls(rows) == ["index.html"]
    assert here.lost == {
        "empty.html": "no_content",
        "huge.html": "payload_too_large",
        "large.html": "page_too_large",
    }


def test_two_pages_with_one_url_are_a_sentence(site: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_bytes(page("other"))
    with pytest.raises(InputError, match=r"site/index\.html and .*other/index\.html would both be https://docs"):
        find_pages([f"{site}/*.html", f"{tmp_path}/other/*.html"], BASE)
    with pytest.raises(InputError, match=r"a folder. Wanted files; try .*/site/\*\.html"):
        find_pages([str(site)], BASE)


def test_pages_of_a_store(here: CrawlHere, bucket: Bucket) -> None:
    for name in ("index.html", "guide/one.html"):
        bucket.put(f"site/{name}", page(name))
    rows = here(pages=[f"{bucket.url}/site/**/*.html"], base_url=BASE)
    assert urls(rows) == ["guide/one.html", "index.html"]
    rows = here(pages=[f"{bucket.url}/site/guide/one.html"], base_url=f"{BASE}/guide")
    assert urls(rows) == ["guide/one.html"]
