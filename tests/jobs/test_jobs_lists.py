"""A pass of lists through real units: what is found is dropped, a service is asked once, and no URL is kept unseen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from jobs_model import DoneHere, runner
from jobs_opt_outs import Service, opt_out_service, write_documents
from jobs_shards_inputs import write_parts

from carnac.core.document import KINDS
from carnac.core.errors import InputError, RunError
from carnac.core.schema import HITS
from carnac.curate.lists.settings import ListsPass
from carnac.curate.masks import Reasons
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows, read_table
from carnac.jobs import curate_lists, curate_service
from carnac.jobs.curate_judge import Sources, judge
from carnac.jobs.curate_lists import search_lists

PAGES = {
    "a": [["http://p.example/1", "http://i.example/1", "http://i.example/2"], ["http://p.example/2"]],
    "b": [["http://out.example/3", "http://i.example/1"], ["http://p.example/4", "http://i.example/2"]],
}
EVERY = {url for pages in PAGES.values() for urls in pages for url in urls}


@pytest.fixture
def service() -> Iterator[Service]:
    with opt_out_service() as server:
        yield server


def asking(service: Service, **more: Any) -> dict[str, Any]:
    quick = {"backoff_seconds": 0.01, "requests_per_second": 1000.0, "allow_private_addresses": True}
    return {"endpoint": service.endpoint, **quick, **more}


def step(folder: Path, **settings: Any) -> ListsPass:
    lists: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, str):
            path = folder / f"{name}.txt"
            if not path.exists() or path.read_text() != value:
                path.write_text(value)
            lists[name] = [path]
        else:
            lists[name] = value
    return ListsPass.model_validate({"name": "lists", "kind": "lists", **lists}, strict=False)


def search(folder: Path, given: ListsPass, images: Manifest | None = None, run: Runner | None = None) -> Manifest:
    documents = read_manifest(folder / "documents")
    return search_lists(run or runner()[0], given, documents, images, None, folder / "listed")


def found(listed: Manifest) -> dict[str, list[tuple[int, int | None, str]]]:
    return {
        entry.unit: [(row["row"], row["block"], row["reason"]) for row in read_rows(entry.path)]
        for entry in listed.parts
    }


def write_signals(folder: Path, pages: dict[str, list[list[str]]]) -> Manifest:
    """Write what judging reads of signals."""
    rows = {
        unit: [
            {"id": row["id"], "failed": None, "block_kind": [KINDS.index(kind) for kind in row["kinds"]]}
            for row in read_rows(read_manifest(folder / "documents").part(unit).path)
        ]
        for unit in pages
    }
    schema = pa.schema([("id", pa.string()), ("failed", pa.string()), ("block_kind", pa.list_(pa.int8()))])
    write_parts(folder / "signals", "signals", schema, rows)
    return read_manifest(folder / "signals")


def test_what_stands_on_lists_is_dropped_with_its_reason(tmp_path: Path, done: DoneHere) -> None:
    write_documents(tmp_path, PAGES)
    given = step(tmp_path, urls="http://i.example/2\n", domains="out.example\n")
    listed = search(tmp_path, given)
    assert found(listed) == {"a": [(0, 2, "listed.url")], "b": [(0, None, "listed.domain"), (1, 1, "listed.url")]}
    assert read_table(listed.part("a").path).schema.names[: len(HITS.names)] == HITS.names
    assert listed.counts["listed.url"] == 2
    signals = write_signals(tmp_path, PAGES)
    sources = Sources(signals=signals, images=None, kept=None, last=None, hits=listed)
    masks = judge(runner()[0], sources, given, Reasons.of([given]), tmp_path / "masks")
    kept = [row for entry in masks.parts for row in read_rows(entry.path)]
    assert [row["keep"] for row in kept] == [True, True, False, True]
    assert [row["keep_block"] for row in kept] == [[True, True, False], [True], [True, True], [True, False]]


def test_nothing_depends_on_the_order_of_units_or_on_where_rows_are_cut(
    tmp_path: Path, done: DoneHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {
        name: [[f"http://p.example/{name}/{number}", f"http://i.example/{number % 7}"] for number in range(40)]
        for name in "ab"
    }
    write_documents(tmp_path, pages)
    given = step(tmp_path, urls="".join(f"http://i.example/{number}\n" for number in (6, 3)), domains="x.example")
    first = {entry.unit: read_table(entry.path) for entry in search(tmp_path, given).parts}
    assert sum(table.num_rows for table in first.values()) == 2 * 11
    monkeypatch.setattr(curate_lists, "ROWS_AT_ONCE", 3)
    documents = read_manifest(tmp_path / "documents")
    turned = replace(documents, parts=documents.parts[::-1])
    again = search_lists(runner()[0], given, turned, None, None, tmp_path / "again")
    assert all(read_table(entry.path).equals(first[entry.unit]) for entry in again.parts)


def test_a_rerun_does_nothing_and_a_changed_list_asks_no_service_again(
    tmp_path: Path, done: DoneHere, service: Service
) -> None:
    write_documents(tmp_path, PAGES)
    service.opted_out = {"http://i.example/1"}
    listed = search(tmp_path, step(tmp_path, domains="x.example", service=asking(service)))
    assert found(listed) == {"a": [(0, 1, "listed.service")], "b": [(0, 1, "listed.service")]}
    asked = [url for urls in service.asked for url in urls]
    assert set(asked) == EVERY
    number = len(done.units)
    search(tmp_path, step(tmp_path, domains="x.example", service=asking(service)))
    assert len(done.units) == number
    again = search(tmp_path, step(tmp_path, domains="out.example", service=asking(service)))
    assert found(again)["b"] == [(0, None, "listed.domain"), (0, 1, "listed.service")]
    assert [url for urls in service.asked for url in urls] == asked


def test_urls_are_asked_after_in_batches_at_a_limited_rate_with_the_token(
    tmp_path: Path, done: DoneHere, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_documents(tmp_path, {"a": [[f"http://p.example/{number}"] for number in range(10)]})
    variable = "OPT_OUT_TOKEN"
    monkeypatch.setenv(variable, "a secret")
    began = time.monotonic()
    settings = asking(service, urls_per_request=4, requests_per_second=20.0, token_variable=variable)
    search(tmp_path, step(tmp_path, service=settings))
    assert [len(urls) for urls in service.asked] == [4, 4, 2]
    assert time.monotonic() - began >= 2 / 20
    assert {headers["Authorization"] for headers in service.headers} == {"Bearer a secret"}
    assert not any(b"a secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    monkeypatch.delenv(variable)
    with pytest.raises(InputError, match="the environment has no OPT_OUT_TOKEN"):
        search(tmp_path, step(tmp_path, service=settings))


def test_a_busy_service_is_asked_again_when_it_says_so(tmp_path: Path, done: DoneHere, service: Service) -> None:
    write_documents(tmp_path, {"a": PAGES["a"]})
    service.answers, service.retry_after = [503, 429], "1"
    service.opted_out = {"http://p.example/2"}
    began = time.monotonic()
    listed = search(tmp_path, step(tmp_path, service=asking(service)))
    assert time.monotonic() - began >= 2.0
    assert found(listed) == {"a": [(1, None, "listed.service")]}
    assert read_manifest(tmp_path / "listed/asked").counts["requests"] == 3


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([500] * 9, r"was asked 3 times after 4 URLs .*status 500"),
        ([403], r"was asked 1 time after 4 URLs .*status 403"),
        ([301], r"was asked 1 time .*status 301"),
        ([b'{"out": []}'], r"wanted \{\"opted_out\": \[URL, \.\.\.\]\}, got"),
        ([b"<html>"], "JSONDecodeError"),
        ([b'{"opted_out": ["http://I.example/1"]}'], "which was not asked after"),
        ([b'{"opted_out": [7]}'], "which was not asked after"),
    ],
)
def test_a_service_that_gives_no_answer_stops_the_run(
    tmp_path: Path, done: DoneHere, service: Service, answers: list[int | bytes], said: str
) -> None:
    write_documents(tmp_path, {"a": PAGES["a"]})
    service.answers = answers
    with pytest.raises(RunError, match=said):
        search(tmp_path, step(tmp_path, service=asking(service, max_tries=3)))
    assert not (tmp_path / "listed/manifest.json").exists()


def test_a_service_that_is_not_there_stops_the_run(tmp_path: Path, done: DoneHere, service: Service) -> None:
    write_documents(tmp_path, {"a": PAGES["a"]})
    settings = asking(service, max_tries=2)
    service.shutdown()
    service.server_close()
    with pytest.raises(RunError, match=r"was asked 2 times .*ClientConnectorError"):
        search(tmp_path, step(tmp_path, service=settings))


def test_a_run_that_was_stopped_asks_only_after_the_rest(tmp_path: Path, service: Service) -> None:
    write_documents(tmp_path, {"a": [[f"http://p.example/{number}"] for number in range(6)]})
    service.answers = [b'{"opted_out": ["http://p.example/1"]}', 403]
    given = step(tmp_path, service=asking(service, urls_per_request=2))
    in_processes = Runner(reporter=TerminalReporter(), workers=1)
    with pytest.raises(RunError, match="status 403"):
        search(tmp_path, given, run=in_processes)
    listed = search(tmp_path, given, run=in_processes)
    assert found(listed) == {"a": [(1, None, "listed.service")]}
    asked = [url for urls in service.asked for url in urls]
    assert sorted(asked) == sorted(set(asked))
    assert len(asked) == 6


def test_an_address_of_this_machines_network_is_refused_unless_it_is_meant(
    tmp_path: Path, done: DoneHere, service: Service
) -> None:
    write_documents(tmp_path, {"a": PAGES["a"]})
    with pytest.raises(InputError, match="in this machine's own network"):
        search(tmp_path, step(tmp_path, service=asking(service, allow_private_addresses=False)))
    named = asking(service, allow_private_addresses=False)
    named["endpoint"] = service.endpoint.replace("127.0.0.1", "localhost")
    with pytest.raises(RunError, match="refused_address"):
        search(tmp_path, step(tmp_path, service=named))
    assert service.headers == []


def write_hashes(folder: Path, columns: dict[str, list[Any]]) -> Manifest:
    """Write what lists read of image_signals, for the pages of unit `a`."""
    names = ("block_has_image", "block_sha256", "block_received_sha256", "block_pdq", "block_phash")
    types = {"block_has_image": pa.bool_(), "block_pdq": pa.binary(32), "block_phash": pa.uint64()}
    schema = pa.schema([("id", pa.string()), *((name, pa.list_(types.get(name, pa.string()))) for name in names)])
    rows = [
        {"id": row["id"], **{name: columns.get(name, [[None] * 3, [None]])[place] for name in names}}
        for place, row in enumerate(read_rows(read_manifest(folder / "documents").part("a").path))
    ]
    write_parts(folder / "image_signals", "image_signals", schema, {"a": rows})
    return read_manifest(folder / "image_signals")


def test_a_list_of_hashes_that_no_image_has_is_refused(tmp_path: Path, done: DoneHere) -> None:
    write_documents(tmp_path, {"a": PAGES["a"]})
    images = write_hashes(tmp_path, {"block_has_image": [[None, True, True], [None]]})
    with pytest.raises(InputError, match=r"pass lists: image_pdq is given, and none of 2 images .*scores\.pdq = true"):
        search(tmp_path, step(tmp_path, image_pdq="0" * 64), images)
    with pytest.raises(InputError, match=r"image_phash .*inspect\.decode = true"):
        search(tmp_path, step(tmp_path, image_phash="0" * 16), images)
    none = write_hashes(tmp_path, {"block_has_image": [[None, False, False], [None]]})
    assert found(search(tmp_path, step(tmp_path, image_pdq="0" * 64), none)) == {"a": []}


def test_a_list_that_is_not_there_or_no_text_is_a_sentence(tmp_path: Path, done: DoneHere) -> None:
    write_documents(tmp_path, {"a": PAGES["a"]})
    missing = ListsPass(name="lists", kind="lists", urls=(tmp_path / "nowhere.txt",))
    with pytest.raises(InputError, match=r"nowhere\.txt: cannot be read"):
        search(tmp_path, missing)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bytes\.txt: is no text in UTF-8"):
        search(tmp_path, ListsPass(name="lists", kind="lists", domains=(tmp_path / "bytes.txt",)))


def test_an_answer_beyond_all_measure_is_none(
    tmp_path: Path, done: DoneHere, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curate_service, "MAX_ANSWER_BYTES", 1000)
    write_documents(tmp_path, {"a": PAGES["a"]})
    service.answers = [b" " * 5000 + b'{"opted_out": []}']
    with pytest.raises(RunError, match="more than 1,000 bytes"):
        search(tmp_path, step(tmp_path, service=asking(service)))
