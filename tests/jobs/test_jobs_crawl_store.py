"""A crawl by name and pointers on an S3-type server: the rows are those of a disk, whatever the kind of root."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jobs_crawls import CRAWL, LISTING, CommonCrawl, CrawlHere
from test_jobs_crawl_pointers import Row, parquet

if TYPE_CHECKING:
    from store_server import Bucket

CRAWLED = CommonCrawl(num_archives=3)


def test_a_crawl_by_name_in_a_bucket(here: CrawlHere, bucket: Bucket) -> None:
    for path, content in CRAWLED.files.items():
        bucket.put(path[1:], content)
    rows = here(crawl=CRAWL, crawl_root=bucket.url)
    assert [row["url"] for row in rows] == list(CRAWLED.records)
    before = len(bucket.requests())
    here(crawl=CRAWL, crawl_root=bucket.url)
    assert here.done == []
    # A listing per folder and the crawl's own list, nothing per archive.
    assert len(bucket.requests()) - before <= 6


def test_pointers_into_a_bucket(here: CrawlHere, bucket: Bucket, tmp_path: Path) -> None:
    for path, content in CRAWLED.files.items():
        bucket.put(path[1:], content)
    order = list(CRAWLED.records)[::-1]
    path, *_ = CRAWLED.records[order[0]]
    end = len(CRAWLED.files[f"/{path}"])
    wrong: list[Row] = [(path.replace("00002", "gone"), 0, 100), (LISTING[1:], 1 << 20, 10), (path, end - 10, 20)]
    bucket.put("wanted/0.parquet", parquet([*wrong, *(CRAWLED.records[url] for url in order)]))
    rows = here(pointers=f"{bucket.url}/wanted/*.parquet", crawl_root=bucket.url)
    assert [row["url"] for row in rows] == order
    assert list(here.lost.values()) == ["no_such_file", "pointer_beyond_file", "pointer_beyond_file"]
