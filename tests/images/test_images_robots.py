from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from images_samples import encoded
from images_site import Robots, Site, served

from carnac.engine.spool import Spool
from carnac.images.answers import Answer
from carnac.images.fetch import Ask, Fetched, fetch_images
from carnac.images.records import robots_record
from carnac.images.robots import MAX_ROBOTS_BYTES, parse_robots, product_of
from carnac.images.settings import FetchSettings
from carnac.images.urls import parse_url

SETTINGS = FetchSettings(
    allow_private_addresses=True,
    addresses={"*.test": "127.0.0.1"},
    delay_seconds=0.0,
    retries=1,
    backoff_seconds=0.01,
    timeout_seconds=20.0,
)


@pytest.fixture
def site() -> Iterator[Site]:
    with served(encoded()["jpeg"]) as server:
        yield server


def allows(text: str, path: str, product: str = "carnac") -> bool:
    return parse_robots(text.encode(), product).allows(parse_url(f"http://www.example{path}"))


def fetch(urls: list[str], folder: Path, settings: FetchSettings = SETTINGS) -> dict[str, Fetched]:
    with Spool(folder / "spool") as spool:
        found = fetch_images([Ask(url) for url in urls], settings, 100_000, spool)
        return {one.url: one for one in found if one is not None}


@pytest.mark.parametrize(
    ("text", "path", "is_allowed"),
    [
        ("", "/a", True),
        ("<!doctype html><p>Not found", "/a", True),
        ("User-agent: *\nDisallow:", "/a", True),
        ("User-agent: *\nDisallow: /", "/a", False),
        ("\ufeffUser-agent: *\nDisallow: /", "/a", False),
        ("User-agent: *\r\nDisallow: /a\r\n", "/a/b", False),
        ("user-AGENT : *  # all\nDISALLOW: /a", "/a", False),
        ("User-agent: carnac\nDisallow: /", "/a", False),
        ("User-agent: Carnac/2.0\nDisallow: /", "/a", False),
        ("User-agent: other\nUser-agent: carnac\nDisallow: /", "/a", False),
        ("User-agent: other\nDisallow: /", "/a", True),
        ("User-agent: car\nDisallow: /", "/a", True),
        ("User-agent: carnacbot\nDisallow: /", "/a", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: carnac\nAllow: /", "/a", True),
        ("User-agent: *\nAllow: /\n\nUser-agent: carnac\nDisallow: /a", "/a", False),
        (
            "User-agent: carnac\nDisallow: /a\nUser-agent: x\nDisallow: /b\nUser-agent: carnac\nDisallow: /c",
            "/c",
            False,
        ),
        ("User-agent: *\nDisallow: /images\nAllow: /images/open", "/images/open/1.jpg", True),
        ("User-agent: *\nAllow: /images\nDisallow: /images/closed", "/images/closed/1.jpg", False),
        ("User-agent: *\nDisallow: /*.jpg$", "/a.jpg", False),
        ("User-agent: *\nDisallow: /*.jpg$", "/a.jpg?x", True),
        ("User-agent: *\nDisallow: /*?*w=", "/a?h=1&w=2", False),
        ("User-agent: *\nDisallow: /caf\u00e9", "/caf%C3%A9", False),
        ("User-agent: *\nDisallow: /a%3Cd", "/a%3cd", False),
    ],
)
def test_what_is_allowed(text: str, path: str, is_allowed: bool) -> None:
    assert allows(text, path) is is_allowed


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("User-agent: *\nCrawl-delay: 2.5", 2.5),
        ("User-agent: *\nCrawl-delay: 1\n\nUser-agent: carnac\nCrawl-delay: 7", 7),
        ("User-agent: other\nCrawl-delay: 9", 0),
        ("User-agent: *\nCrawl-delay: soon", 0),
        ("User-agent: *\nCrawl-delay: -1", 0),
        ("User-agent: *\nCrawl-delay: nan", 0),
        ("User-agent: *\nRequest-rate: 1/10", 10),
        ("User-agent: *\nRequest-rate: 4/1m", 15),
    ],
)
def test_the_delay(text: str, seconds: float) -> None:
    assert parse_robots(text.encode(), "carnac").delay_seconds == seconds


@pytest.mark.parametrize(
    ("user_agent", "product"), [("carnac/0.1", "carnac"), ("My-Bot/2 (x)", "my-bot"), ("bot", "bot"), ("a b/1", "a")]
)
def test_the_name_that_rules_know_us_by(user_agent: str, product: str) -> None:
    assert product_of(user_agent) == product


@given(st.binary(max_size=300), st.sampled_from(["user-agent: *\n", "User-agent: carnac\nDisallow: /x\n", ""]))
def test_any_bytes_can_be_read(text: bytes, start: str) -> None:
    parse_robots(start.encode() + text, "carnac").allows(parse_url("http://www.example/a?b"))


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"User-agent: a{number}\n" for number in range(19_000)) + "Disallow: /a\n" * 17_000,
        "User-agent: *\n" + "Disallow: /*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b\n" * 12_000,
        "User-agent: *\n" + "Disallow: /" + "*a" * 250_000 + "b\n",
        "user agent" * 50_000,
        "User-agent: *\n" + "D" * 500_000,
    ],
    ids=["groups", "wildcards", "one long pattern", "no colon", "no word"],
)
def test_the_worst_file_costs_no_more_than_many_plain_rules(text: str) -> None:
    """Each would take minutes, or gigabytes, of a reader that tries robots times rules or backtracks."""

    def seconds(content: str) -> float:
        start = time.process_time()
        rules = parse_robots(content.encode()[:MAX_ROBOTS_BYTES], "carnac")
        for _ in range(10):
            rules.allows(parse_url("http://www.example/" + "a" * 2000))
        return time.process_time() - start

    plain = seconds("User-agent: *\n" + "".join(f"Disallow: /{number:020}\n" for number in range(15_000)))
    assert seconds(text) < 50 * plain


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_without_a_file_everything_may_be_asked_for(site: Site, tmp_path: Path, status: int) -> None:
    site.robots["one.test"] = Robots(status=status, text="User-agent: *\nDisallow: /")
    assert fetch([site.url("/ok", "one.test")], tmp_path)[site.url("/ok", "one.test")].status == "received"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 599])
def test_while_the_file_cannot_be_had_nothing_is_asked_for(site: Site, tmp_path: Path, status: int) -> None:
    site.robots["one.test"] = Robots(status=status)
    urls = [site.url(f"/ok/{number}", "one.test") for number in range(3)]
    found = fetch(urls, tmp_path)
    assert {(one.status, one.reason, one.requests) for one in found.values()} == {("deferred", "robots_unreachable", 0)}
    assert f"http_{status}" in found[urls[0]].detail
    assert not site.log
    assert len(site.asked("/robots.txt")) == (1 if status == 599 else 2)  # what may pass is tried again


def test_a_server_that_is_not_there_is_asked_for_its_file_only(tmp_path: Path) -> None:
    with socket.socket() as bound:  # bound, so that nobody else takes the port, but not listening
        bound.bind(("127.0.0.1", 0))
        start = f"http://one.test:{bound.getsockname()[1]}"
        found = fetch([f"{start}/a", f"{start}/b"], tmp_path)
    ends = {(one.status, one.reason, one.requests) for one in found.values()}
    assert ends == {("deferred", "robots_unreachable", 0)}


def test_what_is_forbidden_is_never_asked_for(site: Site, tmp_path: Path) -> None:
    site.robots["one.test"] = Robots(text="User-agent: *\nDisallow: /ok/secret\nAllow: /")
    open_urls = [site.url(f"/ok/open/{number}", "one.test") for number in range(5)]
    secret = [site.url(f"/ok/secret/{number}", "one.test") for number in range(5)]
    hidden = site.url("/redirect/1/ok/secret", "one.test")
    site.robots["two.test"] = Robots(text="User-agent: carnac\nDisallow: /")
    closed = site.url("/ok", "two.test")
    found = fetch([*open_urls, *secret, closed], tmp_path)
    assert {found[url].status for url in open_urls} == {"received"}
    assert {(found[url].status, found[url].reason) for url in [*secret, closed]} == {("refused", "robots_forbidden")}
    assert sorted(path for path, _ in site.log) == sorted(f"/ok/open/{number}" for number in range(5))
    assert hidden not in found


def test_a_redirect_is_checked_again(site: Site, tmp_path: Path) -> None:
    site.robots["one.test"] = Robots(text="User-agent: *\nDisallow: /ok\n")
    url = site.url("/redirect/2", "one.test")
    fetched = fetch([url], tmp_path)[url]
    assert (fetched.status, fetched.reason, fetched.hops) == ("refused", "robots_forbidden", 2)
    assert [path for path, _ in site.log] == ["/redirect/2", "/redirect/1"]


def test_the_file_is_asked_for_once_for_a_host_and_port(site: Site, tmp_path: Path) -> None:
    hosts = [f"h{number}.test" for number in range(5)]
    for host in hosts:
        site.robots[host] = Robots(text="User-agent: *\nDisallow: /private")
    with served(encoded()["jpeg"]) as other:
        urls = [at.url(f"/ok/{number}", host) for host in hosts for number in range(8) for at in (site, other)]
        found = fetch(urls, tmp_path)
        assert {one.status for one in found.values()} == {"received"}
        assert all(len(at.asked("/robots.txt", host)) == 1 for host in hosts for at in (site, other))
        for requests in (site.requests, other.requests):
            by_time = sorted(requests, key=lambda one: one.began)
            assert all(next(one for one in by_time if one.host == host).path == "/robots.txt" for host in hosts)


@pytest.mark.parametrize("hops", [1, 5])
def test_redirects_of_the_file_are_followed_to_other_hosts_too(site: Site, tmp_path: Path, hops: int) -> None:
    for number in range(hops):
        location = site.url("/robots.txt", f"r{number + 1}.test")
        site.robots[f"r{number}.test"] = Robots(status=301, headers={"Location": location})
    site.robots[f"r{hops}.test"] = Robots(text="User-agent: *\nDisallow: /ok")
    url = site.url("/ok", "r0.test")
    assert fetch([url], tmp_path)[url].reason == "robots_forbidden"


@pytest.mark.parametrize("location", ["/robots.txt", "file:///etc/passwd", "http://gone.invalid:0/", "http://x y/"])
def test_a_redirect_of_the_file_that_leads_nowhere_is_no_file(site: Site, tmp_path: Path, location: str) -> None:
    site.robots["one.test"] = Robots(status=302, headers={"Location": location})
    url = site.url("/ok", "one.test")
    assert fetch([url], tmp_path)[url].status == "received"
    assert len(site.asked("/robots.txt")) <= 6


def test_a_long_file_is_read_as_far_as_the_rfc_asks(site: Site, tmp_path: Path) -> None:
    """What stands behind 500 KiB is not read: a file may be endless."""
    filler = "# a comment of about fifty characters in this line\n" * 11_000
    site.robots["one.test"] = Robots(text="User-agent: *\nDisallow: /ok/1\n" + filler + "Disallow: /ok/2\n")
    urls = [site.url("/ok/1", "one.test"), site.url("/ok/2", "one.test")]
    found = fetch(urls, tmp_path)
    assert [found[url].status for url in urls] == ["refused", "received"]


def test_without_robots_nothing_is_asked_but_the_images(site: Site, tmp_path: Path) -> None:
    site.robots["one.test"] = Robots(text="User-agent: *\nDisallow: /")
    url = site.url("/ok", "one.test")
    assert fetch([url], tmp_path, SETTINGS.model_copy(update={"robots": False}))[url].status == "received"
    assert not site.asked("/robots.txt")


def test_another_try_at_a_unit_knows_the_rules_already(site: Site, tmp_path: Path) -> None:
    site.robots["one.test"] = Robots(text="User-agent: *\nDisallow: /ok/2\nCrawl-delay: 0.05")
    first, forbidden, third = (site.url(f"/ok/{number}", "one.test") for number in (1, 2, 3))
    assert fetch([first], tmp_path)[first].status == "received"
    found = fetch([first, forbidden, third], tmp_path)
    assert [found[url].status for url in (first, forbidden, third)] == ["received", "refused", "received"]
    assert len(site.asked("/robots.txt")) == 1
    assert [path for path, _ in site.log] == ["/ok/1", "/ok/3"]


def test_tries_at_the_file_count_on_in_another_try_at_the_unit(site: Site, tmp_path: Path) -> None:
    site.robots["one.test"] = Robots(status=503)
    url = site.url("/ok", "one.test")
    origin = url.removesuffix("/ok")
    with Spool(tmp_path / "spool") as spool:
        spool.add([(robots_record(origin, Answer(reason="http_503", http_status=503), 1, is_final=False), b"")])
    assert fetch([url], tmp_path)[url].reason == "robots_unreachable"
    assert len(site.asked("/robots.txt")) == 1
