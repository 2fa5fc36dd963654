"""One record in the folder of a crawl: a document by its id, or one that was lost by its name."""

from __future__ import annotations

import contextlib
import difflib
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow.compute as pc

from carnac.core.document import Document
from carnac.core.errors import InputError
from carnac.core.places import Place, place_of
from carnac.core.schema import document_from_row
from carnac.engine.ledger import Quarantined, read_ledger
from carnac.engine.manifest import Manifest, PartEntry, read_listed
from carnac.engine.tables import read_batches
from carnac.report.fate import Location, PassFate, read_fate
from carnac.report.fate_text import dropped_blocks, fate_lines
from carnac.report.folders import StageFolder, find_folders
from carnac.report.layout import WIDTH, flat, shell_word
from carnac.report.stored_pages import Sought
from carnac.report.story import names_in, pass_names
from carnac.serve.terminal import printable

MAX_COMPARED = 10_000  # ids among which a similar one is looked for
MIN_BEGINNING = 4  # characters of an id that stand for it
MAX_TEXT = 800  # characters of a block in a terminal
MAX_ROWS = 12
_LOST = re.compile(r"(?P<file>.*)@(?P<offset>\d+)(?:#(?P<number>\d+))?(?:~\d+)?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A record in the folder of a crawl: a document, or one that was lost.

    `fate` is what the passes that judged the document did to it, where their folders lie in the one that is shown.
    """

    manifest: Manifest
    document: Document | None = None
    lost: Quarantined | None = None
    fate: tuple[PassFate, ...] = ()

    @property
    def name(self) -> str:
        """How the record is asked for."""
        if self.document is not None:
            return self.document.id
        return "" if self.lost is None else self.lost.record

    @property
    def sought(self) -> Sought:
        """What to look for where the crawl read."""
        if self.document is not None:
            told = self.document
            return Sought(file=told.warc_file, offset=told.warc_offset, id=told.id)
        assert self.lost is not None
        place = None if "pages" in self.manifest.inputs else _LOST.fullmatch(self.lost.record)
        if place is None:
            return Sought(file=self.lost.record, offset=0, id=None)
        return Sought(file=place["file"], offset=int(place["offset"]), id=None, number=int(place["number"] or 0))


def find_record(folder: Place, wanted: str) -> Found:
    """Return a document by its id, the beginning of it, or its URL; or a lost record by its name.

    `folder` is a crawl's, that of a curate recipe made of one, or holds one of them. Raises InputError when there is
    none, or several ids begin so.
    """
    names = names_in(folder)
    folders = list(find_folders(folder, names))
    crawls = [found.content for found in folders if found.stage == "documents"] or _judged_crawls(folders)
    if not crawls:
        raise InputError(f"{folder}: holds no documents. Wanted the folder of a crawl, or of a run with one.")
    matches: dict[str, _Location] = {}
    for manifest in crawls:
        for id_, place in _matches(manifest, wanted):
            matches.setdefault(id_, place)  # a page that was read twice is two documents: the first is shown
    exact = matches.get(wanted)
    if exact is None and len(matches) > 1 and "://" not in wanted:
        some = ", ".join(sorted(matches)[:3])
        raise InputError(f"{folder}: {len(matches)} ids begin with {wanted}: {some} ... Wanted one of them.")
    if matches:
        manifest, part, row = exact or next(iter(matches.values()))
        document = _document(part, row)
        where = Location(id=document.id, unit=part.unit, row=row)
        return Found(manifest=manifest, document=document, fate=read_fate(folders, pass_names(folder, names), where))
    for manifest in crawls:
        for lost in _lost(manifest):
            if lost.record == wanted:
                return Found(manifest=manifest, lost=lost)
    raise InputError(_no_such(folder, crawls, wanted))


_Location = tuple[Manifest, PartEntry, int]


def _judged_crawls(folders: Sequence[StageFolder]) -> list[Manifest]:
    """Return the crawls that signals were taken of, where they still lie where they lay."""
    crawls = []
    for folder in folders:
        place = folder.content.inputs.get("documents") if folder.stage == "signals" else None
        if isinstance(place, str):
            with contextlib.suppress(InputError, ValueError):
                crawls.append(read_listed(place_of(place), "documents"))
    return crawls


def _matches(manifest: Manifest, wanted: str) -> Iterator[tuple[str, _Location]]:
    """Yield the ids of the documents that are meant, each with its part and row there."""
    is_url = "://" in wanted
    if not is_url and len(wanted) < MIN_BEGINNING:
        return
    for part in manifest.parts:
        start = 0
        for batch in read_batches(part.path, ["id", "url"]):
            is_meant = pc.equal(batch["url"], wanted) if is_url else pc.starts_with(batch["id"], wanted)
            for row in pc.indices_nonzero(is_meant).to_pylist():
                yield batch["id"][row].as_py(), (manifest, part, start + row)
            start += batch.num_rows


def _lost(manifest: Manifest) -> Iterator[Quarantined]:
    for part in manifest.parts:
        if any(name.startswith("lost.") for name in part.counts):
            yield from read_ledger(part.path).quarantine


def _document(part: PartEntry, row: int) -> Document:
    for batch in read_batches(part.path):
        if row < batch.num_rows:
            return document_from_row(batch.slice(row, 1).to_pylist()[0])
        row -= batch.num_rows
    raise InputError(f"{part.path}: changed while it was read. Try again.")


def _ids(crawls: Sequence[Manifest]) -> Iterator[str]:
    for part in (part for manifest in crawls for part in manifest.parts):
        for batch in read_batches(part.path, ["id"]):
            yield from batch["id"].to_pylist()


def _no_such(folder: Place, crawls: Sequence[Manifest], wanted: str) -> str:
    ids = list(islice(_ids(crawls), MAX_COMPARED))
    near = difflib.get_close_matches(wanted, ids, n=1)
    number = sum(manifest.rows for manifest in crawls)
    hint = f"Did you mean {near[0]}?" if near else f"One is {ids[0]}." if ids else ""
    what = f"{folder}: none of its {number:,} documents has the id {wanted!r}, and no lost record that name."
    return f"{what} {hint}".rstrip()


def facts(found: Found) -> list[tuple[str, str]]:
    """Return what is known of a record as names and values, without what is not."""
    if found.document is None:
        assert found.lost is not None
        lost = found.lost
        return [("record", lost.record), ("lost", f"{lost.reason}: {lost.detail}")]
    told = found.document
    score = "" if told.language_score is None else f" ({told.language_score:.2f})"
    values = {
        "id": told.id,
        "url": told.url,
        "record": f"{told.warc_file}@{told.warc_offset}",
        "fetched": told.fetched_at,
        "title": told.title,
        "canonical url": told.canonical_url,
        "published": told.published_at,
        "author": told.author,
        "site": told.site,
        "licence": " ".join(filter(None, (told.licence, told.licence_url))),
        "reservations": ", ".join(told.reservations),
        "language": f"{told.language}{score}" if told.language else None,
        "blocks": f"{len(told.kinds):,}, {sum(image is not None for image in told.images):,} of them pictures",
    }
    return [(name, flat(value)) for name, value in values.items() if value]


def _lines(text: str) -> Iterator[str]:
    """Yield the first lines of a text, wrapped: a list or a listing keeps its own."""
    rows = text[:MAX_TEXT].splitlines()
    for row in rows[:MAX_ROWS]:
        yield textwrap.fill(row, WIDTH, initial_indent="  ", subsequent_indent="    ", replace_whitespace=False)
    if len(text) > MAX_TEXT or len(rows) > MAX_ROWS:
        yield f"  ... {len(text):,} characters"


def describe_record(folder: Place, found: Found, *, is_looked_at: bool = False) -> str:
    """Return a record as text for a terminal: its document block by block, or why it was lost.

    The command that shows its HTML follows, unless it `is_looked_at` already.
    """
    lines = [f"{name}: {value}" for name, value in facts(found)]
    if found.document is not None:
        told = found.document
        lines += ["", *fate_lines(found.fate)] if found.fate else []
        lines.append("")
        gone = dropped_blocks(found.fate)
        for block, (kind, text, image) in enumerate(zip(told.kinds, told.texts, told.images, strict=True)):
            why = f"  (dropped: {gone[block]})" if block in gone else ""
            lines += [f"[{kind}]{why} {image}"] if text is None else [f"[{kind}]{why}", *_lines(text)]
    # What the web wrote must not steer the terminal; the command quotes what it holds of it.
    asked = f"carnac show {shell_word(str(folder))} --id {shell_word(found.name)} --html page.html"
    text = printable("\n".join(lines))
    return text if is_looked_at else f"{text}\n\nits HTML beside it, and what was dropped and why: {asked}"
