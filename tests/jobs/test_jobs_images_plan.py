"""Who asks whom for what: hosts in units, what a retry takes, and how a wanted URL is recognised."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.schema import DOCUMENTS
from carnac.core.taken_down import MARK, TakenDown
from carnac.engine.part import Part
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage
from carnac.images.urls import host_of
from carnac.jobs.images_plan import LATER, share_out
from carnac.jobs.images_wanted import URLS_STAGE, WANTED_STAGE, UrlsTask, WantedTask, WantedUrls, owner_of


def asked(host: int, number: int) -> dict[str, Any]:
    url = f"http://h{host}.example/{number}.jpg"
    return {"url": url, "ask": url, "hops": 0, "rounds": 0}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 25))
def test_a_host_is_in_one_unit_and_no_unit_is_too_large(hosts: list[int], urls_per_unit: int) -> None:
    rows = [asked(host, number) for host, times in enumerate(hosts) for number in range(times)]
    shares = list(share_out(rows, urls_per_unit))
    assert sorted(row["url"] for _, share in shares for row in share) == sorted(row["url"] for row in rows)
    units = [(number, share) for number, share in shares if number != LATER]
    assert [number for number, _ in units] == list(range(len(units)))
    owners: dict[str, set[int]] = defaultdict(set)
    for number, share in units:
        assert 0 < len(share) <= urls_per_unit
        for row in share:
            owners[host_of(row["ask"])].add(number)
    assert all(len(numbers) == 1 for numbers in owners.values())
    # What is left for later is what one unit may not ask of one host, and nothing else.
    later = [row for number, share in shares if number == LATER for row in share]
    assert len(later) == sum(max(0, times - urls_per_unit) for times in hosts)


def test_hosts_with_many_urls_lie_in_different_units() -> None:
    rows = [asked(host, number) for host in range(8) for number in range(100)]
    shares = list(share_out(rows, 200))
    assert [len({host_of(row["ask"]) for row in share}) for _, share in shares] == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("url", "owner"),
    [
        ("http://Example.COM/a.png", "example.com"),
        ("https://example.com.:8443/a.png", "example.com"),
        ("http://b\u00fccher.example/", "xn--bcher-kva.example"),
        ("http://[::1]:80/a", "::1"),
        ("http://user:word@example.com/", "http://user:word@example.com/"),
        ("http://[::1/a", "http://[::1/a"),
        ("tar://pairs.tar/1.jpg", "tar://pairs.tar/1.jpg"),
        ("no url at all", "no url at all"),
    ],
)
def test_an_owner_has_one_spelling(url: str, owner: str) -> None:
    assert owner_of(url) == owner


def wanted_of(tmp_path: Path, pages: list[list[str | None]], **how: Any) -> tuple[Path, list[dict[str, Any]]]:
    """Return the parts that the documents' images make, and their rows."""
    documents = Stage(name="documents", version=1, schema=DOCUMENTS, work=None)
    unit = documents.unit("docs", None, settings={}, inputs=[])
    with Part(documents, unit, tmp_path) as part:
        for number, urls in enumerate(pages):
            row = dict.fromkeys(DOCUMENTS.names) | {"id": f"{number:032x}", "images": urls}
            part.write(row | {"texts": [None if url else "text" for url in urls]})
    task = WantedTask(
        documents=tmp_path / unit.file_name,
        masks=None,
        limit=how.get("limit"),
        num_partitions=how.get("num_partitions", 1),
        taken_down=how.get("taken_down", TakenDown()),
    )
    unit = WANTED_STAGE.unit("docs", task, settings={}, inputs=[str(sorted(how))])
    with Part(WANTED_STAGE, unit, tmp_path) as part:
        assert WANTED_STAGE.work is not None
        WANTED_STAGE.work(unit, part)
    return tmp_path / unit.file_name, list(read_rows(tmp_path / unit.file_name))


PAGES: list[list[str | None]] = [
    [None, "http://a.example/1.png", None, "http://b.example/1.png"],
    ["http://a.example/1.png", "http://a.example/2.png"],
    [None],
]


def test_every_place_that_wants_an_image_is_noted_in_order(tmp_path: Path) -> None:
    _, rows = wanted_of(tmp_path, PAGES)
    places = sorted((row["row"], row["block"], row["url"]) for row in rows)
    assert places == [
        (0, 1, "http://a.example/1.png"),
        (0, 3, "http://b.example/1.png"),
        (1, 0, "http://a.example/1.png"),
        (1, 1, "http://a.example/2.png"),
    ]
    assert {row["id"] for row in rows} == {f"{0:032x}", f"{1:032x}"}


def test_a_limit_counts_urls_not_places(tmp_path: Path) -> None:
    _, rows = wanted_of(tmp_path, PAGES, limit=1)
    assert {row["url"] for row in rows} == {"http://a.example/1.png"}
    assert len(rows) == 2


def test_what_was_taken_down_is_not_wanted(tmp_path: Path) -> None:
    taken_down = TakenDown.of(domains=["b.example"], urls=["http://a.example/2.png"])
    _, rows = wanted_of(tmp_path, [*PAGES, [MARK]], taken_down=taken_down)
    assert {row["url"] for row in rows} == {"http://a.example/1.png"}


def test_a_wanted_url_is_recognised_in_its_partition(tmp_path: Path) -> None:
    urls: list[str | None] = [f"http://h{number % 37}.example/{number}.png" for number in range(500)]
    place, _ = wanted_of(tmp_path, [urls], num_partitions=4)
    parts = []
    for partition in range(4):
        task = UrlsTask(wanted=(place,), partition=partition, folder=tmp_path)
        unit = URLS_STAGE.unit(f"p{partition:04d}", task, settings={}, inputs=[])
        with Part(URLS_STAGE, unit, tmp_path) as part:
            assert URLS_STAGE.work is not None
            URLS_STAGE.work(unit, part)
        parts.append(tmp_path / unit.file_name)
    wanted = WantedUrls(parts)
    assert all(url in wanted for url in urls if url)
    assert not any(f"{url}x" in wanted for url in urls)
    assert "http://elsewhere.example/1.png" not in wanted
    # Each URL once, and all of a host in one partition.
    rows = [(place, row["key"], row["url"]) for place in parts for row in read_rows(place)]
    assert sorted(url for _, _, url in rows) == sorted(url for url in urls if url)
    assert len({(place, host) for place, host, _ in rows}) == 37
