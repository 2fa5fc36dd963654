from __future__ import annotations

import email.utils
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from images_samples import encoded
from images_site import Request, Robots, Site, served

from carnac.engine.spool import Spool
from carnac.images.answers import Answer, Pending, backoff_seconds, judge, retry_after_seconds
from carnac.images.fetch import Ask, Fetched, fetch_images
from carnac.images.records import count_requests
from carnac.images.schedule import Schedule, Turn
from carnac.images.settings import FetchSettings
from carnac.images.urls import parse_url

SETTINGS = FetchSettings(
    allow_private_addresses=True,
    addresses={"*.test": "127.0.0.1"},
    delay_seconds=0.0,
    retries=2,
    backoff_seconds=0.05,
    timeout_seconds=20.0,
    num_connections=32,
)
# The server's clock starts when it has read a request: on a busy machine, two may seem closer by so much than they are.
JITTER_SECONDS = 0.15


@pytest.fixture
def site() -> Iterator[Site]:
    with served(encoded()["jpeg"]) as server:
        yield server


def fetch(urls: Sequence[str], folder: Path, **settings: object) -> dict[str, Fetched]:
    with Spool(folder / "spool") as spool:
        asks = [Ask(url) for url in urls]
        found = fetch_images(asks, SETTINGS.model_copy(update=settings), 100_000, spool)
        return {one.url: one for one in found if one is not None}


def most_at_once(requests: Sequence[Request]) -> int:
    events = sorted([(one.began, 1) for one in requests] + [(one.ended, -1) for one in requests])
    most = now = 0
    for _, step in events:
        now += step
        most = max(most, now)
    return most


def gaps(requests: Sequence[Request]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(sorted(one.began for one in requests))]


def test_one_host_is_asked_for_so_much_at_once_and_hosts_beside_each_other(site: Site, tmp_path: Path) -> None:
    hosts = [f"h{number}.test" for number in range(6)]
    urls = [site.url(f"/slow/0.1/{number}", host) for host in hosts for number in range(8)]
    start = time.monotonic()
    found = fetch(urls, tmp_path, num_connections_per_host=2)
    assert {one.status for one in found.values()} == {"received"}
    for host in hosts:
        assert most_at_once([one for one in site.requests if one.host == host]) <= 2
    assert most_at_once(site.requests) > 2
    assert time.monotonic() - start < 0.1 * len(urls)  # what it takes one after the other


@pytest.mark.parametrize(("text", "delay"), [("", 0.3), ("User-agent: *\nCrawl-delay: 0.4", 0.4)])
def test_requests_to_a_host_keep_their_distance(site: Site, tmp_path: Path, text: str, delay: float) -> None:
    """From the request for robots.txt on, redirects in, whatever the number of connections."""
    site.robots["one.test"] = Robots(text=text)
    urls = [site.url(path, "one.test") for path in ("/ok/1", "/ok/2", "/redirect/2")]
    found = fetch(urls, tmp_path, delay_seconds=0.3, num_connections_per_host=4)
    assert {one.status for one in found.values()} == {"received"}
    distances = gaps(site.requests)
    assert len(distances) == 2 + 3
    assert min(distances) >= delay - JITTER_SECONDS
    assert sum(distances) >= 5 * delay - JITTER_SECONDS


def test_a_slow_host_does_not_keep_others_waiting(site: Site, tmp_path: Path) -> None:
    site.robots["slow.test"] = Robots(text="User-agent: *\nCrawl-delay: 0.5")
    urls = [site.url(f"/ok/{number}", "slow.test") for number in range(4)]
    urls += [site.url(f"/ok/{number}", f"h{number}.test") for number in range(40)]
    fetch(urls, tmp_path, num_connections=2)
    last = max(one.ended for one in site.requests if one.host != "slow.test")
    assert len([one for one in site.asked("/ok/3", "slow.test") if one.began < last]) == 0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_host_that_asks_for_a_pause_gets_it(site: Site, tmp_path: Path, form: str) -> None:
    site.failures = 1
    # A date has no fractions: two seconds from now are at least one.
    site.retry_after = "1" if form == "seconds" else email.utils.formatdate(time.time() + 2, usegmt=True)
    urls = [site.url("/flaky", "one.test"), *[site.url(f"/ok/{number}", "one.test") for number in range(5)]]
    other = site.url("/ok", "two.test")
    found = fetch([*urls, other], tmp_path, num_connections_per_host=1)
    assert {one.status for one in found.values()} == {"received"}
    told = site.asked("/flaky")[0]
    pause = min(one.began for one in site.requests if one.host == "one.test" and one.began > told.began) - told.ended
    assert pause > (1.0 if form == "seconds" else 0.9) - JITTER_SECONDS
    assert site.asked("/ok", "two.test")[0].began - told.ended < pause
    assert found[urls[0]].requests == 2


def test_a_pause_beyond_the_units_time_puts_the_host_off(site: Site, tmp_path: Path) -> None:
    site.failures, site.retry_after = 1, "3600"
    urls = [site.url("/flaky", "one.test"), *[site.url(f"/ok/{number}", "one.test") for number in range(5)]]
    found = fetch(urls, tmp_path, num_connections_per_host=1)
    assert {(one.status, one.reason) for one in found.values()} == {("deferred", "retry_after")}
    assert [path for path, _ in site.log] == ["/flaky"]


def test_what_may_pass_is_tried_again_later_and_later(site: Site, tmp_path: Path) -> None:
    site.failures = 2
    url = site.url("/flaky", "one.test")
    fetched = fetch([url], tmp_path, backoff_seconds=0.8)[url]
    assert (fetched.status, fetched.requests) == ("received", 3)
    first, second = gaps(site.asked("/flaky"))
    assert first > 0.4 - JITTER_SECONDS
    assert second > 0.8 - JITTER_SECONDS


@pytest.mark.parametrize(
    ("path", "status", "reason", "num_requests"),
    [
        ("/status/404", "refused", "http_404", 1),
        ("/status/500", "refused", "http_500", 3),
        ("/status/502", "refused", "http_502", 3),
        ("/status/408", "refused", "http_408", 3),
        ("/status/429", "deferred", "http_429", 3),
        ("/status/503", "deferred", "http_503", 3),
        ("/cut", "refused", "connection_failed", 3),
        ("/no_answer", "refused", "connection_failed", 3),
        ("/nonsense", "refused", "bad_response", 1),
        ("/page", "refused", "not_an_image", 1),
    ],
)
def test_what_is_worth_another_try(
    site: Site, tmp_path: Path, path: str, status: str, reason: str, num_requests: int
) -> None:
    url = site.url(path, "one.test")
    fetched = fetch([url], tmp_path)[url]
    assert (fetched.status, fetched.reason, fetched.requests) == (status, reason, num_requests)
    assert len(site.asked(path)) == num_requests


def test_a_kept_connection_that_is_cut_costs_one_request_a_try(site: Site, tmp_path: Path) -> None:
    """An HTTP client that asks again at once by itself would come twice as often as it may."""
    urls = [site.url("/ok", "one.test"), site.url("/no_answer", "one.test")]
    fetched = fetch(urls, tmp_path, num_connections_per_host=1, delay_seconds=0.3)[urls[1]]
    assert (fetched.reason, fetched.requests) == ("connection_failed", 3)
    assert len(site.asked("/no_answer")) == 3
    assert min(gaps(site.requests)) > 0.3 - JITTER_SECONDS


def test_waiting_for_another_try_takes_no_connection(site: Site, tmp_path: Path) -> None:
    failing = [site.url("/status/500", f"f{number}.test") for number in range(4)]
    good = [site.url(f"/ok/{number}", f"h{number}.test") for number in range(30)]
    fetch([*failing, *good], tmp_path, num_connections=2, backoff_seconds=1.0, retries=1)
    seconds_try = max(one.began for one in site.asked("/status/500"))
    assert max(one.ended for one in site.requests if one.path.startswith("/ok")) < seconds_try


def test_a_host_that_is_down_is_left_alone(site: Site, tmp_path: Path) -> None:
    urls = [site.url(f"/silence/{number}", "down.test") for number in range(50)]
    good = [site.url(f"/ok/{number}", "up.test") for number in range(10)]
    found = fetch([*urls, *good], tmp_path, idle_timeout_seconds=0.1, host_failures=5, retries=1, robots=False)
    assert {found[url].status for url in good} == {"received"}
    ends = Counter(found[url].reason for url in urls)
    assert set(ends) == {"host_down", "timeout"}
    assert ends["host_down"] >= 40
    assert len([one for one in site.log if one[0].startswith("/silence")]) <= 5 + 2 * 2


def test_slow_urls_of_a_host_that_answers_do_not_put_it_down(site: Site, tmp_path: Path) -> None:
    slow = [site.url(f"/trickle/{number}", "one.test") for number in range(6)]
    good = [site.url(f"/ok/{number}", "one.test") for number in range(6)]
    found = fetch([*slow, *good], tmp_path, timeout_seconds=0.3, host_failures=3, retries=0, delay_seconds=0.0)
    assert {found[url].reason for url in slow} == {"timeout"}
    assert {found[url].status for url in good} == {"received"}


def test_a_unit_ends_by_itself(site: Site, tmp_path: Path) -> None:
    urls = [site.url(f"/ok/{number}", "one.test") for number in range(50)]
    urls += [site.url(f"/trickle/{number}", f"slow{number}.test") for number in range(3)]
    start = time.monotonic()
    found = fetch(urls, tmp_path, delay_seconds=0.2, unit_seconds=1.5)
    assert time.monotonic() - start < 10
    statuses = Counter((one.status, one.reason) for one in found.values())
    assert set(statuses) == {("received", None), ("deferred", "deadline")}
    assert 1 <= statuses["received", None] <= 8
    assert len(found) == len(urls)
    before = len(site.log)
    # Another try, with time of its own: what was put off, and cut off, is asked for.
    again = fetch(urls, tmp_path, timeout_seconds=0.3, retries=0)
    assert {again[url].status for url in urls[:50]} == {"received"}
    received = [url for url in urls if found[url].status == "received"]
    assert not {url.partition(".test")[2].partition("/")[2] for url in received} & {
        path[1:] for path, _ in site.log[before:]
    }


def test_a_delay_beyond_the_units_time_ends_it_at_once(site: Site, tmp_path: Path) -> None:
    site.robots["one.test"] = Robots(text="User-agent: *\nCrawl-delay: 86400")
    urls = [site.url(f"/ok/{number}", "one.test") for number in range(5)]
    start = time.monotonic()
    found = fetch(urls, tmp_path, unit_seconds=600.0)
    assert time.monotonic() - start < 60
    assert Counter((one.status, one.reason) for one in found.values()) == {("deferred", "deadline"): 5}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 5000, float("inf")),
        ("Mon, 23 Nov 2026 09:00:00 GMT", 60.0),
        ("Monday, 23-Nov-26 09:00:00 GMT", 60.0),
        ("Mon, 23 Nov 2026 08:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("Mon, 99 Nov 2026 09:00:00 GMT", None),
        ("\u0661", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    now = email.utils.parsedate_to_datetime("Mon, 23 Nov 2026 08:59:00 GMT").timestamp()
    assert retry_after_seconds(value, now) == seconds


def test_back_off_doubles_and_differs_between_urls() -> None:
    waits = [[backoff_seconds(f"http://h/{number}", tries, 1.0) for number in range(100)] for tries in (1, 2, 3)]
    for tries, found in enumerate(waits):
        assert 0.5 * 2**tries <= min(found) < max(found) <= 1.5 * 2**tries
        assert len(set(found)) == 100
    assert backoff_seconds("http://h/", 10_000, 1.0) == 600.0


def _pending(url: str) -> Pending:
    return Pending(ask=Ask(url), target=parse_url(url), hops=0)


def test_hosts_that_were_begun_come_before_fresh_ones_and_large_ones_first() -> None:
    schedule = Schedule(SETTINGS.model_copy(update={"robots": False, "num_connections_per_host": 1}), 100.0)
    for host, number in (("small", 1), ("large", 3), ("middle", 2)):
        for place in range(number):
            schedule.add(_pending(f"http://{host}/{place}"))
    order = []
    while (turn := schedule.take(0.0)) is not None:
        order.append(turn.target.host)
        schedule.ended(turn.host)
    assert order == ["large"] * 3 + ["middle"] * 2 + ["small"]
    assert schedule.num_waiting == schedule.num_active == 0
    assert schedule.next_time() == float("inf")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_url_ends_once_and_no_host_is_asked_too_soon(seed: int) -> None:
    """The schedule alone, on a clock of its own, with answers drawn at random."""
    draw = random.Random(seed)
    settings = SETTINGS.model_copy(update={"robots": False, "delay_seconds": 1.0, "retries": 3, "host_failures": 4})
    schedule = Schedule(settings, 200.0)
    urls = [f"http://h{draw.randrange(8)}/{number}" for number in range(120)]
    for url in urls:
        schedule.add(_pending(url))
    now, ended, started = 0.0, Counter[str](), dict[str, list[float]]()
    under_way: list[tuple[float, Turn]] = []
    while schedule.num_waiting or schedule.num_active:
        while len(under_way) < 5 and (turn := schedule.take(now)) is not None:
            started.setdefault(turn.host.name, []).append(now)
            under_way.append((now + draw.random() * 5, turn))
        ended.update(one.url for one in schedule.settled)
        schedule.settled.clear()
        under_way.sort(key=lambda entry: entry[0])
        soonest = under_way[0][0] if under_way else float("inf")
        now = max(now, min(soonest, schedule.next_time() if len(under_way) < 5 else soonest))
        while under_way and under_way[0][0] <= now:
            _, turn = under_way.pop(0)
            assert turn.pending is not None
            answer = draw.choice([Answer(), Answer(reason="timeout", is_silent=True), Answer(reason="http_503")])
            follows = judge(turn.pending, answer, settings)
            schedule.note_answer(turn.host, is_silent=answer.is_silent)
            if answer.reason == "http_503":
                turn.host.pause(now + draw.random() * 20)
            if follows.ended is not None:
                ended[follows.ended.url] += 1
            else:
                schedule.add(turn.pending, now + follows.wait_seconds)
            schedule.ended(turn.host)
    ended.update(one.url for one in schedule.settled)
    assert ended == Counter(urls)
    for times in started.values():
        assert all(later - earlier > 1.0 - 1e-9 for earlier, later in pairwise(times))
        assert max(times) < 200.0


SCRIPT = """
import json, sys
from pathlib import Path
from carnac.engine.spool import Spool
from carnac.images.fetch import Ask, fetch_images
from carnac.images.settings import FetchSettings
urls, settings = json.loads(sys.stdin.read())
settings = FetchSettings.model_validate(settings, strict=False)
with Spool(Path(sys.argv[1])) as spool:
    for one in fetch_images([Ask(url) for url in urls], settings, 10**6, spool):
        if one is not None:
            print(one.url, one.status, flush=True)
"""


@pytest.mark.parametrize("seed", range(2))
def test_of_a_killed_process_the_next_one_repeats_only_what_was_in_flight(
    site: Site, tmp_path: Path, seed: int
) -> None:
    """Killed with SIGKILL three times, at any moment; retries, redirects and robots.txt are not repeated either."""
    draw = random.Random(seed)
    num_connections = 6
    hosts = [f"h{number}.test" for number in range(10)]
    site.robots = {host: Robots(text="User-agent: *\nDisallow: /ok/private") for host in hosts}
    paths = [*(f"/slow/0.02/{number}" for number in range(24)), "/redirect/3", "/status/500", "/ok/private", "/page"]
    urls = [site.url(path, host) for host in hosts for path in paths]
    settings = {"addresses": {"*.test": "127.0.0.1"}, "allow_private_addresses": True, "delay_seconds": 0.0}
    settings |= {"num_connections": num_connections, "retries": 1, "backoff_seconds": 0.05}
    given = json.dumps([urls, settings])
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "spool")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(given)
        process.stdin.close()
        process.stdout.readline()  # it has begun
        time.sleep(draw.random() * 0.3)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    found = fetch(urls, tmp_path, num_connections=num_connections, retries=1)
    by_path = Counter((url.partition(".test")[2].partition("/")[2], one.status) for url, one in found.items())
    assert by_path == {
        (path[1:], {"redirect": "received", "slow": "received", "ok": "refused"}.get(path.split("/")[1], "refused")): 10
        for path in paths
    }
    wanted = {f"/slow/0.02/{number}": 1 for number in range(24)} | {"/robots.txt": 1, "/page": 1, "/status/500": 2}
    wanted |= {"/redirect/3": 1, "/redirect/2": 1, "/redirect/1": 1, "/ok": 1}
    asked = Counter((one.host, one.path) for one in site.requests)
    assert {path for _, path in asked} == set(wanted)
    extra = sum(number - wanted[path] for (_, path), number in asked.items())
    assert 0 <= extra <= 3 * num_connections
    assert all(number >= wanted[path] for (_, path), number in asked.items())
    with Spool(tmp_path / "spool") as spool:
        counts = count_requests(spool)
    assert counts["requests"] + counts["robots_requests"] == asked.total() - extra
