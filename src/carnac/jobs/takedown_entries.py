"""What a user wants taken down, as given: URLs, domains, sha256 values, and lists of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from carnac.core.errors import InputError
from carnac.core.taken_down import TakenDown, host_key, url_key

Kind = Literal["url", "domain", "sha256"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)+")
_ADDRESS = re.compile(r"[0-9.]+|\[[0-9a-f:.]+\]")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """What is to be taken down, each once, in the order given."""

    urls: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    sha256s: tuple[str, ...] = ()

    @property
    def taken_down(self) -> TakenDown:
        """The record of them."""
        return TakenDown.of(urls=self.urls, domains=self.domains, images=self.sha256s)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host that an entry names: only what mentions one of these can name a URL or a domain."""
        hosts = (*map(host_key, self.domains), *(url_key(url).partition("/")[0] for url in self.urls))
        ascii_hosts = [re.sub(r":\d+$", "", host) for host in hosts]
        return tuple(dict.fromkeys((*ascii_hosts, *map(_as_read, ascii_hosts))))

    def __len__(self) -> int:
        """Number of entries."""
        return len(self.urls) + len(self.domains) + len(self.sha256s)


def _as_read(host: str) -> str:
    """Return a host name as people write it: of an IDNA name its own letters."""
    try:
        return host.encode().decode("idna") if "xn--" in host else host
    except UnicodeError:
        return host


def entries_of(given: Mapping[Kind, Sequence[str]], lists: Sequence[Path]) -> Entries:
    """Return the entries given one by one and in files. Raises InputError with the first that is none."""
    found: dict[Kind, dict[str, None]] = {kind: {} for kind in KINDS}
    for kind, values in given.items():
        found[kind].update((_checked(kind, value, f"--{kind}"), None) for value in values)
    for file in lists:
        for number, line in enumerate(_lines(file), 1):
            text = line.partition(" #")[0].strip()
            if not text or text.startswith("#"):
                continue
            kind, value = _told(text)
            found[kind][_checked(kind, value, f"{file}, line {number}")] = None
    entries = Entries(urls=tuple(found["url"]), domains=tuple(found["domain"]), sha256s=tuple(found["sha256"]))
    if not entries:
        raise InputError("nothing to take down: wanted --url, --domain, --sha256 or --list with at least one entry.")
    return entries


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}). Wanted a list, an entry on a line.") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not a text in UTF-8. Wanted a list, an entry on a line.") from None


def _told(text: str) -> tuple[Kind, str]:
    """Return the kind of a line and its value: `url|domain|sha256 VALUE`, or a bare value that tells its kind."""
    word, _, rest = text.partition(" ")
    for kind in KINDS:
        if word.lower() == kind and rest.strip():
            return kind, rest.strip()
    if "://" in text:
        return "url", text
    return ("sha256", text) if _SHA256.fullmatch(text) else ("domain", text)


def _checked(kind: Kind, value: str, where: str) -> str:
    """Return a value as it is kept. Raises InputError where it is none of its kind."""
    value = value.strip()
    if kind == "sha256":
        if not _SHA256.fullmatch(value):
            raise InputError(f"{where}: got {value[:100]!r}, wanted a sha256: 64 hex digits.")
        return value.lower()
    if kind == "url":
        scheme, mark, rest = value.partition("://")
        if scheme.lower() not in ("http", "https") or not mark or not rest.strip("/") or re.search(r"\s", value):
            raise InputError(f"{where}: got {value[:100]!r}, wanted a URL: http(s)://HOST/PATH.")
        return value
    host = host_key(value)
    if not (_HOST.fullmatch(host) or _ADDRESS.fullmatch(host)):
        raise InputError(
            f"{where}: got {value[:100]!r}, wanted a domain such as example.org, without scheme, port and path. "
            "A whole top-level domain is none."
        )
    return host
