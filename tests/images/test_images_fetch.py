from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import aiohttp.connector
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from images_samples import encoded
from images_site import Site, served

from carnac.core.errors import RecordError
from carnac.engine.spool import Spool
from carnac.images import addresses, fetch, transfer
from carnac.images.fetch import Ask, Fetched, fetch_images
from carnac.images.settings import FetchSettings
from carnac.images.urls import parse_url

MAX_BYTES = 100_000
LOOPBACK = FetchSettings(
    allow_private_addresses=True,
    addresses={"*.test": "127.0.0.1"},
    timeout_seconds=20.0,
    idle_timeout_seconds=10.0,
    max_redirects=3,
    retries=0,
    delay_seconds=0.0,
    num_connections_per_host=32,
    host_failures=1000,
)


@pytest.fixture
def site() -> Iterator[Site]:
    with served(encoded()["jpeg"]) as server:
        yield server


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool") as opened:
        yield opened


def fetch_all(urls: list[str], spool: Spool, settings: FetchSettings = LOOPBACK) -> list[Fetched]:
    found = fetch_images([Ask(url) for url in urls], settings, MAX_BYTES, spool)
    return [fetched for fetched in found if fetched is not None]


def fetch_one(url: str, spool: Spool, settings: FetchSettings = LOOPBACK, max_bytes: int = MAX_BYTES) -> Fetched:
    (fetched,) = (found for found in fetch_images([Ask(url)], settings, max_bytes, spool) if found is not None)
    assert fetched.url == url
    assert (fetched.status == "received") == (fetched.place is not None)
    assert (fetched.reason is None) == (fetched.status in ("received", "moved"))
    return fetched


def payload_of(fetched: Fetched, spool: Spool) -> bytes:
    assert fetched.place is not None, fetched
    return spool.payload(fetched.place)


def hurried(seconds: float = 0.4, idle: float = 10.0) -> FetchSettings:
    return LOOPBACK.model_copy(update={"timeout_seconds": seconds, "idle_timeout_seconds": idle})


def test_nothing_to_fetch(spool: Spool) -> None:
    assert list(fetch_images([], LOOPBACK, MAX_BYTES, spool)) == []


def test_a_picture_and_what_is_said_to_the_server(site: Site, spool: Spool) -> None:
    settings = LOOPBACK.model_copy(update={"contact": "crawler@example.org"})
    url = site.url("/ok/a%20b%2Fc?d=%26&e")
    fetched = fetch_one(url, spool, settings)
    assert payload_of(fetched, spool) == site.picture
    assert (fetched.http_status, fetched.requests, fetched.received_bytes) == (200, 1, len(site.picture))
    assert 0 < fetched.seconds < 20
    ((path, headers),) = site.log
    assert path == "/ok/a%20b%2Fc?d=%26&e"
    assert headers["User-Agent"] == "carnac/0.1 (+crawler@example.org)"
    assert headers["Host"] == f"127.0.0.1:{site.server_port}"
    assert headers["Accept-Encoding"] == "identity"
    assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}


def test_many_at_once_over_few_connections_and_without_cookies(site: Site, spool: Spool) -> None:
    urls = [site.url(f"/ok/{number}") for number in range(60)]
    fetched = fetch_all(urls, spool, LOOPBACK.model_copy(update={"num_connections": 4}))
    assert sorted(one.url for one in fetched) == sorted(urls)
    assert all(payload_of(one, spool) == site.picture for one in fetched)
    assert len(site.connections) <= 4
    assert not any("Cookie" in headers for _, headers in site.log)


def test_results_come_as_they_finish_and_none_while_nothing_does(site: Site, spool: Spool) -> None:
    held, free = site.url("/held_back"), site.url("/ok")
    results = fetch_images([Ask(held), Ask(free)], LOOPBACK, MAX_BYTES, spool)
    first = next(results)
    assert first is not None
    assert first.url == free
    assert next(results) is None
    site.released.set()
    assert [one.url for one in results if one is not None] == [held]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/status/404", "http_404"),
        ("/status/500", "http_500"),
        ("/status/204", "http_204"),
        ("/status/206", "http_206"),
        ("/status/302", "http_302"),  # a redirect to nowhere
        ("/status/304", "http_304"),
        ("/redirect/4", "too_many_redirects"),
        ("/loop", "redirect_loop"),
        ("/to/file:///etc/passwd", "refused_scheme"),
        ("/to/ftp://127.0.0.1/x", "refused_scheme"),
        ("/to/http://me:secret@127.0.0.1/", "bad_url"),
        ("/to/http://host:port/", "bad_url"),
        ("/big", "too_many_bytes"),
        ("/endless", "too_many_bytes"),
        ("/bomb", "too_many_bytes"),
        ("/page", "not_an_image"),
        ("/endless_page", "not_an_image"),
        ("/nothing", "empty"),
        ("/cut", "connection_failed"),
        ("/no_answer", "connection_failed"),
        ("/nonsense", "bad_response"),
        ("/many_headers/1000", "bad_response"),
        ("/long_header/100000", "bad_response"),
        ("/gzip/br", "bad_encoding"),
        ("/gzip/gzip,%20gzip", "bad_encoding"),
        ("/gzip_cut", "bad_encoding"),
        ("/not_gzip", "bad_encoding"),
    ],
)
def test_reasons(site: Site, spool: Spool, path: str, reason: str) -> None:
    fetched = fetch_one(site.url(path), spool)
    assert (fetched.status, fetched.reason) == ("refused", reason), fetched
    assert fetched.detail


@pytest.mark.parametrize("path", ["/redirect/3", "/redirect/1", "/gzip", "/gzip/x-gzip"])
def test_good_in_the_end(site: Site, spool: Spool, path: str) -> None:
    assert payload_of(fetch_one(site.url(path), spool), spool) == site.picture


def test_the_limit_is_exact(site: Site, spool: Spool) -> None:
    length = len(site.picture)
    assert payload_of(fetch_one(site.url("/ok"), spool, max_bytes=length), spool) == site.picture
    assert fetch_one(site.url("/ok/2"), spool, max_bytes=length - 1).reason == "too_many_bytes"


def test_a_redirect_to_another_host_is_handed_back_and_its_hops_count_on(site: Site, spool: Spool) -> None:
    there = site.url("/ok", host="other.test")
    fetched = fetch_one(site.url(f"/to/{there}", host="one.test"), spool)
    assert (fetched.status, fetched.location, fetched.hops, fetched.http_status) == ("moved", there, 1, 302)
    assert [headers["Host"] for _, headers in site.log] == [f"one.test:{site.server_port}"]
    far = fetch_images([Ask(site.url("/to/http://other.test/", "one.test"), hops=3)], LOOPBACK, MAX_BYTES, spool)
    assert [one.reason for one in far if one is not None] == ["too_many_redirects"]


def test_the_connection_survives_an_error_with_a_short_body(site: Site, spool: Spool) -> None:
    urls = [site.url(f"/status/404/{number}") for number in range(5)]
    assert len(fetch_all(urls, spool, LOOPBACK.model_copy(update={"num_connections": 1}))) == 5
    assert len(site.connections) == 1


@pytest.mark.parametrize("path", ["/trickle", "/trickle_header", "/silence"])
def test_a_server_that_takes_for_ever_ends(site: Site, spool: Spool, path: str) -> None:
    """Each byte of a trickle resets an idle timeout; the time for the whole request does not."""
    fetched = fetch_one(site.url(path), spool, hurried().model_copy(update={"robots": False}))
    assert fetched.reason == "timeout"
    assert "0.4 s" in fetched.detail


def test_silence_ends_before_the_whole_time(site: Site, spool: Spool) -> None:
    fetched = fetch_one(site.url("/silence"), spool, hurried(seconds=60.0, idle=0.2))
    assert (fetched.reason, "SocketTimeoutError" in fetched.detail) == ("timeout", True)


def test_a_slow_server_does_not_hold_up_others(site: Site, spool: Spool) -> None:
    settings = hurried(seconds=2.0).model_copy(update={"num_connections": 2})
    urls = [site.url("/trickle"), *[site.url(f"/ok/{number}") for number in range(10)]]
    *others, last = fetch_all(urls, spool, settings)
    assert all(one.place for one in others)
    assert (last.url, last.reason) == (urls[0], "timeout")


def test_nobody_listens_and_tls_to_a_plain_server(site: Site, spool: Spool) -> None:
    plain = LOOPBACK.model_copy(update={"robots": False})
    with socket.socket() as bound:  # bound, so that nobody else takes the port, but not listening
        bound.bind(("127.0.0.1", 0))
        assert fetch_one(f"http://127.0.0.1:{bound.getsockname()[1]}/", spool, plain).reason == "connection_failed"
    assert fetch_one(site.url("/ok").replace("http:", "https:"), spool, plain).reason == "tls_failed"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the key and the certificate of `*.test`, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "secure.test")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("secure.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + signed.public_bytes(encoding))
    return file


def test_tls_is_checked_against_the_name(certificate: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with served(encoded()["jpeg"]) as site:
        site.socket = context.wrap_socket(site.socket, server_side=True)
        good = site.url("/ok", host="secure.test").replace("http:", "https:")
        other = site.url("/ok", host="other.test").replace("http:", "https:")
        assert fetch_one(good, spool, LOOPBACK.model_copy(update={"robots": False})).reason == "tls_failed"
        assert not site.log
        trusting = ssl.create_default_context(cafile=str(certificate))
        monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting)
        assert fetch_one(good + "?2", spool).status == "received"
        untold = fetch_one(other, spool)
        assert (untold.status, untold.reason) == ("deferred", "robots_unreachable")
        assert "tls_failed" in untold.detail


def test_a_name_that_does_not_exist_is_looked_up_once(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def unknown(host: str, *_: object) -> list[str]:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(addresses, "look_up", unknown)
    fetched = fetch_all([f"http://gone.example/{number}" for number in range(20)], spool)
    assert {(one.status, one.reason) for one in fetched} == {("refused", "unknown_host")}
    assert asked == ["gone.example"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "bad_url"),
        ("picture.png", "bad_url"),
        ("//host/picture.png", "bad_url"),
        ("http://", "bad_url"),
        ("http:///picture.png", "bad_url"),
        ("http:/host/picture.png", "bad_url"),
        ("http://user@host/", "bad_url"),
        ("http://user:secret@host/", "bad_url"),
        ("http://host:0/", "bad_url"),
        ("http://host:99999/", "bad_url"),
        ("http://host:port/", "bad_url"),
        ("http://host:25/", "refused_port"),
        ("http://ho\x00st/", "bad_url"),
        ("http://ho st/", "bad_url"),
        ("http://host%2e/", "bad_url"),
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
def test_urls_that_are_not_asked_for(spool: Spool, url: str, reason: str) -> None:
    fetched = fetch_one(url, spool)
    assert fetched.reason == reason, fetched
    assert len(fetched.detail) < 1000
    assert "secret" not in fetched.detail


@given(text=st.one_of(st.text(), st.text().map("http://".__add__)))
def test_any_text_is_a_url_or_a_record_error(text: str) -> None:
    with suppress(RecordError):
        url = parse_url(text)
        assert url.scheme in ("http", "https")
        assert url.host
        assert parse_url(url.url) == url
        assert url.url.isascii()


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("HTTP://Example.ORG:80", "http://example.org/"),
        ("https://example.org:443?q", "https://example.org/?q"),
        ("http://example.org./a b/\u00e9#fragment", "http://example.org/a%20b/%C3%A9"),
        ("http://example.org/%7Ea%2fb", "http://example.org/%7Ea%2fb"),
        ("http://stra\u00dfe.de/", "http://xn--strae-oqa.de/"),
        ("http://my_host.example/", "http://my_host.example/"),
        ("http://r3---sn-1.example/", "http://r3---sn-1.example/"),
        ("http://0x8.8.2056/", "http://8.8.8.8/"),
        ("http://[2606:4700:0:0::1111]:8080/", "http://[2606:4700::1111]:8080/"),
    ],
)
def test_one_spelling(text: str, url: str) -> None:
    assert parse_url(text).url == url


def test_what_nobody_thought_of_costs_one_url(site: Site, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def break_down(*_: object) -> bytes:
        raise ZeroDivisionError("never seen before")

    monkeypatch.setattr(transfer, "read_image", break_down)
    fetched = fetch_one(site.url("/ok"), spool)
    assert (fetched.reason, fetched.detail) == ("fetch_failed", "ZeroDivisionError: never seen before")


def test_a_mistake_of_ours_reaches_the_caller(site: Site, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(fetch, "judge", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        fetch_all([site.url("/ok")], spool)


def test_a_full_disk_reaches_the_caller(site: Site, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "add", full)
    with pytest.raises(OSError, match="No space left"):
        fetch_all([site.url("/ok")], spool)


def test_closing_the_iterator_ends_all_transfers(site: Site, spool: Spool) -> None:
    asks = [Ask(site.url("/ok")), *[Ask(site.url(f"/silence/{number}")) for number in range(5)]]
    results = fetch_images(asks, LOOPBACK, MAX_BYTES, spool)
    assert (first := next(results)) is not None
    assert payload_of(first, spool) == site.picture
    assert any(thread.name == "carnac-fetch" for thread in threading.enumerate())
    results.close()  # type: ignore[attr-defined]  # a generator
    assert not any(thread.name == "carnac-fetch" for thread in threading.enumerate())


def test_transfers_go_on_while_the_caller_works(site: Site, spool: Spool) -> None:
    results = fetch_images([Ask(site.url(f"/ok/{number}")) for number in range(50)], LOOPBACK, MAX_BYTES, spool)
    next(results)
    deadline = time.monotonic() + 30
    while len(site.log) < 50 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(site.log) == 50
    assert len([one for one in results if one is not None]) == 49


def test_a_loop_is_the_threads_own(site: Site, spool: Spool) -> None:
    """Also where the caller has a loop that runs."""

    async def caller() -> list[Fetched]:
        return await asyncio.to_thread(fetch_all, [site.url("/ok")], spool)

    assert [one.status for one in asyncio.run(caller())] == ["received"]
