"""Is anything of it left? Every byte below a folder is looked at: raw, and in tables and packs as it is read."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from carnac.core.errors import InputError
from carnac.core.places import Place, open_binary
from carnac.core.stores import store_errors
from carnac.core.taken_down import TakenDown
from carnac.engine.tables import open_part
from carnac.images.erase import BLOCK, members
from carnac.jobs.takedown_columns import Needles, known_values, leaves
from carnac.jobs.takedown_entries import Entries
from carnac.jobs.takedown_rows import Victims

BLOCK_BYTES = 4 << 20
OVERLAP_BYTES = 4096  # longer than a URL that is found
_TOKEN_END = re.compile(rb"[\s<>\"`{}|^\x00-\x1f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is searched for: entries as they were given, and what the record says of hashes and URLs."""

    words: tuple[str, ...]
    needles: Needles
    record: TakenDown

    @classmethod
    def of(cls, entries: Entries, record: TakenDown) -> Search:
        """Return the search for entries and all that they came to."""
        words = (*entries.hosts, *entries.sha256s)
        return cls(words=words, needles=Needles.of(words), record=record)

    def left_in(self, place: Place) -> Iterator[str]:
        """Yield a sentence for every kind of thing that a file still holds."""
        with store_errors(place), open_binary(place) as file:
            if any(self._mentioned_in(pa.array([block], pa.binary())) for block in _blocks(file)):
                yield f"{place}: names one of them"
            if place.name.endswith(".tar"):
                yield from self._left_in_pack(place, file)
        if place.name.endswith(".parquet"):
            yield from self._left_in_part(place)

    def _mentioned_in(self, values: pa.Array) -> bool:
        """Say whether one of some strings or binary values names an entry."""
        suspected = values.filter(pa.array(self.needles.found_in(values))).to_pylist()
        return any(
            self._mentions(value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass"))
            for value in suspected
        )

    def _mentions(self, block: bytes) -> bool:
        """Say whether bytes name an entry, plain or escaped as in HTML, JSON or a URL."""
        lower = block.lower()
        return any(self._is_mention(token) for word in self.words for token in _tokens(lower, block, word.encode()))

    def _is_mention(self, token: bytes) -> bool:
        text = token.decode("utf-8", "replace")
        return any(
            self.record.scrubbed(form) != form
            for form in {text, html.unescape(text), unquote(text), text.replace("\\", "")}
        )

    def _left_in_pack(self, place: Place, file: Any) -> Iterator[str]:
        try:
            for offset, name, size in list(members(file)):
                file.seek(offset + BLOCK)
                digest = hashlib.sha256(file.read(size)).hexdigest()
                if self.record.has_image(digest) or self.record.has_image(name.partition(".")[0]):
                    yield f"{place}: holds an image taken down, at offset {offset:,}"
        except ValueError:
            yield f"{place}: not read to its end, it is no whole pack"

    def _left_in_part(self, place: Place) -> Iterator[str]:
        try:
            with open_part(place) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, use_threads=False)
                    for name, column in zip(table.column_names, table.columns, strict=True):
                        for path, leaf, rows in leaves(name, column.combine_chunks()):
                            if self._left_in_values(path, leaf):
                                yield f"{place}: column {path} of the rows from {rows[0]} of row group {group} on"
        except InputError as error:
            yield str(error)

    def _left_in_values(self, path: str, leaf: pa.Array) -> bool:
        if pa.types.is_binary(leaf.type):
            payloads = leaf.drop_null().to_pylist()
            if any(self.record.has_image(hashlib.sha256(payload).hexdigest()) for payload in payloads):
                return True
        elif not pa.types.is_string(leaf.type):
            return False
        elif known_values(path, leaf, Victims(taken_down=self.record)).any():
            return True
        return self._mentioned_in(leaf)


def _blocks(file: Any) -> Iterator[bytes]:
    """Yield a file in blocks of which each begins with the end of the one before."""
    end = b""
    while piece := file.read(BLOCK_BYTES):
        yield end + piece
        end = piece[-OVERLAP_BYTES:]


def _tokens(lower: bytes, block: bytes, word: bytes) -> Iterator[bytes]:
    """Yield what stands around every place of a word, up to where no URL goes on."""
    place = lower.find(word)
    while place >= 0:
        start = max(0, place - OVERLAP_BYTES // 2)
        before = block[start:place]
        ends = [found.end() for found in _TOKEN_END.finditer(before)]
        after = block[place : place + OVERLAP_BYTES // 2]
        stop = _TOKEN_END.search(after)
        yield before[ends[-1] if ends else 0 :] + (after[: stop.start()] if stop else after)
        place = lower.find(word, place + len(word))
