"""Files behind HTTP: ranges, patience, servers that know neither ranges nor HEAD. The server is real, on loopback."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from io import SEEK_END
from pathlib import Path

import pytest
from jobs_web_server import WebServer, web_server

from carnac.core import http_files
from carnac.core.errors import InputError
from carnac.core.http_files import look, open_http
from carnac.core.places import absolute, is_local, open_binary, read_bytes, source_of
from carnac.engine.unit import outside_digest, outside_digests

DATA = random.Random(3).randbytes(300_000)


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as running:
        running.files["/x.bin"] = DATA
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_files, "_PAUSES_SECONDS", (0.01, 0.02, 0.03))


def test_sources_are_places_and_urls() -> None:
    place = source_of("HTTPS://data.example/a%20b/x.warc.gz?sig=1")
    assert not is_local(place)
    assert absolute(place) == "https://data.example/a%20b/x.warc.gz?sig=1"
    assert source_of("x.warc.gz") == Path("x.warc.gz")
    with pytest.raises(ValueError, match="wanted http"):
        source_of("https:///x")


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_any_bytes_are_read(server: WebServer, knows_ranges: bool) -> None:
    server.knows_ranges = knows_ranges
    place = source_of(f"{server.url}/x.bin")
    assert read_bytes(place) == DATA
    assert read_bytes(place, 1000, 2000) == DATA[1000:2000]
    assert read_bytes(place, 299_990, 400_000) == DATA[-10:]
    assert read_bytes(place, -5) == DATA[-5:]
    assert read_bytes(place, 300_000, 300_010) == read_bytes(place, 400_000, 400_010) == b""


@pytest.mark.parametrize("knows_ranges", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_a_file_is_read_as_on_a_disk(server: WebServer, tmp_path: Path, knows_ranges: bool, exact: bool) -> None:
    server.knows_ranges = knows_ranges
    (tmp_path / "x").write_bytes(DATA)
    place = source_of(f"{server.url}/x.bin")
    assert not is_local(place)
    chance = random.Random(5)
    with open_http(place, 10_000, exact=exact) as over_http, (tmp_path / "x").open("rb") as on_disk:
        assert over_http.seek(0, SEEK_END) == on_disk.seek(0, SEEK_END) == len(DATA)
        for _ in range(30):
            offset, size = chance.randrange(310_000), chance.choice((0, 1, 17, 10_000, 35_000))
            assert over_http.seek(offset) == on_disk.seek(offset)
            assert over_http.read(size) == on_disk.read(size)
            assert over_http.tell() == on_disk.tell()


def test_going_on_asks_for_each_block_once(server: WebServer) -> None:
    place = source_of(f"{server.url}/x.bin")
    assert not is_local(place)
    with open_http(place, 100_000, exact=False) as stream:
        while stream.read(7000):
            stream.seek(stream.tell() - 100)
            stream.read(100)
    assert server.gets("/x.bin") == ["bytes=0-99999", "bytes=100000-199999", "bytes=200000-299999"]


def test_an_empty_file_is_read(server: WebServer) -> None:
    server.files["/none"] = b""
    with open_binary(source_of(f"{server.url}/none")) as stream:
        assert stream.read() == b""
    assert read_bytes(source_of(f"{server.url}/none")) == b""


@pytest.mark.parametrize("faults", [["503", "503"], ["silent"], ["429", "cut"], ["cut", "cut", "cut"]])
def test_what_fails_for_a_while_is_waited_for(server: WebServer, faults: list[str]) -> None:
    place = source_of(f"{server.url}/x.bin")
    server.faults["/x.bin"] = list(faults)
    assert read_bytes(place, 10, 200_010) == DATA[10:200_010]
    server.faults["/x.bin"] = list(faults)
    with open_binary(place) as stream:
        assert stream.read() == DATA


def test_what_came_is_not_asked_for_again(server: WebServer) -> None:
    server.faults["/x.bin"] = ["cut:70000"]
    assert read_bytes(source_of(f"{server.url}/x.bin"), 1000, 201_000) == DATA[1000:201_000]
    assert server.gets("/x.bin") == ["bytes=1000-200999", "bytes=71000-200999"]


def test_a_file_that_comes_whole_begins_anew(server: WebServer) -> None:
    server.knows_ranges = False
    server.faults["/x.bin"] = ["cut", "cut:100"]
    with open_binary(source_of(f"{server.url}/x.bin")) as stream:
        assert stream.read() == DATA


@pytest.mark.parametrize(
    ("faults", "kind", "said"),
    [
        (["503"] * 9, OSError, "503 Service Unavailable, asked 4 times"),
        (["silent"] * 9, OSError, "the server does not answer"),
        (["403"] * 9, PermissionError, "403 Forbidden: check the URL"),
        (["400"] * 9, OSError, "400 Bad Request"),
        (["404"] * 9, FileNotFoundError, "No such file"),
    ],
)
def test_what_does_not_come_is_an_error_with_a_sentence(
    server: WebServer, faults: list[str], kind: type[OSError], said: str
) -> None:
    server.faults["/x.bin"] = list(faults)
    with pytest.raises(kind, match=said) as raised:
        read_bytes(source_of(f"{server.url}/x.bin"), 0, 10)
    assert raised.value.errno is not None
    assert str(raised.value.filename).startswith(server.url)


def test_nobody_there_is_said(server: WebServer) -> None:
    with web_server() as other:
        gone = other.url
    with pytest.raises(OSError, match="does not answer"):
        read_bytes(source_of(f"{gone}/x"))


def test_a_file_that_changes_while_it_is_read_is_said(server: WebServer) -> None:
    place = source_of(f"{server.url}/x.bin")
    assert not is_local(place)
    with open_http(place, 10_000, exact=False) as stream:
        stream.read(100)
        server.files["/x.bin"] = DATA[:-1]
        with pytest.raises(OSError, match="changed while it was read"):
            stream.read()


@pytest.mark.parametrize("knows_head", [True, False])
def test_identity_is_size_and_etag(server: WebServer, knows_head: bool) -> None:
    server.knows_head = knows_head
    place = source_of(f"{server.url}/x.bin")
    assert not is_local(place)
    facts = look([place])[place.path]
    assert facts["size"] == len(DATA)
    assert len(facts["ETag"]) == 34
    before = outside_digest(place)
    assert outside_digests([place]) == [before]
    server.files["/x.bin"] = DATA[::-1]
    assert outside_digest(place) != before
    assert server.sent["/x.bin"] <= 10
    with pytest.raises(InputError, match="/gone: cannot be read"):
        outside_digests([place, source_of(f"{server.url}/gone")])


def test_many_are_asked_after_in_one_go(server: WebServer) -> None:
    for number in range(200):
        server.files[f"/{number}"] = bytes(number)
    places = [source_of(f"{server.url}/{number}") for number in range(200)]
    assert len(set(outside_digests(places))) == 200


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_comes_whole_leaves_no_file(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server.knows_ranges = False
    with open_binary(source_of(f"{server.url}/x.bin")) as stream:
        assert os.listdir(tmp_path) == []  # noqa: PTH208 -- it has no name
        assert stream.read(10) == DATA[:10]
