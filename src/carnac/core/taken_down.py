"""What must never come back: URLs, domains and images that were taken down, known by digests alone.

The record is `takedown.json`. One lies in every folder that a take-down looked at, and counts for all folders below it.
It holds no URL, name or hash that a reader could use: of each entry the first 128 bits of a BLAKE2b digest (RFC 7693),
personalised by kind. Who knows an entry can ask whether it is there; a list of all domain names can be tried too.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from carnac.core.errors import InputError
from carnac.core.places import Place, is_local, read_bytes

RECORD = "takedown.json"
MARK = "urn:carnac:taken-down"  # stands where a URL was; a URN (RFC 8141) that no fetcher asks for
VERSION = 1
DIGEST_BYTES = 16
MAX_LABELS = 127  # a host name has at most 253 characters (RFC 1035)

_URL_CHARACTER = r"[^\s<>\"`{}|\\^]"
# Possessive, and never begun within a word: linear in the text, also in a megabyte without a space.
_HOST = r"(?<![\w.-])[\w-]++(?:\.[\w-]++)+"
_MENTION = re.compile(rf"https?://{_URL_CHARACTER}++|{_HOST}(?::\d+)?(?:[/?#]{_URL_CHARACTER}*+)?", re.IGNORECASE)
_TRAILING = ".,;:!?'\")]*_\u2019\u201d"  # what a sentence puts behind a URL
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986, 2.3
_SHA256 = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])")


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenDown:
    """Digests of what was taken down: of `url_key`, `host_key`, and of sha256 values of images (hex, lower case)."""

    urls: frozenset[bytes] = frozenset()
    domains: frozenset[bytes] = frozenset()
    images: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, *, urls: Iterable[str] = (), domains: Iterable[str] = (), images: Iterable[str] = ()) -> TakenDown:
        """Return the record of entries as they were given."""
        return cls(
            urls=frozenset(_digest("url", url_key(url)) for url in urls),
            domains=frozenset(_digest("domain", host_key(domain)) for domain in domains),
            images=frozenset(_digest("sha256", sha256.lower()) for sha256 in images),
        )

    @classmethod
    def read(cls, folders: Sequence[Place]) -> TakenDown:
        """Return what the records of `folders`, and of all folders above them, say together; none says nothing.

        Raises InputError where one is damaged: what it keeps out must not come back unseen.
        """
        places = {str(place): place for folder in folders for place in _with_parents(folder)}
        return cls().merged(*(_read(place / RECORD) for place in places.values()))

    def merged(self, *others: TakenDown) -> TakenDown:
        """Return the record of all that this and others hold."""
        every = (self, *others)
        return TakenDown(
            urls=frozenset().union(*(record.urls for record in every)),
            domains=frozenset().union(*(record.domains for record in every)),
            images=frozenset().union(*(record.images for record in every)),
        )

    def __bool__(self) -> bool:
        """Say whether anything was taken down."""
        return bool(self.urls or self.domains or self.images)

    def has_url(self, url: str | None) -> bool:
        """Say whether a URL was taken down, or lies on a taken-down domain or below one, or names such a URL in itself.

        The last is how proxies and archives are asked for another's image. http and https are one here.
        """
        if not url or not (self.urls or self.domains) or "://" not in url:
            return False
        return self._has_mention(url) or any(self._has_mention(inner) for inner in _inner(url))

    def has_host(self, host: str) -> bool:
        """Say whether a host is a taken-down domain or below one."""
        labels = host_key(host).split(".")[-MAX_LABELS:] if self.domains else []
        return any(_digest("domain", ".".join(labels[place:])) in self.domains for place in range(len(labels)))

    def has_image(self, *sha256s: str | None) -> bool:
        """Say whether one of these sha256 values (hex) is that of an image taken down. None is of none."""
        return bool(self.images) and any(
            sha256 is not None and _digest("sha256", sha256.lower()) in self.images for sha256 in sha256s
        )

    def scrubbed(self, text: str) -> str:
        """Return `text` with `MARK` in place of every URL, domain name and sha256 in it that was taken down."""
        if (self.urls or self.domains) and ("." in text or "://" in text):
            text = _MENTION.sub(self._replacement, text)
        if self.images and len(text) >= 64:
            text = _SHA256.sub(lambda found: MARK if self.has_image(found[0]) else found[0], text)
        return text

    @property
    def digest(self) -> str:
        """A sha256 (hex) of all entries; empty where there are none."""
        return hashlib.sha256(self.to_json()).hexdigest() if self else ""

    def to_json(self) -> bytes:
        """Return the content of `takedown.json`."""
        fields = {name: sorted(entry.hex() for entry in getattr(self, name)) for name in TakenDown.__slots__}
        return (json.dumps({"version": VERSION, **fields}, indent=0) + "\n").encode()

    def _has_mention(self, url: str) -> bool:
        """Say whether a URL, with or without its scheme, was taken down or its host was."""
        key = url_key(url)
        return _digest("url", key) in self.urls or self.has_host(_host_of(key))

    def _replacement(self, found: re.Match[str]) -> str:
        token = found[0]
        shorter = token.rstrip(_TRAILING)
        for url in (token, shorter):
            if self._has_mention(url) or any(self._has_mention(inner) for inner in _inner(url)):
                return MARK + token[len(url) :]
        return token


NOTHING = TakenDown()  # of a folder in which nothing was taken down


def url_key(url: str) -> str:
    """Return what makes a URL the same as another: host (lower case, ASCII), port unless usual, path and query.

    Scheme, user and fragment are left out; percent-encoding is that of RFC 3986, section 6.2.2.
    """
    rest = url.strip().partition("#")[0]
    rest = rest.partition("://")[2] if "://" in rest[:12] else rest.removeprefix("//")
    stop = next((place for place, character in enumerate(rest) if character in "/?"), len(rest))
    authority, path = rest[:stop].rpartition("@")[2], rest[stop:]
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdecimal():
        host, port = authority.removesuffix(":"), ""
    port = "" if port in ("", "80", "443") else f":{port}"
    if not path.isascii() or " " in path:
        path = quote(path, safe="%!#$&'()*+,/:;=?@[]~")
    path = _ENCODED.sub(_normal, path) if "%" in path else path
    return f"{host_key(host)}{port}{path if path.startswith('/') else f'/{path}'}"


def host_key(host: str) -> str:
    """Return a host name in lower case and ASCII (IDNA), without the dot of the root and without `*.` before it."""
    name = host.strip().lower().rstrip(".").removeprefix("*.").removeprefix(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            return name
    return name


def _host_of(key: str) -> str:
    authority = key.partition("/")[0]
    host, colon, port = authority.rpartition(":")
    return host if colon and port.isdecimal() else authority


def _inner(url: str) -> Iterator[str]:
    """Yield the URLs that a URL names in its path or query, as it is and decoded, whole and up to the next `&`."""
    _, slash, path = (url.partition("://")[2] or url).partition("/")
    if not slash or "." not in path:
        return
    decoded = unquote(path) if "%" in path else path
    for text in dict.fromkeys((path, decoded)):
        for found in _MENTION.finditer(text):
            yield found[0]
            if "&" in found[0]:
                yield found[0].partition("&")[0]


def _normal(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0].upper()


def _digest(kind: str, value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES, person=kind.encode()).digest()


def _with_parents(folder: Place) -> list[Place]:
    if is_local(folder):
        folder = folder.absolute()
    return [folder, *folder.parents]


def _read(place: Place) -> TakenDown:
    try:
        content = read_bytes(place)
    except (FileNotFoundError, NotADirectoryError):
        return TakenDown()
    except OSError as error:
        if isinstance(error, PermissionError) and not is_local(place):
            return TakenDown()  # whom a store gives one prefix, it answers so for all names outside
        raise InputError(f"{place}: cannot be read ({error.strerror}). It says what to leave out; mend it.") from None
    return _parsed(str(place), content)


@functools.lru_cache(maxsize=64)
def _parsed(place: str, content: bytes) -> TakenDown:
    """Return the record in a file's content; those of all folders of a run are often the same."""
    try:
        fields: dict[str, Any] = json.loads(content)
        if fields["version"] != VERSION:
            raise ValueError(f"version {fields['version']}, wanted {VERSION}")
        return TakenDown(**{name: _decoded(fields[name]) for name in TakenDown.__slots__})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{place}: damaged ({type(error).__name__}: {error}). It says what was taken down: bring it back from a "
            "copy, or from another folder of the same run, where it is the same."
        ) from None


def _decoded(entries: list[str]) -> frozenset[bytes]:
    found = frozenset(bytes.fromhex(entry) for entry in entries)
    if any(len(entry) != DIGEST_BYTES for entry in found):
        raise ValueError(f"wanted digests of {2 * DIGEST_BYTES} hex digits")
    return found
