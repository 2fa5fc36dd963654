"""Lists are read whole or refused with the line, and what stands on one is named with its entry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from carnac.core.errors import InputError
from carnac.core.taken_down import MARK
from carnac.curate.lists.entries import ENTRIES, Entries, Kind, entries_of, host_of_url, lines_of
from carnac.curate.lists.search import (
    Lists,
    find_listed,
    kept_images,
    kept_of,
    urls_kept,
)
from carnac.curate.lists.settings import ListsPass, OptOutService

HASH = "0123456789abcdef" * 4


def entries(kind: Kind, *lines: str) -> Entries:
    return Entries.of(kind, entries_of(kind, lines_of([("list.txt", lines)])))


def test_urls_are_the_same_whatever_their_scheme_fragment_and_spelling() -> None:
    listed = entries("url", "# comment", "", "http://Stones.example:80/a%7eb#top", "stones.example/only/host")
    for url in ("https://stones.example/a~b", "//stones.example/a%7Eb", "http://stones.example/a~b#else"):
        match = listed.match_url(url)
        assert match is not None
        assert (match.entry, match.file) == ("http://Stones.example:80/a%7eb#top", "list.txt")
    assert listed.match_url("http://stones.example/only/host") is not None
    assert listed.match_url("https://stones.example/a~b?c") is None
    assert listed.match_url("https://stones.example:8080/a~b") is None


def test_a_domain_stands_for_all_below_it_and_for_none_beside_it() -> None:
    listed = entries("domain", "stones.example", "*.deep.hills.example", "b\u00fccher.example", "10.0.0.1")
    for host in (
        "stones.example",
        "a.b.stones.example:81",
        "x.deep.hills.example",
        "xn--bcher-kva.example",
        "10.0.0.1",
    ):
        assert listed.match_host(f"https://user@{host}/path") is not None, host
    for host in ("millstones.example", "stones.example.org", "hills.example", "example"):
        assert listed.match_host(f"https://{host}/stones.example") is None, host
    assert host_of_url("HTTPS://A.Example:443/x") == "a.example"


@pytest.mark.parametrize(
    ("kind", "line", "wanted"),
    [
        ("url", "not a url", "a URL"),
        ("domain", "https://stones.example/", "a domain"),
        ("domain", "two words", "a domain"),
        ("sha256", HASH[:-1], "64 hex digits"),
        ("pdq", "g" * 64, "64 hex digits"),
        ("phash", HASH, "16 hex digits"),
    ],
)
def test_a_line_that_is_no_entry_is_a_sentence_with_its_place(kind: Kind, line: str, wanted: str) -> None:
    with pytest.raises(InputError, match=rf"list\.txt:2: got .*, wanted {wanted}"):
        entries(kind, "# first", line)


def test_an_entry_counts_once_and_keys_ascend() -> None:
    table = entries_of("domain", lines_of([("a", ["x.example", "X.example."]), ("b", ["x.example", "y.example"])]))
    assert table.schema == ENTRIES
    assert {(row["entry"], row["file"]) for row in table.to_pylist()} == {("x.example", "a"), ("y.example", "b")}
    keys = table.column("key").to_numpy()
    assert (np.diff(keys.astype(object)) > 0).all()


def test_two_entries_of_one_key_are_told_apart() -> None:
    table = entries_of("sha256", lines_of([("a", [HASH, HASH[:16] + "f" * 48])]))
    listed = Entries.of("sha256", table)
    assert len(set(table.column("key").to_pylist())) == 1
    assert [match.entry[-1] for one in (HASH, HASH[:16] + "f" * 48) if (match := listed.match_sha256(one))] == [
        "f",
        "f",
    ]
    assert listed.match_sha256(HASH[:16] + "0" * 48) is None
    assert listed.match_sha256(HASH.upper()) is not None


def test_an_entry_that_was_taken_down_since_is_passed_over() -> None:
    kinds: tuple[Kind, ...] = ("url", "domain")
    for kind in kinds:
        table = entries_of(kind, lines_of([("list.txt", ["a.example", "b.example"])]))
        marked = table.set_column(1, "entry", pa.array([MARK, MARK]))
        listed = Entries.of(kind, marked)
        assert listed.match_url("http://a.example") is listed.match_host("http://a.example") is None
    table = entries_of("phash", lines_of([("list.txt", ["0" * 16, "f" * 16])]))
    marked = table.set_column(1, "entry", pa.array([MARK, "f" * 16]))
    zeros, ones = Entries.of("phash", marked).match_hashes([bytes(8), b"\xff" * 8], 8)
    assert zeros is None
    assert ones is not None


DOCUMENTS: list[dict[str, Any]] = [
    {"id": "a", "url": "http://a.example/1", "images": [None, "http://i.example/1", "http://i.example/2"]},
    {"id": "b", "url": "http://out.example/", "canonical_url": "http://a.example/2", "images": []},
    {"id": "c", "url": "http://a.example/3", "reservations": ["gptbot:noai", "noai"], "images": ["tar://x/3", None]},
    {"id": "d", "url": "http://a.example/4", "canonical_url": "http://out.example/4", "images": ["http://i.example/1"]},
]


def documents() -> pa.Table:
    types = {"images": pa.list_(pa.string()), "reservations": pa.list_(pa.string())}
    names = ("id", "url", "canonical_url", "reservations", "images")
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    return pa.Table.from_pylist([{"reservations": [], **row} for row in DOCUMENTS], schema)


def images(**columns: list[list[Any]]) -> pa.Table:
    has = [[None if url is None else True for url in row["images"]] for row in DOCUMENTS]
    types = {"block_has_image": pa.bool_(), "block_pdq": pa.binary(32), "block_phash": pa.uint64()}
    names = ("block_has_image", "block_sha256", "block_received_sha256", "block_pdq", "block_phash")
    given = {"block_has_image": has, **columns}
    empty = [[None] * len(row["images"]) for row in DOCUMENTS]
    arrays = [pa.array(given.get(name, empty), pa.list_(types.get(name, pa.string()))) for name in names]
    return pa.table([pa.array([row["id"] for row in DOCUMENTS]), *arrays], names=["id", *names])


def rows_of(
    step: ListsPass,
    lists: dict[Kind, Entries],
    *,
    table: pa.Table | None = None,
    last: pa.Table | None = None,
    **more: Any,
) -> list[tuple[int, int | None, str]]:
    keep, keep_block = kept_of(documents(), last)
    blocks = kept_images(documents(), table, keep, keep_block)
    found = find_listed(Lists(settings=step, entries=lists, **more), documents(), blocks, keep)
    assert all(row["id"] == DOCUMENTS[row["row"]]["id"] for row in found)
    return [(row["row"], row["block"], row["reason"]) for row in found]


def step(**lists: Any) -> ListsPass:
    given = {name: (f"{name}.txt",) if value is True else value for name, value in lists.items()}
    return ListsPass.model_validate({"name": "lists", "kind": "lists", **given}, strict=False)


def test_pages_go_by_their_own_and_their_canonical_url_and_images_by_theirs() -> None:
    lists: dict[Kind, Entries] = {"domain": entries("domain", "out.example"), "url": entries("url", "i.example/1")}
    found = rows_of(step(urls=True, domains=True), lists)
    page, image = (None, "listed.domain"), (1, "listed.url")
    assert found == [(0, *image), (1, *page), (3, *page), (3, 0, "listed.url")]


def test_pages_go_by_what_they_object_to_for_everyone() -> None:
    assert rows_of(step(reservations=("noai",)), {}) == [(2, None, "reserved.noai")]
    assert rows_of(step(reservations=("noimageai",)), {}) == []


def test_images_go_by_the_hash_that_was_received_or_stored_and_those_without_one_are_not_kept() -> None:
    other = HASH[::-1]
    table = images(
        block_sha256=[[None, HASH, other], [], [other, None], [other]],
        block_received_sha256=[[None, other, HASH], [], [other, None], [other]],
        block_phash=[[None, 0, 0b111111111], [], [None, None], [0b11111111]],
    )
    lists: dict[Kind, Entries] = {"sha256": entries("sha256", HASH), "phash": entries("phash", "0" * 16)}
    found = rows_of(step(image_sha256=True, image_phash=True), lists, table=table)
    hashed = [(0, 1, "listed.sha256"), (0, 1, "listed.phash"), (0, 2, "listed.sha256")]
    assert found == [*hashed, (2, 0, "unhashed.phash"), (3, 0, "listed.phash")]  # 9 bits away is none


def test_pdq_is_near_at_31_bits_and_not_at_32() -> None:
    near, far = ((2**bits - 1).to_bytes(32, "big") for bits in (31, 32))
    table = images(block_pdq=[[None, near, far], [], [far, None], [far]])
    found = rows_of(step(image_pdq=True), {"pdq": entries("pdq", "0" * 64)}, table=table)
    assert found == [(0, 1, "listed.pdq")]


def test_with_drop_document_the_page_of_an_image_is_named() -> None:
    lists: dict[Kind, Entries] = {"url": entries("url", "i.example/1")}
    assert rows_of(step(urls=True, drop="document"), lists) == [(0, None, "listed.url"), (3, None, "listed.url")]


def test_what_is_dropped_already_is_not_looked_up_and_not_asked_after() -> None:
    last = pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "reason": pa.array([None, None, None, 0], pa.int16()),
            "block_reason": pa.array([[None, 0, None], [], [None, None], [None]], pa.list_(pa.int16())),
        }
    )
    lists: dict[Kind, Entries] = {"url": entries("url", "i.example/1"), "domain": entries("domain", "out.example")}
    assert rows_of(step(urls=True, domains=True), lists, last=last) == [(1, None, "listed.domain")]
    keep, keep_block = kept_of(documents(), last)
    asked = urls_kept(documents(), kept_images(documents(), None, keep, keep_block), keep)
    pages = ["http://a.example/1", "http://out.example/", "http://a.example/3", "http://a.example/2"]
    assert asked == [*pages, "http://i.example/2"]  # tar://x/3 is of no web


def test_what_a_service_knows_is_named_with_the_service() -> None:
    service = OptOutService(endpoint="https://opt-outs.example/ask")
    found = rows_of(step(service=service), {}, opted_out=frozenset(["http://i.example/2", "http://a.example/3"]))
    assert found == [(0, 2, "listed.service"), (2, None, "listed.service")]


def test_a_pass_without_a_list_is_refused_and_reasons_name_what_is_given() -> None:
    with pytest.raises(ValidationError, match="this pass has no list"):
        step()
    with pytest.raises(ValidationError):
        OptOutService(endpoint="file:///etc/passwd")
    given = step(urls=True, image_pdq=True, reservations=("noai", "noai"))
    names = ("signals_failed", "listed.url", "listed.pdq", "unhashed.pdq", "reserved.noai", "no_blocks_left")
    assert given.reasons() == names
