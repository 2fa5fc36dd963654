from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import httpcore2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images_samples import encoded
from images_site import Site

from carnac.core.errors import RecordError
from carnac.images import addresses, fetch
from carnac.images.fetch import Fetched, fetch_images, parse_url
from carnac.images.settings import FetchSettings

MAX_BYTES = 100_000
LOOPBACK = FetchSettings(allow_private_addresses=True, timeout_seconds=20.0, idle_timeout_seconds=10.0, max_redirects=3)


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site(encoded()["jpeg"])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    thread.join()
    server.server_close()


def fetch_one(url: str, settings: FetchSettings = LOOPBACK, max_bytes: int = MAX_BYTES) -> Fetched:
    (fetched,) = fetch_images([url], settings, max_bytes)
    assert fetched.url == url
    assert (fetched.payload is None) == (fetched.reason is not None)
    return fetched


def hurried(seconds: float = 0.4, idle: float = 10.0) -> FetchSettings:
    return LOOPBACK.model_copy(update={"timeout_seconds": seconds, "idle_timeout_seconds": idle})


def test_nothing_to_fetch() -> None:
    assert list(fetch_images([], LOOPBACK, MAX_BYTES)) == []


def test_a_picture_and_what_is_said_to_the_server(site: Site) -> None:
    settings = LOOPBACK.model_copy(update={"contact": "crawler@example.org"})
    url = site.url("/ok/a%20b%2Fc?d=%26&e")
    assert fetch_one(url, settings) == Fetched(url=url, payload=site.picture)
    ((path, headers),) = site.log
    assert path == "/ok/a%20b%2Fc?d=%26&e"
    assert headers["User-Agent"] == "carnac/0.1 (+crawler@example.org)"
    assert headers["Host"] == f"127.0.0.1:{site.server_port}"
    assert headers["Accept-Encoding"] == "identity"
    assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding"}


def test_many_at_once_over_few_connections_and_without_cookies(site: Site) -> None:
    urls = [site.url(f"/ok/{number}") for number in range(60)]
    settings = LOOPBACK.model_copy(update={"num_connections": 4})
    fetched = list(fetch_images(urls, settings, MAX_BYTES))
    assert sorted(one.url for one in fetched) == sorted(urls)
    assert all(one.payload == site.picture for one in fetched)
    assert len(site.connections) <= 4
    assert not any("Cookie" in headers for _, headers in site.log)


def test_results_come_as_they_finish(site: Site) -> None:
    held, free = site.url("/held_back"), site.url("/ok")
    results = fetch_images([held, free], LOOPBACK, MAX_BYTES)
    assert next(results).url == free
    site.released.set()
    assert [one.url for one in results] == [held]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/status/404", "http_404"),
        ("/status/500", "http_500"),
        ("/status/204", "http_204"),
        ("/status/302", "http_302"),  # a redirect to nowhere
        ("/status/304", "http_304"),
        ("/redirect/4", "too_many_redirects"),
        ("/loop", "too_many_redirects"),
        ("/to/file:///etc/passwd", "refused_scheme"),
        ("/to/ftp://127.0.0.1/x", "refused_scheme"),
        ("/to/http://me:secret@127.0.0.1/", "bad_url"),
        ("/to/http://host:port/", "bad_url"),
        ("/big", "too_many_bytes"),
        ("/endless", "too_many_bytes"),
        ("/bomb", "too_many_bytes"),
        ("/cut", "connection_failed"),
        ("/no_answer", "connection_failed"),
        ("/nonsense", "connection_failed"),
        ("/gzip/br", "bad_encoding"),
        ("/gzip/gzip,%20gzip", "bad_encoding"),
        ("/gzip_cut", "bad_encoding"),
        ("/not_gzip", "bad_encoding"),
    ],
)
def test_reasons(site: Site, path: str, reason: str) -> None:
    fetched = fetch_one(site.url(path))
    assert fetched.reason == reason, fetched
    assert fetched.detail


@pytest.mark.parametrize("path", ["/redirect/3", "/redirect/1", "/gzip", "/gzip/x-gzip"])
def test_good_in_the_end(site: Site, path: str) -> None:
    assert fetch_one(site.url(path)).payload == site.picture


def test_the_limit_is_exact(site: Site) -> None:
    length = len(site.picture)
    assert fetch_one(site.url("/ok"), max_bytes=length).payload == site.picture
    assert fetch_one(site.url("/ok"), max_bytes=length - 1).reason == "too_many_bytes"


@pytest.mark.parametrize("path", ["/trickle", "/trickle_header", "/silence", "/loop"])
def test_a_server_that_takes_for_ever_ends(site: Site, path: str) -> None:
    """Each byte of a trickle resets an idle timeout; the time for the whole URL does not."""
    settings = hurried().model_copy(update={"max_redirects": 10**9})
    fetched = fetch_one(site.url(path), settings)
    assert fetched.reason == "timeout"
    assert "0.4 s" in fetched.detail


def test_silence_ends_before_the_whole_time(site: Site) -> None:
    fetched = fetch_one(site.url("/silence"), hurried(seconds=60.0, idle=0.2))
    assert (fetched.reason, "ReadTimeout" in fetched.detail) == ("timeout", True)


def test_a_slow_server_does_not_hold_up_others(site: Site) -> None:
    settings = hurried(seconds=2.0).model_copy(update={"num_connections": 2})
    urls = [site.url("/trickle"), *[site.url(f"/ok/{number}") for number in range(10)]]
    *others, last = fetch_images(urls, settings, MAX_BYTES)
    assert all(one.payload for one in others)
    assert (last.url, last.reason) == (urls[0], "timeout")


def test_nobody_listens_and_tls_to_a_plain_server(site: Site) -> None:
    with socket.socket() as bound:  # bound, so that nobody else takes the port, but not listening
        bound.bind(("127.0.0.1", 0))
        assert fetch_one(f"http://127.0.0.1:{bound.getsockname()[1]}/").reason == "connection_failed"
    assert fetch_one(site.url("/ok").replace("http:", "https:")).reason == "connection_failed"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127\u30020\u30020\u30021"])
def test_private_addresses_are_not_even_connected_to(site: Site, host: str) -> None:
    assert fetch_one(f"http://{host}:{site.server_port}/ok", FetchSettings()).reason == "refused_address"
    assert not site.connections


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2/", "http://169.254.169.254/latest/", "http://[::1]/", "//10.0.0.1"]
)
def test_a_redirect_to_a_private_address_is_refused(site: Site, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1" or real(address))
    assert fetch_one(site.url("/ok"), FetchSettings()).payload
    fetched = fetch_one(site.url(f"/to/{target}"), FetchSettings())
    assert fetched.reason == "refused_address"


def test_the_checked_address_is_the_one_connected_to(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers differently the second time is not asked a second time."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def rebinding(host: str, port: int) -> list[str]:
        return next(answers)

    monkeypatch.setattr(addresses, "resolve", rebinding)
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
    url = f"http://rebinding.example:{site.server_port}/ok"
    assert fetch_one(url, FetchSettings()).payload == site.picture
    assert site.log[0][1]["Host"] == f"rebinding.example:{site.server_port}"
    assert next(answers) == ["10.0.0.1"]


def test_the_next_address_is_tried(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]  # the site listens on the second only

    monkeypatch.setattr(addresses, "resolve", two)
    assert fetch_one(f"http://two.example:{site.server_port}/ok").payload == site.picture


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "bad_url"),
        ("picture.png", "bad_url"),
        ("//host/picture.png", "bad_url"),
        ("http://", "bad_url"),
        ("http:///picture.png", "bad_url"),
        ("http://user@host/", "bad_url"),
        ("http://user:secret@host/", "bad_url"),
        ("http://host:0/", "bad_url"),
        ("http://host:99999/", "bad_url"),
        ("http://host:port/", "bad_url"),
        ("http://ho\x00st/", "bad_url"),
        ("http://\ud800/", "bad_url"),
        ("http://host/\ud800", "bad_url"),
        ("http://" + "x" * 70_000, "bad_url"),
        ("http://" + "x" * 64 + "/", "bad_url"),  # no name server takes it
        ("data:image/png;base64,iVBORw0KGgo=", "refused_scheme"),
        ("file:///etc/passwd", "refused_scheme"),
        ("javascript:alert(1)", "refused_scheme"),
        ("blob:https://host/1", "refused_scheme"),
    ],
)
def test_urls_that_are_not_asked_for(url: str, reason: str) -> None:
    fetched = fetch_one(url)
    assert fetched.reason == reason, fetched
    assert len(fetched.detail) < 1000
    assert "secret" not in fetched.detail


@given(text=st.one_of(st.text(), st.text().map("http://".__add__)))
def test_any_text_is_a_url_or_a_record_error(text: str) -> None:
    with suppress(RecordError):
        url = parse_url(text)
        assert url.scheme in ("http", "https")
        assert url.host


def test_what_nobody_thought_of_costs_one_url(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def break_down(response: httpcore2.Response, max_bytes: int) -> bytes:
        raise ZeroDivisionError("never seen before")

    monkeypatch.setattr(fetch, "read_body", break_down)
    fetched = fetch_one(site.url("/ok"))
    assert (fetched.reason, fetched.detail) == ("fetch_failed", "ZeroDivisionError: never seen before")


def test_a_mistake_of_ours_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pool(settings: FetchSettings) -> httpcore2.AsyncConnectionPool:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(fetch, "_pool", no_pool)
    with pytest.raises(ZeroDivisionError, match="ours"):
        list(fetch_images(["http://host/"], LOOPBACK, MAX_BYTES))


def test_closing_the_iterator_ends_all_transfers(site: Site) -> None:
    urls = [site.url("/ok"), *[site.url("/silence")] * 5]
    results = fetch_images(urls, LOOPBACK, MAX_BYTES)
    assert [one.payload for one in islice(results, 1)] == [site.picture]
    assert any(thread.name == "carnac-fetch" for thread in threading.enumerate())
    results.close()  # type: ignore[attr-defined]  # a generator
    assert not any(thread.name == "carnac-fetch" for thread in threading.enumerate())


def test_a_slow_caller_holds_transfers_back(site: Site) -> None:
    """Memory is bounded: what waits to be taken and what is on its way, not the whole list."""
    urls = [site.url(f"/ok/{number}") for number in range(50)]
    results = fetch_images(urls, LOOPBACK.model_copy(update={"num_connections": 2}), MAX_BYTES)
    next(results)
    asyncio.run(asyncio.sleep(0.5))
    assert len(site.log) <= 6
    assert len(list(results)) == 49
