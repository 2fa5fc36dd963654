"""A web of hosts that behave and hosts that do not: which URLs it has, and what is to become of each.

A host is called KIND-NUMBER.example-web.test. Its kind decides on robots.txt, the path of a URL on everything else
(`fetching_answers`). Everything here is a pure function of a few numbers, the same in the server and in a test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

DOMAIN = "example-web.test"
EXTENSIONS = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}
PRIVATE_ADDRESSES = ("127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.0.1")
PUBLIC_ADDRESS = "198.41.0.9"  # of a network that has no cable: any address that is public will do

# What may be wrong with an answer, and how it may end; None: whatever, as long as nothing of it is kept.
FLAWS: dict[str, tuple[str, ...]] = {
    "missing": ("http_404",),
    "failing": ("http_500",),
    "page": ("not_an_image",),  # HTML that says it is a JPEG
    "empty": ("empty", "not_an_image"),
    "endless": ("too_many_bytes",),
    "long": ("too_many_bytes",),  # announces 10 GB
    "short": ("connection_failed", "truncated_image"),  # announces more than it sends
    "over": ("truncated_image", "bad_response"),  # announces less than it sends
    "cut": ("connection_failed",),
    "garbage": ("bad_response",),
    "slow": ("timeout",),
    "silent": ("timeout",),
    "gzip_bomb": ("too_many_bytes",),
    "pixel_bomb": ("too_many_pixels",),
    "headers": ("bad_response",),
    "loop": ("too_many_redirects", "redirect_loop"),
    "to_file": ("refused_scheme",),
    "to_ftp": ("refused_scheme",),
    "to_user": ("bad_url",),
    "damaged": ("truncated_image", "undecodable"),
}
# What looks odd and is a picture all the same.
ODDITIES = ("unlabelled", "text_type", "hop", "chunked", "gzip", "other_agent", "encoded")
OBJECTIONS = ("noai", "noimageai", "noindex", "none", "carnac: noai", "tdm", "train-ai")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A URL, and what is to become of it.

    `picture` is the number of the picture that is to be kept; None: nothing, for one of `reasons` (any, if empty).
    With `is_forbidden`, the URL must never be asked for.
    """

    url: str
    picture: int | None = None
    reasons: tuple[str, ...] = ()
    is_forbidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """How large a web is, and its ports. `is_isolated`: it has a network of its own, with private addresses too."""

    port: int
    dead_port: int
    num_hosts: int = 20
    pictures_per_host: int = 10
    num_others: int = 1  # hosts of each of the other kinds
    is_isolated: bool = False

    def url(self, kind: str, number: int, path: str) -> str:
        """Return a URL of a host."""
        return f"http://{kind}-{number:03d}.{DOMAIN}:{self.port}{path}"


def links(site: Site) -> list[Link]:
    """Return every URL of the web, each once."""
    numbers = iter(range(10**9))  # of pictures: each belongs to one URL
    made = [*_good(site, numbers), *_odd(site, numbers)]
    for number in range(site.num_others):
        made += _ruled(site, number, numbers)
        made += _unwilling(site, number, numbers)
    return [*made, *(_private(site) if site.is_isolated else ())]


def loopback_addresses(number: int) -> list[str]:
    """Return addresses of this machine that stand for as many hosts."""
    return [f"127.0.{1 + place // 250}.{1 + place % 250}" for place in range(number)]


def _path(picture: int, folder: str = "good") -> str:
    from fetching_pictures import kind_of

    return f"/{folder}/{picture}{EXTENSIONS[kind_of(picture)]}"


def _good(site: Site, numbers: Iterator[int]) -> Iterator[Link]:
    """Hosts on which all is well; in most paths stands an extension, in some a query, or what must be quoted."""
    for host in range(site.num_hosts):
        for place in range(site.pictures_per_host):
            picture = next(numbers)
            ending = ("", f"?size=large&id={place}", "?q=%20%2F..%2Fx", "")[picture % 4]
            yield Link(url=site.url("good", host, _path(picture) + ending), picture=picture)


def _odd(site: Site, numbers: Iterator[int]) -> Iterator[Link]:
    """One host for each flaw and oddity, with good pictures beside it."""
    kinds = [*FLAWS, *ODDITIES]
    for number in range(site.num_others * len(kinds)):
        kind = kinds[number % len(kinds)]
        picture = next(numbers)
        url = site.url("odd", number, _path(picture, kind))
        yield Link(url=url, reasons=FLAWS[kind]) if kind in FLAWS else Link(url=url, picture=picture)
        for _ in range(3):
            picture = next(numbers)
            yield Link(url=site.url("odd", number, _path(picture)), picture=picture)


def _ruled(site: Site, number: int, numbers: Iterator[int]) -> Iterator[Link]:
    """Hosts whose robots.txt says something."""
    for kind in ("forbidden", "forbidden-us", "ailing", "tarpit"):
        reasons = ("robots_forbidden",) if kind.startswith("forbidden") else ("robots_unreachable", "host_down")
        for _ in range(3):
            yield Link(url=site.url(kind, number, _path(next(numbers))), reasons=reasons, is_forbidden=True)
    for kind in ("partly", "verbose", "led"):
        for _ in range(3):
            private = site.url(kind, number, _path(next(numbers), "private"))
            yield Link(url=private, reasons=("robots_forbidden",), is_forbidden=True)
            picture = next(numbers)
            yield Link(url=site.url(kind, number, _path(picture)), picture=picture)
    for kind in ("patient", "babbling"):
        for _ in range(4):
            picture = next(numbers)
            yield Link(url=site.url(kind, number, _path(picture)), picture=picture)


def _unwilling(site: Site, number: int, numbers: Iterator[int]) -> Iterator[Link]:
    """Hosts that object, that have no time, that are not there, and that send one elsewhere."""
    for place in range(len(OBJECTIONS)):
        path = _path(next(numbers), f"objecting{place}")
        yield Link(url=site.url("objecting", number, path), reasons=("opted_out",))
    for kind in ("busy", "unavailable"):
        for place in range(6):
            picture = next(numbers)
            yield Link(url=site.url(kind, number, _path(picture, kind if place == 0 else "good")), picture=picture)
    for _ in range(2):
        reasons = ("retry_after", "http_429")
        yield Link(url=site.url("overrun", number, _path(next(numbers), "overrun")), reasons=reasons)
    picture = next(numbers)
    yield Link(url=site.url("moving", number, _path(picture, "moved")), picture=picture)
    for _ in range(8):
        dead = site.url("dead", number, _path(next(numbers))).replace(f":{site.port}/", f":{site.dead_port}/")
        yield Link(url=dead, reasons=("connection_failed", "host_down", "robots_unreachable"), is_forbidden=True)
    tls = site.url("good", number, _path(next(numbers))).replace("http:", "https:")
    yield Link(url=tls, reasons=("connection_failed", "host_down", "robots_unreachable"), is_forbidden=True)
    # No label is longer than 63 letters: this host has no address, whatever name server is asked.
    unknown = f"http://{'x' * 64}.{number}.invalid:{site.port}{_path(next(numbers))}"
    yield Link(url=unknown, reasons=("bad_url", "connection_failed", "robots_unreachable", "host_down"))


def _private(site: Site) -> Iterator[Link]:
    """Ways to addresses that are none of the public web's, on all of which somebody listens."""
    spellings = ("127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254")
    for number, spelling in enumerate(spellings):
        url = f"http://{spelling}:{site.port}/good/{number}.jpg"
        yield Link(url=url, reasons=("refused_address", "bad_url"), is_forbidden=True)
    for number, address in enumerate(PRIVATE_ADDRESSES):
        reasons = ("refused_address", "bad_url")
        yield Link(url=site.url("luring", 0, f"/lure{number}/{address}.jpg"), reasons=reasons)
