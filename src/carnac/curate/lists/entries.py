"""Lists of what is not to be used -> tables of their entries, sorted by key, and look-ups in them.

A file has one entry a line; blank lines, and what stands behind a `#` at a line's beginning, are left out. Entries are
found by 64 bits and then compared whole, so that two different ones are never taken for one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.errors import InputError
from carnac.core.taken_down import MARK, host_key, url_key
from carnac.curate.lists.hashes import nearest, words_of

Kind = Literal["url", "domain", "sha256", "pdq", "phash"]
HASH_BYTES: dict[Kind, int] = {"sha256": 32, "pdq": 32, "phash": 8}
ENTRIES = pa.schema([("key", pa.uint64()), ("entry", pa.string()), ("file", pa.string())])
MAX_LABELS = 127  # a host name has at most 253 characters (RFC 1035)
_HOST = re.compile(r"[^\s/:@?#]+(\.[^\s/:@?#]+)*\.?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An entry that something stands on: as the list writes it, the file's name, the distance of hashes in bits."""

    entry: str
    file: str
    distance: int | None = None


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of one kind, but for those that were taken down since.

    `keys` (uint64[n]) ascend, `read(place)` returns an entry and its file's name. Of a long list the keys alone are
    held, 8 bytes each; entries are read when something has their key.
    """

    kind: Kind
    keys: npt.NDArray[np.uint64]
    read: Callable[[int], tuple[str, str]]
    words: npt.NDArray[np.uint64] | None = None

    @classmethod
    def of(cls, kind: Kind, table: pa.Table, read: Callable[[int], tuple[str, str]] | None = None) -> Entries:
        """Return the entries of a table of `ENTRIES`; of a kind that is no hash, with `read`, its keys are enough."""
        words = None
        if kind in HASH_BYTES:
            table = table.filter(pc.not_equal(table.column("entry"), MARK))
            hashes = [bytes.fromhex(entry) for entry in table.column("entry").to_pylist()]
            words = words_of(hashes, HASH_BYTES[kind])
        rows = table if read is None else None

        def row(place: int) -> tuple[str, str]:
            assert rows is not None
            return rows.column("entry")[place].as_py(), rows.column("file")[place].as_py()

        return cls(kind, table.column("key").to_numpy(), read or row, words)

    def match_url(self, url: str) -> Match | None:
        """Return the entry of a list of URLs that is this URL; scheme, fragment and spelling do not matter."""
        key = url_key(url)
        return self._equal(_key_of(self.kind, key), key)

    def match_host(self, url: str) -> Match | None:
        """Return the entry of a list of domains that the host of a URL is or lies below; the longest of several."""
        labels = host_of_url(url).split(".")[-MAX_LABELS:]
        names = (".".join(labels[place:]) for place in range(len(labels)))
        return next((match for name in names if (match := self._equal(_key_of(self.kind, name), name))), None)

    def match_sha256(self, sha256: str) -> Match | None:
        """Return the entry of a list of sha256 (hex)."""
        return self._equal(_key_of(self.kind, sha256.lower()), sha256.lower())

    def match_hashes(self, hashes: Sequence[bytes], max_distance: int) -> list[Match | None]:
        """Return, for each of some hashes, the nearest entry of a list of them within `max_distance` bits."""
        assert self.words is not None, f"{self.kind} is no hash"
        places, distances = nearest(words_of(hashes, HASH_BYTES[self.kind]), self.words, max_distance)
        return [
            None if place < 0 else self._match(place, distance)
            for place, distance in zip(places.tolist(), distances.tolist(), strict=True)
        ]

    def _equal(self, key: int, normal: str) -> Match | None:
        place = int(np.searchsorted(self.keys, np.uint64(key)))
        while place < len(self.keys) and self.keys[place] == key:
            match = self._match(place)
            if match.entry != MARK and normal_form(self.kind, match.entry) == normal:
                return match
            place += 1
        return None

    def _match(self, place: int, distance: int | None = None) -> Match:
        entry, file = self.read(place)
        return Match(entry=entry, file=file, distance=distance)


def entries_of(kind: Kind, lines: Iterable[tuple[str, int, str]]) -> pa.Table:
    """Return the table of entries (`ENTRIES`, one chunk) in `lines`: (file name, number, line).

    Of an entry that stands on several lines the first counts. Raises InputError for a line that holds no such entry.
    """
    found: dict[str, tuple[str, str]] = {}
    for file, number, line in lines:
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        try:
            found.setdefault(normal_form(kind, entry), (entry, file))
        except ValueError as error:
            raise InputError(
                f"{file}:{number}: got {entry[:100]!r}, wanted {error}, one a line. Mend the line, or give the file to "
                "the list that it belongs to."
            ) from None
    keys = np.array([_key_of(kind, normal) for normal in found], np.uint64)
    order = np.argsort(keys, kind="stable")
    entries, files = ([pair[side] for pair in found.values()] for side in (0, 1))
    columns = [pa.array(keys), pa.array(entries, pa.string()), pa.array(files, pa.string())]
    return pa.table([column.take(order) for column in columns], schema=ENTRIES)


def normal_form(kind: Kind, entry: str) -> str:
    """Return what makes an entry the same as another. Raises ValueError, saying what was wanted, for none."""
    if kind == "url":
        if not re.fullmatch(r"(?i)([a-z][a-z0-9+.-]*:)?//\S+|[^\s/]+\.[^\s/]+(/\S*)?", entry):
            raise ValueError("a URL")
        return url_key(entry)
    if kind == "domain":
        if not _HOST.fullmatch(entry):
            raise ValueError("a domain such as stones.example")
        return host_key(entry)
    digits = 2 * HASH_BYTES[kind]
    if not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", entry):
        raise ValueError(f"{digits} hex digits")
    return entry.lower()


def host_of_url(url: str) -> str:
    """Return the host of a URL, in lower case and ASCII, without its port."""
    authority = url_key(url).partition("/")[0]
    host, colon, port = authority.rpartition(":")
    return host if colon and port.isdecimal() else authority


def lines_of(files: Iterable[tuple[str, Iterable[str]]]) -> Iterator[tuple[str, int, str]]:
    """Yield (file name, number, line) of the lines of files."""
    for name, lines in files:
        for number, line in enumerate(lines, 1):
            yield name, number, line


def _key_of(kind: Kind, normal: str) -> int:
    if kind in HASH_BYTES:
        return int(normal[:16], 16)
    return int.from_bytes(hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
