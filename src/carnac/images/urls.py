"""Text that a page or a server calls a URL -> where it may be asked for, in one spelling, or the reason why not.

What is taken is what RFC 3986 means and the WHATWG URL standard reads alike; where readers differ (backslashes, user
names, percent signs in a host, control characters), the URL is refused: a check and a connection that read a URL
differently are how crawlers are led astray. Numbers that systems take for addresses (2130706433, 0x7f.1, 0177.0.0.1)
become the address they stand for, so that it can be checked.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin

import idna

from carnac.core.errors import RecordError

PORTS = {"http": 80, "https": 443}
MAX_CHARACTERS = 8000  # of a URL; RFC 9110, 4.1 has servers take that many octets, most take no more
MAX_HOST_CHARACTERS = 253  # RFC 1035, 2.3.4
SHOWN_CHARACTERS = 200  # of a URL, in a detail

# Ports of other services, at which a request line might be taken for a command: those that the WHATWG fetch standard
# blocks (section 2.9, "bad port").
# fmt: off
BAD_PORTS = frozenset((
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
    110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
    531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190,
    5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
))
# fmt: on

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PARTS = re.compile(r"//([^/?#\\]*)(\\?)([^#]*)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9!$%&'()*+,\-./:;=?@\[\]_|~]*")
_SAFE = "!$%&'()*+,/:;=?@[]|~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is asked for, of whom: `path` holds the query too and is ready for the request line.

    `host` is a name in lower case and ASCII without a final dot, or an address in its usual form (IPv6 without
    brackets). `origin` is scheme, host and port (RFC 6454): one robots.txt.
    """

    scheme: str
    host: str
    port: int
    path: str
    origin: str

    @property
    def url(self) -> str:
        """The URL as text."""
        return self.origin + self.path


def parse_url(text: str, base: Target | None = None) -> Target:
    """Return where `text` is to be asked for, relative to `base` if given.

    Raises `RecordError`: `bad_url` (no host, credentials, not a URL), `refused_scheme` (neither http nor https) or
    `refused_port`.
    """
    text = text.strip(" \t\r\n\f")
    if len(text) > MAX_CHARACTERS:
        raise RecordError("bad_url", f"{len(text)} characters, at most {MAX_CHARACTERS}")
    if _CONTROL.search(text):
        raise RecordError("bad_url", f"control characters in {text[:SHOWN_CHARACTERS]!r}")
    if base is not None:
        try:
            text = urljoin(base.url, text)
        except ValueError as error:
            raise RecordError("bad_url", f"{text[:SHOWN_CHARACTERS]!r}: {error}") from error
    scheme = _scheme(text)
    parts = _PARTS.match(text, len(scheme) + 1)
    if parts is None or not parts[1]:
        raise RecordError("bad_url", f"{text[:SHOWN_CHARACTERS]!r} has no host")
    if "@" in parts[1]:
        raise RecordError("bad_url", f"credentials in a URL of {parts[1].rpartition('@')[2][:SHOWN_CHARACTERS]!r}")
    if parts[2]:
        raise RecordError("bad_url", "a backslash beside the host")
    host, port = _host_and_port(parts[1], scheme)
    shown = f"[{host}]" if ":" in host else host
    origin = f"{scheme}://{shown}" if port == PORTS[scheme] else f"{scheme}://{shown}:{port}"
    return Target(scheme=scheme, host=host, port=port, path=_path(parts[3]), origin=origin)


def host_of(url: str) -> str:
    """Return the host that `url` is asked of, in its one spelling; "" where it cannot be asked for."""
    try:
        return parse_url(url).host
    except RecordError:
        return ""


def _scheme(text: str) -> str:
    found = _SCHEME.match(text)
    if found is None:
        raise RecordError("bad_url", f"{text[:SHOWN_CHARACTERS]!r} has no scheme")
    scheme = found[1].lower()
    if scheme not in PORTS:
        raise RecordError("refused_scheme", f"{scheme[:40]} in {text[:SHOWN_CHARACTERS]!r}")
    return scheme


def _host_and_port(authority: str, scheme: str) -> tuple[str, int]:
    if authority.startswith("["):
        inner, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise RecordError("bad_url", f"{authority[:SHOWN_CHARACTERS]!r} is no host")
        return _ipv6(inner), _port(rest[1:], scheme)
    name, _, port = authority.partition(":")
    return _name(name), _port(port, scheme)


def _port(text: str, scheme: str) -> int:
    if not text:
        return PORTS[scheme]
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise RecordError("bad_url", f"port {text[:40]!r}")
    if int(text) in BAD_PORTS:
        raise RecordError("refused_port", f"port {text} is that of another service")
    return int(text)


def _ipv6(text: str) -> str:
    try:
        if "%" in text:
            raise ValueError("a zone is for this machine to choose")
        return str(ipaddress.IPv6Address(text))
    except ValueError as error:
        raise RecordError("bad_url", f"[{text[:SHOWN_CHARACTERS]}] is no address: {error}") from error


def _name(text: str) -> str:
    """Return a name in lower case and ASCII, or the address that a number stands for."""
    name = text.lower()
    if not name.isascii():
        try:
            # With the mapping of UTS 46: full-width digits and ideographic dots are how 127.0.0.1 is written too.
            name = idna.encode(name[: MAX_HOST_CHARACTERS + 1], uts46=True).decode()
        except UnicodeError as error:
            raise RecordError("bad_url", f"{text[:SHOWN_CHARACTERS]!r} is no host: {error}") from error
    name = name.removesuffix(".")
    if len(name) > MAX_HOST_CHARACTERS or not _NAME.fullmatch(name):
        raise RecordError("bad_url", f"{text[:SHOWN_CHARACTERS]!r} is no host")
    return _ipv4(name) if _NUMBER.fullmatch(name.rpartition(".")[2]) else name


def _ipv4(name: str) -> str:
    """Return the address that `name` stands for, as the WHATWG URL standard reads it (section 3.5)."""
    labels = name.split(".")
    if len(labels) > 4 or not all(_NUMBER.fullmatch(label) for label in labels):
        raise RecordError("bad_url", f"{name[:SHOWN_CHARACTERS]!r} is no address")
    try:
        *first, last = [_number(label) for label in labels]
    except ValueError as error:
        raise RecordError("bad_url", f"{name[:SHOWN_CHARACTERS]!r} is no address") from error
    if any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        raise RecordError("bad_url", f"{name[:SHOWN_CHARACTERS]!r} is no address")
    return str(ipaddress.IPv4Address(last + sum(number << (24 - 8 * place) for place, number in enumerate(first))))


def _number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    return int(label, 8 if label.startswith("0") and label != "0" else 10)


def _path(text: str) -> str:
    """Return path and query as they stand in a request line: what is not ASCII, as UTF-8 behind percent signs."""
    path = text if text.startswith("/") else f"/{text}"
    if _PLAIN_PATH.fullmatch(path):
        return path
    try:
        return quote(path, safe=_SAFE)
    except UnicodeError as error:
        raise RecordError("bad_url", f"{text[:SHOWN_CHARACTERS]!r}: {error}") from error
