"""Attempts to have carnac ask a machine that is not for it to ask. A listener that is there sees no connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from images_samples import encoded
from images_site import Robots, Site, served

from carnac.engine.spool import Spool
from carnac.images import addresses
from carnac.images.fetch import Ask, Fetched, fetch_images
from carnac.images.settings import FetchSettings

# The web of these tests: this address counts as public, all others of this machine stay what they are.
PUBLIC = "127.0.0.2"
SETTINGS = FetchSettings(
    delay_seconds=0.0, backoff_seconds=0.0, retries=1, timeout_seconds=20.0, addresses={"public.test": PUBLIC}
)
MAX_ROUNDS = 5


class Listener:
    """Listens at 127.0.0.1 and, where the system has it, ::1, at one port, and counts who comes."""

    def __init__(self) -> None:
        self.num_connections = 0
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port: int = self._sockets[0].getsockname()[1]
        if socket.has_ipv6:
            with contextlib.suppress(OSError):
                self._sockets.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for opened in self._sockets:
            threading.Thread(target=self._accept, args=(opened,), daemon=True).start()

    def _accept(self, opened: socket.socket) -> None:
        while True:
            try:
                connection, _ = opened.accept()
            except OSError:
                return
            self.num_connections += 1
            connection.close()

    def close(self) -> None:
        for opened in self._sockets:
            opened.close()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    opened = Listener()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A site of the web, at the address that counts as public."""
    with served(encoded()["jpeg"], address=PUBLIC) as server:
        yield server


@pytest.fixture(autouse=True)
def public(monkeypatch: pytest.MonkeyPatch) -> None:
    real = addresses.is_public
    monkeypatch.setattr(addresses, "is_public", lambda address: address == PUBLIC or real(address))


def fetch(url: str, folder: Path, settings: FetchSettings = SETTINGS) -> Fetched:
    """Fetch as rounds do: what moved to another host is asked of that one."""
    with Spool(folder / "spool") as spool:
        ask = Ask(url)
        for _ in range(MAX_ROUNDS):
            (fetched,) = (one for one in fetch_images([ask], settings, 100_000, spool) if one is not None)
            if fetched.location is None:
                break
            ask = Ask(fetched.location, fetched.hops)
        return fetched


HOSTS = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7F.0x0.0x0.0x1",
    "0177.0.0.1",
    "0177.0.0.01",
    "127.0x0.0.1",
    "0",
    "0.0.0.0",  # noqa: S104 -- nothing is bound to it
    "0x0",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "localhost",
    "LOCALHOST.",
    "localhost\u3002",
    "\u24c1ocalhost",
    "127\u30020\u30020\u30021",
    "127\uff0e0\uff0e0\uff0e1",
    "127\uff610\uff610\uff611",
    "\uff11\uff12\uff17.0.0.1",
    "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
    "\U0001d7cf\U0001d7d0\U0001d7d5.0.0.1",
    "127.0.0\u00ad.1",
    "127.0.0.1%00.public.test",
    "127%2e0%2e0%2e1",
    "256.0.0.1",
    "127.0.0.1.0",
    "4294967295",
    "18446744071562067969",
    "169.254.169.254",
    "0xA9FEA9FE",
    "2852039166",
    "169.254.43518",
    "[::ffff:169.254.169.254]",
    "10.0.0.1",
    "012.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.100.100.200",
    "168.63.129.16",
    "255.255.255.255",
    "public.test@127.0.0.1",
    "public.test:80@127.0.0.1",
    "127.0.0.1\\@public.test",
    "127.0.0.1 public.test",
    "127.0.0.1\tpublic.test",
]
REFUSED = ("refused_address", "bad_url")


@pytest.mark.parametrize("host", HOSTS)
def test_a_url_of_a_host_that_is_none_of_the_webs(listener: Listener, tmp_path: Path, host: str) -> None:
    fetched = fetch(f"http://{host}:{listener.port}/picture.jpg", tmp_path)
    assert (fetched.status, fetched.reason in REFUSED) == ("refused", True), fetched
    assert listener.num_connections == 0


@pytest.mark.parametrize("host", [host for host in HOSTS if "%" not in host and "\t" not in host and host.isascii()])
@pytest.mark.parametrize("scheme", ["http://", "https://", "//"])
def test_a_redirect_to_such_a_host(listener: Listener, site: Site, tmp_path: Path, host: str, scheme: str) -> None:
    url = site.url(f"/to/{scheme}{host}:{listener.port}/picture.jpg".replace(" ", "%20"), host="public.test")
    fetched = fetch(url, tmp_path)
    assert (fetched.status, fetched.reason in REFUSED) == ("refused", True), fetched
    assert listener.num_connections == 0


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "FILE:/etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/_GET",
        "dict://127.0.0.1/stats",
        "ldap://127.0.0.1/",
        "ws://127.0.0.1/",
        "unix:/var/run/docker.sock",
        "jar:http://127.0.0.1!/",
        "view-source:http://127.0.0.1/",
        "data:image/png;base64,iVBORw0KGgo=",
        "javascript:alert(1)",
    ],
)
def test_another_scheme_at_once_or_by_a_redirect(listener: Listener, site: Site, tmp_path: Path, target: str) -> None:
    for number, url in enumerate((target, site.url(f"/to/{target}", host="public.test"))):
        (folder := tmp_path / str(number)).mkdir()
        assert fetch(url, folder).reason == "refused_scheme"
    assert listener.num_connections == 0


@pytest.mark.parametrize("port", [22, 25, 110, 143, 2049, 6667, 10080])
def test_a_port_of_another_service(tmp_path: Path, port: int) -> None:
    assert fetch(f"http://public.test:{port}/", tmp_path).reason == "refused_port"


@pytest.mark.parametrize(
    "found",
    ["127.0.0.1", "::1", f"{PUBLIC} 127.0.0.1", f"127.0.0.1 {PUBLIC}", "::ffff:127.0.0.1", "169.254.169.254"],
)
def test_a_name_at_such_an_address(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    async def name_server(*_: object) -> list[str]:
        return found.split()

    monkeypatch.setattr(addresses, "look_up", name_server)
    fetched = fetch(f"http://inside.example:{listener.port}/picture.jpg", tmp_path)
    assert (fetched.status, fetched.reason) == ("refused", "refused_address")
    assert listener.num_connections == 0


@pytest.mark.parametrize("robots", [True, False])
def test_a_name_server_that_answers_differently_each_time(
    listener: Listener, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, robots: bool
) -> None:
    """The address that was checked is the one connected to; the second answer is never asked for."""
    answers = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])

    async def rebinding(*_: object) -> list[str]:
        return next(answers)

    monkeypatch.setattr(addresses, "look_up", rebinding)
    settings = SETTINGS.model_copy(update={"robots": robots})
    assert fetch(site.url("/redirect/3", host="rebinding.example"), tmp_path, settings).status == "received"
    assert next(answers) == ["127.0.0.1"]
    assert listener.num_connections == 0


def test_a_name_that_moves_inside_before_the_next_round(
    listener: Listener, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"first.example": PUBLIC, "second.example": "127.0.0.1"}

    async def name_server(host: str, *_: object) -> list[str]:
        return [found[host]]

    monkeypatch.setattr(addresses, "look_up", name_server)
    url = site.url(f"/to/http://second.example:{listener.port}/x", host="first.example")
    assert fetch(url, tmp_path).reason == "refused_address"
    assert listener.num_connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]"])
def test_a_redirect_of_robots_txt(listener: Listener, site: Site, tmp_path: Path, host: str) -> None:
    location = f"http://{host}:{listener.port}/robots.txt"
    site.robots["public.test"] = Robots(status=301, headers={"Location": location})
    assert fetch(site.url("/ok", host="public.test"), tmp_path).status == "received"
    assert listener.num_connections == 0


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_not_asked(
    listener: Listener, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    assert fetch(site.url("/ok", host="public.test"), tmp_path).status == "received"
    assert listener.num_connections == 0


def test_no_password_of_the_environment_is_sent(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine public.test login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    site.log.clear()
    assert fetch(site.url("/ok", host="public.test"), tmp_path).status == "received"
    assert not any("Authorization" in headers for _, headers in site.log)


@pytest.mark.parametrize(
    "path",
    [
        "/ok/../../../../etc/cron.d/x",
        "/ok/..%2f..%2f..%2fetc%2fpasswd",
        "/ok/%2e%2e/%2e%2e/x",
        "/ok/..\\..\\x",
        "/ok//etc/passwd",
        "/ok/x.jpg%00.sh",
        "/ok/" + "a" * 3000,
        "/header/Content-Disposition/attachment; filename=../../x",
        "/header/Content-Disposition/attachment; filename==etc=passwd",
        "/header/Content-Location/..%2f..%2fx",
    ],
)
def test_no_file_is_named_by_the_web(site: Site, tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    assert fetch(site.url(path, host="public.test"), tmp_path / "folder").status == "received"
    assert [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*")] == ["folder", "folder/spool"]


@pytest.mark.parametrize("path", ["/ok/\r\nHost: inside", "/ok\r\n\r\nGET /secret HTTP/1.1", "/ok\x00", "/ok\x7f"])
def test_no_line_is_put_into_a_request(site: Site, tmp_path: Path, path: str) -> None:
    assert fetch(site.url(path, host="public.test"), tmp_path).reason == "bad_url"


def test_no_line_comes_into_a_request_by_a_redirect(site: Site, tmp_path: Path) -> None:
    site.log.clear()
    url = site.url("/to/ok%0d%0aX-Injected:%20yes", host="public.test")
    fetch(url, tmp_path)
    assert not any("X-Injected" in headers for _, headers in site.log)


def test_with_private_addresses_allowed_the_same_url_reaches_the_listener(listener: Listener, tmp_path: Path) -> None:
    """So it is the check that keeps the others away. Allowing them is for tests on one machine."""
    before = listener.num_connections
    assert before == 0
    settings = SETTINGS.model_copy(update={"allow_private_addresses": True})
    fetch(f"http://127.1:{listener.port}/picture.jpg", tmp_path, settings)
    assert listener.num_connections > before
