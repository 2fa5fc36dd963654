"""The web of the acceptance run does what it says, and its log tells an impolite client from a polite one."""

from __future__ import annotations

import gzip
import io
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from fetching_answers import ANSWERS
from fetching_log import Request, asked_while_paused, earliness, most_at_once, read_log, repeated
from fetching_network import can_make_network, inside
from fetching_pictures import Pictures, kind_of
from fetching_run import Server, serving
from fetching_site import DOMAIN, FLAWS, ODDITIES, PUBLIC_ADDRESS, Site, links
from PIL import Image

PICTURES = Pictures(160)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("web")) as running:
        yield running


def get(server: Server, host: str, path: str) -> tuple[int, bytes]:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=5)) as client:
        client.request("GET", path, headers={"Host": f"{host}.{DOMAIN}:{server.port}"})
        with client.getresponse() as answer:
            return answer.status, answer.read()


def test_pictures_are_real_and_all_different() -> None:
    payloads = [PICTURES.payload(number) for number in range(3000)]
    assert len(set(payloads)) == 3000
    for number in (*range(60), *range(0, 3000, 97)):
        with Image.open(io.BytesIO(payloads[number])) as picture:
            picture.load()
            assert (picture.format or "").lower() == kind_of(number)


def test_cleaned_of_all_but_pixels_pictures_still_differ() -> None:
    size = len(PICTURES._jpegs)
    same_base = [Image.open(io.BytesIO(PICTURES.payload(20 * size * version))).tobytes() for version in range(1, 8)]
    assert len(set(same_base)) == len(same_base)


def test_every_url_of_the_web_is_there_once_and_every_flaw_has_an_answer() -> None:
    found = links(Site(port=80, dead_port=81, is_isolated=True))
    assert len({link.url for link in found}) == len(found)
    pictures = [link.picture for link in found if link.picture is not None]
    assert len(set(pictures)) == len(pictures)
    assert ANSWERS.keys() >= {*FLAWS, *ODDITIES}
    assert all(link.reasons or link.picture is not None for link in found)


@pytest.mark.parametrize("path", ["good", "unlabelled", "text_type", "chunked", "other_agent", "hopped", "over_there"])
def test_good_answers_hold_the_picture(server: Server, path: str) -> None:
    assert get(server, "good-001", f"/{path}/8.jpg?q=1") == (200, PICTURES.payload(8))


def test_packed_answers_hold_the_picture(server: Server) -> None:
    status, body = get(server, "good-001", "/gzip/9.jpg")
    assert (status, gzip.decompress(body)) == (200, PICTURES.payload(9))


@pytest.mark.parametrize(("path", "status"), [("missing", 404), ("failing", 500), ("hop", 301), ("overrun", 429)])
def test_other_answers_have_their_status(server: Server, path: str, status: int) -> None:
    assert get(server, "odd-000", f"/{path}/1.jpg")[0] == status


@pytest.mark.parametrize("path", ["cut", "garbage", "short", "headers"])
def test_broken_answers_break(server: Server, path: str) -> None:
    with pytest.raises((HTTPException, OSError)):
        get(server, "odd-000", f"/{path}/1.jpg")


@pytest.mark.parametrize(("path", "enough"), [("slow", 5), ("silent", 1), ("endless", 10_000_000)])
def test_some_answers_never_end(server: Server, path: str, enough: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.3) as client:
        client.sendall(f"GET /{path}/1.jpg HTTP/1.1\r\nHost: odd-000.{DOMAIN}\r\n\r\n".encode())
        received = 0
        try:
            while received < enough:
                some = client.recv(1 << 20)
                assert some, "the answer has ended"
                received += len(some)
        except TimeoutError:
            assert path == "silent", "nothing came for a while"
        assert (received == 0) == (path == "silent")


def test_a_busy_host_is_busy_once(server: Server) -> None:
    assert [get(server, "busy-000", "/busy/4.jpg")[0] for _ in range(3)] == [429, 200, 200]


def test_the_log_tells_requests_and_connections(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        get(server, "good-000", "/good/1.jpg")
        get(server, "good-000", "/good/1.jpg")
        with pytest.raises((HTTPException, OSError)):
            get(server, "odd-000", "/cut/1.jpg")
    seen = read_log(tmp_path / "requests.log")
    host = f"good-000.{DOMAIN}:{server.port}"
    assert [(one.path, one.status, one.is_whole) for one in seen.requests] == [
        ("/good/1.jpg", 200, True),
        ("/good/1.jpg", 200, True),
        ("/cut/1.jpg", 200, False),
    ]
    assert repeated(seen.requests) == {(host, "/good/1.jpg"): 1}
    assert [address for _, address in seen.connections] == ["127.0.0.1"] * 3
    assert all(one.ended is not None and one.ended >= one.began for one in seen.requests)


def asked(began: float, ended: float | None = None, status: int = 200) -> Request:
    return Request(host="h", path="/", address="a", connection=0, began=began, ended=ended, status=status)


def test_requests_at_once_are_counted() -> None:
    assert most_at_once([asked(0, 1), asked(1, 2), asked(1.5, 1.6)]) == 2
    assert most_at_once([asked(0), asked(1, 2), asked(1.5, 1.6)]) == 3
    assert most_at_once([]) == 0


def test_requests_that_come_too_early_are_seen_over_any_stretch() -> None:
    assert earliness([asked(0), asked(1), asked(2.5)], 1.0) == 0.0
    assert earliness([asked(0), asked(0.4), asked(1.0)], 1.0) == pytest.approx(1.0)
    assert earliness([asked(0), asked(1.3), asked(2.0)], 1.0) == pytest.approx(0.3)


def test_requests_during_a_pause_are_seen() -> None:
    requests = [asked(0, 1, 429), asked(1.1, 1.2), asked(2, 2.1), asked(4, 4.1)]
    assert asked_while_paused(requests, pause=2.0, slack=0.3) == [requests[2]]


@pytest.mark.skipif(not can_make_network(), reason="a network of its own needs a right that is not given here")
def test_nothing_leads_out_of_a_network_of_its_own(tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "for address in sys.argv[2:]:\n"
        "    try: socket.create_connection((address, int(sys.argv[1])), timeout=3); print(address)\n"
        "    except OSError as error: print(error.errno)\n"
    )
    with serving(tmp_path, "--isolated") as server:
        (tmp_path / "try.py").write_text(code)
        command = [sys.executable, "try.py", str(server.port), PUBLIC_ADDRESS, "10.0.0.1", "198.41.0.10", "10.0.0.2"]
        assert inside(server.process.pid, command)[3:] == command
        server.start(command, tmp_path).wait(20)
    reached = (tmp_path / "run.log").read_text().split()
    assert reached[:2] == [PUBLIC_ADDRESS, "10.0.0.1"]
    assert all(word.isdecimal() for word in reached[2:])
    assert [address for _, address in server.seen().connections] == [PUBLIC_ADDRESS, "10.0.0.1"]
