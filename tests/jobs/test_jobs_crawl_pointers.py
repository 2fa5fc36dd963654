"""Pointers to records, as Common Crawl's columnar index gives them: ranges, order, and every way to point wrong."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from jobs_crawls import CRAWLED, CrawlHere, write_warc
from jobs_web_server import WebServer

from carnac.archive import pointers as module
from carnac.archive.pointers import MAX_GAP_BYTES, MAX_SPAN_BYTES, Pointer, merge
from carnac.archive.zstd_frames import DICTIONARY_MAGIC
from carnac.core.errors import InputError

Row = tuple[str | None, int | None, int | None]


def parquet(rows: Sequence[Row], **options: Any) -> bytes:
    """Return a table such as a query on the index gives, its columns of the index's types."""
    columns = list(zip(*rows, strict=True))
    table = pa.table(
        {
            "url": pa.array([f"https://a.example/{number}" for number in range(len(rows))]),
            "warc_filename": pa.array(columns[0], pa.string()),
            "warc_record_offset": pa.array(columns[1], pa.int32()),
            "warc_record_length": pa.array(columns[2], pa.int32()),
        }
    )
    pq.write_table(table, out := io.BytesIO(), **options)
    return out.getvalue()


def urls(rows: list[dict[str, Any]]) -> list[str]:
    return [row["url"] for row in rows]


def shuffled() -> list[str]:
    order = list(CRAWLED.records)
    random.Random(2).shuffle(order)
    return order


def pointed(folder: Path, order: Sequence[str], **options: Any) -> str:
    """Write the pointers to pages, in order; return the file."""
    (folder / "wanted.parquet").write_bytes(parquet([CRAWLED.records[url] for url in order], **options))
    return str(folder / "wanted.parquet")


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_rows_come_in_the_order_of_the_pointers(
    here: CrawlHere, server: WebServer, tmp_path: Path, knows_ranges: bool
) -> None:
    server.knows_ranges = knows_ranges
    order = shuffled()
    rows = here(pointers=pointed(tmp_path, order), crawl_root=server.url)
    assert urls(rows) == order
    for row in rows:
        path, offset, _ = CRAWLED.records[row["url"]]
        assert (row["warc_file"], row["warc_offset"]) == (path.rpartition("/")[2], offset)
    assert here.done == ["wanted-000000"]
    assert here.manifest["counts"]["requests"] == 6  # a file each: its records lie near one another
    assert here.lost == {}


def test_a_disk_and_a_table_behind_a_url_give_the_same(here: CrawlHere, server: WebServer, tmp_path: Path) -> None:
    order = shuffled()
    over_http = here(pointers=pointed(tmp_path, order), crawl_root=server.url)
    server.files["/wanted.parquet"] = (tmp_path / "wanted.parquet").read_bytes()
    CRAWLED.write(tmp_path / "mirror")
    here.output = tmp_path / "again"
    assert here(pointers=f"{server.url}/wanted.parquet", crawl_root=str(tmp_path / "mirror")) == over_http


def test_units_resume_and_limit(here: CrawlHere, server: WebServer, tmp_path: Path) -> None:
    order = shuffled()
    file = pointed(tmp_path, order, row_group_size=5)  # units and row groups need not fit
    rows = here(pointers=file, crawl_root=server.url, records_per_unit=9)
    assert urls(rows) == order
    assert here.done == ["wanted-000000", "wanted-000001", "wanted-000002"]
    parts = here.manifest["parts"]
    assert [part["rows"] for part in parts] == [9, 9, 6]
    (here.output / parts[1]["file"]).unlink()
    assert here(pointers=file, crawl_root=server.url, records_per_unit=9) == rows
    assert here.done == ["wanted-000001"]
    some = here(pointers=file, crawl_root=server.url, records_per_unit=9, limit=2)
    assert urls(some) == [*order[:2], *order[9:11], *order[18:20]]


def test_the_server_fails_on_the_way(here: CrawlHere, server: WebServer, tmp_path: Path) -> None:
    for number, path in enumerate(CRAWLED.files):
        server.faults[path] = [["503", "503"], ["cut"], ["silent", "cut:10"], []][number % 4]
    order = shuffled()
    assert urls(here(pointers=pointed(tmp_path, order), crawl_root=server.url)) == order
    assert here.lost == {}


def test_an_outage_fails_the_unit_and_a_later_run_goes_on(here: CrawlHere, server: WebServer, tmp_path: Path) -> None:
    file = pointed(tmp_path, shuffled())
    for path in CRAWLED.files:
        server.faults[path] = ["503"] * 100
    with pytest.raises(InputError, match="503 Service Unavailable, asked 4 times"):
        here(pointers=file, crawl_root=server.url)
    assert not (here.output / "manifest.json").exists()
    server.faults.clear()
    assert len(here(pointers=file, crawl_root=server.url)) == 24


def test_one_file_that_never_comes_costs_its_records(here: CrawlHere, server: WebServer, tmp_path: Path) -> None:
    broken = next(iter(CRAWLED.files))
    server.faults[broken] = ["500"] * 100
    rows = here(pointers=pointed(tmp_path, shuffled()), crawl_root=server.url)
    assert len(rows) == 20
    assert set(here.lost.values()) == {"fetch_failed"}
    assert len(here.lost) == 4


def test_wrong_pointers_cost_themselves(here: CrawlHere, server: WebServer, tmp_path: Path) -> None:
    path, offset, length = CRAWLED.records["https://a.example/0/1"]
    end = len(CRAWLED.files[f"/{path}"])
    damaged = path.replace("00000", "damaged")
    content = bytearray(CRAWLED.files[f"/{path}"])
    content[offset + length // 2] ^= 0x10
    server.files[f"/{damaged}"] = bytes(content)
    whole: Row = (path, offset, length)
    table: list[tuple[Row, str | None]] = [
        (whole, None),
        ((path, end + 10, 500), "pointer_beyond_file"),
        ((path, end - 10, 500), "pointer_beyond_file"),
        ((path.replace("00000", "gone"), 0, 500), "no_such_file"),
        ((path, offset + 7, length - 7), "no_record_there"),
        ((path, offset, length - 40), "damaged_record"),
        ((path, 0, offset), "no_response"),
        ((damaged, offset, length), "damaged_record"),
        ((path, -1, 500), "bad_pointer"),
        ((path, offset, 0), "bad_pointer"),
        ((None, offset, length), "bad_pointer"),
        ((path, None, length), "bad_pointer"),
        ((f"../{path}", offset, length), "bad_pointer"),
        ((f"/{path}", offset, length), "bad_pointer"),
        (("https://other.example/x.warc.gz", offset, length), "bad_pointer"),
        ((path, offset, 1 << 30), "payload_too_large"),
        ((path, offset, length + 100), None),  # what follows the record does no harm
        (whole, None),
    ]
    (tmp_path / "wanted.parquet").write_bytes(parquet([row for row, _ in table]))
    rows = here(pointers=str(tmp_path / "wanted.parquet"), crawl_root=server.url)
    assert urls(rows) == ["https://a.example/0/1"] * 3
    reasons = [reason for _, reason in table if reason is not None]
    assert len(here.lost) == len(set(here.lost)) == len(reasons)
    assert list(here.lost.values()) == reasons


def test_a_record_of_a_file_with_a_dictionary_is_read(here: CrawlHere, tmp_path: Path) -> None:
    import gzip

    samples = [gzip.decompress(write_warc([f"https://a.example/{number}"])[0]) for number in range(300)]
    dictionary = zstandard.train_dictionary(3000, [*samples])
    compressor = zstandard.ZstdCompressor(dict_data=dictionary)
    stored = DICTIONARY_MAGIC + len(dictionary.as_bytes()).to_bytes(4, "little") + dictionary.as_bytes()
    rows: list[Row] = []
    for sample in samples[:10]:
        response = sample[re.search(rb"WARC/1\.\d\r\nWARC-Type: response", sample).start() :]  # type: ignore[union-attr]
        frame = compressor.compress(response)
        rows.append(("x.warc.zst", len(stored), len(frame)))
        stored += frame
    (tmp_path / "x.warc.zst").write_bytes(stored)
    (tmp_path / "wanted.parquet").write_bytes(parquet(rows[::-1]))
    found = here(pointers=str(tmp_path / "wanted.parquet"), crawl_root=str(tmp_path))
    assert urls(found) == [f"https://a.example/{number}" for number in range(9, -1, -1)]
    assert urls(here(warcs=[str(tmp_path / "x.warc.zst")])) == [f"https://a.example/{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"url,warc_filename\n", "cannot be read"),
        (b"", "cannot be read"),
        (None, "no such file"),
        ("columns", "no column warc_filename, warc_record_length. Wanted warc_filename, warc_record_offset"),
        ("types", "column warc_record_offset is of type string; wanted whole numbers"),
    ],
)
def test_what_holds_no_pointers_is_a_sentence(here: CrawlHere, tmp_path: Path, content: Any, said: str) -> None:
    file = tmp_path / "wanted.parquet"
    if content == "columns":
        pq.write_table(pa.table({"url": ["a"], "warc_record_offset": [1]}), file)
    elif content == "types":
        wrong = {"warc_filename": ["a"], "warc_record_offset": ["1"], "warc_record_length": [1]}
        pq.write_table(pa.table(wrong), file)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError) as raised:
        here(pointers=str(file), crawl_root=str(tmp_path))
    assert said in str(raised.value)


def test_neighbours_are_fetched_together() -> None:
    def at(offset: int, length: int, file: str = "a") -> Pointer:
        return Pointer(file=file, offset=offset, length=length)

    near, far = MAX_GAP_BYTES, MAX_GAP_BYTES + 1
    pointers = [at(0, 100), at(100 + near, 50), at(150 + near + far, 10), at(0, 10, "b"), at(0, 100), at(20, 30)]
    spans = [(span.file, span.start, span.stop, span.numbers) for span in merge(pointers, 1 << 30)]
    assert spans == [
        ("a", 0, 150 + near, (0, 4, 5, 1)),
        ("a", 150 + near + far, 160 + near + far, (2,)),
        ("b", 0, 10, (3,)),
    ]
    many = [at(number * 100_000, 100_000) for number in range(500)]
    spans_of_many = merge(many, 1 << 30)
    assert max(span.stop - span.start for span in spans_of_many) <= MAX_SPAN_BYTES
    assert [number for span in spans_of_many for number in span.numbers] == list(range(500))
    assert merge([at(0, 100)], 99) == []


def test_few_requests_are_under_way_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun: list[int] = []

    def read(root: Path, span: module.Span) -> bytes:
        begun.append(span.start)
        return b"x"

    monkeypatch.setattr(module, "_read_span", read)
    spans = [module.Span(file="a", start=number, stop=number + 1, numbers=(number,)) for number in range(100)]
    ahead = module._ahead(tmp_path, spans)
    for number in range(10):
        assert next(ahead)[0].start == number
        assert len(begun) <= number + module.REQUESTS_AT_ONCE
