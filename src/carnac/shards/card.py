"""The data card of a set of shards: what is in it, where it is from, and what was left out and why.

In: counts by topic, added up over all parts, and what the manifests say. Out: a `Card`, as JSON and as Markdown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from carnac.core.taken_down import MARK

# What is counted, by document unless said otherwise: of those in the shards their language, licence, day of fetching,
# year of publication, site, archive and reservations; of all that were read their reservations; of those left out, and
# of single blocks left out of others, the reason.
Topic = Literal[
    "language",
    "licence",
    "fetched",
    "published",
    "site",
    "archive",
    "reserved_kept",
    "reserved_seen",
    "dropped_document",
    "dropped_block",
]
NOT_STATED = "(not stated)"
MAX_SITES = 500  # of a part, those of most documents: all of a crawl's would be as many as its pages
HONOURED = ("listed.", "reserved.")  # reasons that begin so: block lists and opt-outs
NUM_SHOWN = 15  # rows of a table in Markdown
Counts = Counter[tuple[Topic, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What is known of the shards. Tables hold (name, number), the largest number first, dates in their order.

    `reservations` are (use, pages read that object to it, of those in the shards). `images` and `lost` are counts of
    the ledgers: how image URLs ended, and records lost by stage and reason. `masked` are the kinds of personal data
    that were to be masked, and how often they were.
    """

    source: str
    version: str
    read_from: Mapping[str, str]
    splits: Mapping[str, Mapping[str, int]]
    languages: tuple[tuple[str, int], ...]
    licences: tuple[tuple[str, int], ...]
    fetched: tuple[tuple[str, int], ...]
    published: tuple[tuple[str, int], ...]
    archives: tuple[tuple[str, int], ...]
    sites: tuple[tuple[str, int], ...]
    sites_are_all: bool
    reservations: tuple[tuple[str, int, int], ...]
    dropped_documents: tuple[tuple[str, int], ...]
    dropped_blocks: tuple[tuple[str, int], ...]
    images: tuple[tuple[str, int], ...]
    lost: tuple[tuple[str, int], ...]
    num_taken_down: int
    masked: tuple[tuple[str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the card as plain dicts and lists."""
        return asdict(self)


def count_document(counts: Counts, document: Mapping[str, Any]) -> None:
    """Add a document of the shards: a row of `core.schema.DOCUMENTS`."""
    counts["language", document["language"] or NOT_STATED] += 1
    counts["licence", document["licence"] or NOT_STATED] += 1
    counts["fetched", document["fetched_at"][:10] if document["fetched_at"] else NOT_STATED] += 1
    counts["published", (document["published_at"] or NOT_STATED).partition("-")[0]] += 1
    counts["site", site_of(document["url"])] += 1
    counts["archive", document["warc_file"] or NOT_STATED] += 1
    for use in document["reservations"] or ():
        counts["reserved_kept", use] += 1


def site_of(url: str | None) -> str:
    """Return the host of a URL."""
    try:
        return urlsplit(url or "").hostname or NOT_STATED
    except ValueError:  # an address with a wrong bracket
        return NOT_STATED


def with_largest_sites(counts: Counts) -> Counts:
    """Return counts with the `MAX_SITES` largest sites: equal ones in the order of their names."""
    sites = sorted(((-number, name) for (topic, name), number in counts.items() if topic == "site"))
    gone = {name for _, name in sites[MAX_SITES:]}
    return Counter({key: number for key, number in counts.items() if key[0] != "site" or key[1] not in gone})


def table_of(counts: Counts, topic: Topic, *, in_order: bool = False) -> tuple[tuple[str, int], ...]:
    """Return (name, number) of a topic: most first, or in the order of the names."""
    found = [(name, number) for (each, name), number in counts.items() if each == topic and name != MARK]
    return tuple(sorted(found, key=lambda row: (row[0],) if in_order else (-row[1], row[0])))


def reservations_of(counts: Counts) -> tuple[tuple[str, int, int], ...]:
    """Return (use, pages that object to it, of those in the shards)."""
    return tuple((use, seen, counts["reserved_kept", use]) for use, seen in table_of(counts, "reserved_seen"))


def to_markdown(card: Card) -> str:
    """Return the card as Markdown. Names that came from the web stand in code spans, without what ends one."""
    samples = sum(split.get("samples", 0) for split in card.splits.values())
    parts = [
        f"# Data card: {_code(card.source)}",
        f"Written by carnac {card.version} with the shards. {samples:,} samples:",
        _table(
            ("split", "samples", "images", "characters"), [_split(name, each) for name, each in card.splits.items()]
        ),
        "## Where it is from",
        _table(("what", "folder or input"), [(name, _code(place)) for name, place in card.read_from.items()]),
        _dates(card),
        *_counted("Archives", "documents", card.archives),
        *_counted("Sites" if card.sites_are_all else "Largest sites (at least)", "documents", card.sites),
        "## What it says of itself",
        *_counted("Languages", "documents", card.languages),
        *_counted("Licences stated by the pages", "documents", card.licences),
        *_counted("Years of publication", "documents", card.published),
        "## Consent",
        _consent(card),
        "## What was left out",
        *_counted("Documents, by the first reason", "documents", card.dropped_documents),
        *_counted("Single blocks of documents, by reason", "blocks", card.dropped_blocks),
        *_counted("Image URLs, by their end", "URLs", card.images),
        *_counted("Records lost", "records", card.lost),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _split(name: str, counts: Mapping[str, int]) -> tuple[str, ...]:
    return (name, *(f"{counts.get(each, 0):,}" for each in ("samples", "images", "characters")))


def _dates(card: Card) -> str:
    days = [day for day, _ in card.fetched if day != NOT_STATED]
    if not days:
        return "No date of fetching is known."
    return (
        f"Fetched on {days[0]}." if len(days) == 1 else f"Fetched from {days[0]} to {days[-1]}, on {len(days):,} days."
    )


def _consent(card: Card) -> str:
    lines = []
    for use, seen, kept in card.reservations:
        honoured = "none of them is in the shards" if not kept else f"{kept:,} of them are in the shards"
        lines.append(f"- {seen:,} pages object to {_code(use)}; {honoured}.")
    if not lines:
        lines.append("- No page that was read states a reservation.")
    documents, blocks = dict(card.dropped_documents), dict(card.dropped_blocks)
    for reason in dict.fromkeys((*documents, *blocks)):
        if reason.startswith(HONOURED):
            gone = f"{documents.get(reason, 0):,} documents, {blocks.get(reason, 0):,} blocks of others"
            lines.append(f"- Left out as {_code(reason)}: {gone}.")
    lines.append(f"- {card.num_taken_down:,} entries were taken down and are kept out.")
    masked = ", ".join(f"{number:,} of kind {kind}" for kind, number in card.masked)
    lines.append(f"- Personal data masked in texts: {masked or 'none was asked for'}.")
    return "\n".join(lines)


def _counted(title: str, what: str, rows: Sequence[tuple[str, int]]) -> Iterable[str]:
    if not rows:
        return ()
    shown = [(_code(name), f"{number:,}") for name, number in rows[:NUM_SHOWN]]
    more = rows[NUM_SHOWN:]
    if more:
        shown.append((f"{len(more):,} more", f"{sum(number for _, number in more):,}"))
    return (f"### {title}", _table(("", what), shown))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _code(text: str) -> str:
    # GitHub splits cells at | in code spans too; a page's own name may hold anything.
    safe = "".join(each if each.isprintable() and each not in "`|" else "?" for each in text)
    return f"`{safe}`"
