"""What stands on lists: files of URLs, domains and hashes, what pages object to, and what a service knows.

files --entries--> one table per kind of list, sorted by key                  one unit per kind
documents, masks --asked--> what a service says of their URLs                 one unit per documents part
documents, image_signals, masks, entries, asked --listed--> what is on one    one unit per documents part

The service is asked by `curate_service`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.curate.lists.entries import ENTRIES, HASH_BYTES, Entries, Kind, entries_of
from carnac.curate.lists.search import (
    DOCUMENT_COLUMNS,
    IMAGE_COLUMNS,
    LISTED,
    MASK_COLUMNS,
    Lists,
    find_listed,
    kept_images,
    kept_of,
)
from carnac.curate.lists.settings import UNHASHED, ListsPass
from carnac.curate.masks import check_same_rows
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.manifest import Manifest, PartEntry
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.storage import write_file
from carnac.engine.tables import open_part, read_rows, read_table
from carnac.engine.unit import Stage, Unit, outside_digests
from carnac.jobs.curate_service import ask_service

ROWS_AT_ONCE = 1_000  # of documents: with the URLs of their images a few megabytes
PICTURES = "pictures"  # count of kept images whose hash was looked up
BLOCKED = "blocked.txt"  # sha256 of the images found on a list of hashes, as `carnac takedown --list` reads them


@dataclass(frozen=True, slots=True, kw_only=True)
class EntriesTask:
    """What a worker needs to read the lists of one kind."""

    kind: Kind
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTask:
    """What a worker needs to look up the documents of one part; `asked` is what a service said of them."""

    documents: Place
    images: Place | None
    last: Place | None
    asked: Place | None
    entries: tuple[tuple[Kind, Place], ...]
    step: ListsPass


def search_lists(
    runner: Runner, step: ListsPass, documents: Manifest, images: Manifest | None, last: Manifest | None, folder: Place
) -> Manifest:
    """Write to `folder` what of the kept documents and images stands on the lists of a pass.

    `images` is `image_signals/`, needed for lists of hashes. A service is asked once for each URL of a documents part;
    what it said is kept in `folder`/asked. Raises InputError where a list cannot be read, or no image has the hash that
    a list compares.
    """
    assert images is not None or not step.needs_images, "a list of hashes before images are known"
    entries = _read_lists(runner, step, folder / "entries")
    asked = ask_service(runner, step, documents, last, folder / "asked")
    told = step.model_dump(mode="json", include={"kind", "max_pdq_distance", "max_phash_distance", "drop"})
    told |= {"reservations": list(step.reservations), "lists": [*step.files]}
    shared = [part.digest for part in entries.values()]
    units = []
    for entry in documents.parts:
        image = images.part(entry.unit) if images is not None and step.needs_images else None
        mask = None if last is None else last.part(entry.unit)
        known = None if asked is None else asked.part(entry.unit)
        task = ListedTask(
            documents=entry.path,
            images=None if image is None else image.path,
            last=None if mask is None else mask.path,
            asked=None if known is None else known.path,
            entries=tuple((kind, part.path) for kind, part in entries.items()),
            step=step,
        )
        digests = ["" if part is None else part.digest for part in (image, known)]
        inputs = [entry.digest, "" if mask is None else mask.rows_digest, *digests, *shared]
        units.append(LISTED_STAGE.unit(entry.unit, task, settings=told, inputs=inputs))
    parts = runner.do(LISTED_STAGE, units, folder)
    _check_hashed(step, parts)
    manifest = runner.publish(LISTED_STAGE, folder, parts, told, {"documents": str(documents.folder)})
    if step.needs_images and not runner.changes_nothing:
        _write_blocked(manifest)
    return manifest


def _read_lists(runner: Runner, step: ListsPass, folder: Place) -> dict[Kind, PartEntry]:
    """Write the entries of every list that is given, and return their parts by kind."""
    if not step.files:
        return {}
    units = []
    for kind, files in step.files.items():
        task = EntriesTask(kind=kind, files=files)
        units.append(ENTRIES_STAGE.unit(kind, task, settings={}, inputs=outside_digests(files)))
    entries = runner.do(ENTRIES_STAGE, units, folder)
    runner.publish(
        ENTRIES_STAGE, folder, entries, {}, {kind: list(map(str, files)) for kind, files in step.files.items()}
    )
    return dict(zip(step.files, entries, strict=True))


def write_entries(unit: Unit, part: Part) -> None:
    """Write the entries of all lists of one kind."""
    task: EntriesTask = unit.task
    table = entries_of(task.kind, _lines(task.files))
    part.count("entries", table.num_rows)
    part.write_table(table)


def _lines(files: Sequence[Path]) -> Iterator[tuple[str, int, str]]:
    for file in files:
        try:
            with file.open(encoding="utf-8-sig") as lines:
                yield from ((file.name, number, line) for number, line in enumerate(lines, 1))
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror}). Wanted a list; check the path.") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{file}: is no text in UTF-8 ({error.reason}). Wanted one entry a line.") from None


def _opened(kind: Kind, place: Place) -> Entries:
    """Return the entries of a part: hashes whole, of other kinds the keys."""
    if kind in HASH_BYTES:
        return Entries.of(kind, read_table(place))
    return Entries.of(kind, read_table(place, ["key"]), _reader(place))


def _reader(place: Place) -> Callable[[int], tuple[str, str]]:
    """Return what reads an entry and its file's name, by the number of its row."""

    @lru_cache(maxsize=8)
    def group(number: int) -> pa.Table:
        with open_part(place) as file:
            return file.read_row_group(number, columns=["entry", "file"])

    def row(number: int) -> tuple[str, str]:
        table, place = group(number // ENTRIES_STAGE.rows_per_group), number % ENTRIES_STAGE.rows_per_group
        return table.column("entry")[place].as_py(), table.column("file")[place].as_py()

    return row


def write_listed(unit: Unit, part: Part) -> None:
    """Write what of one documents part stands on a list, and count it by reason."""
    task: ListedTask = unit.task
    lists = Lists(
        settings=task.step,
        entries={kind: _opened(kind, place) for kind, place in task.entries},
        opted_out=_opted_out(task.asked),
    )
    for first, tables in read_aligned_tables(_parts(task), ROWS_AT_ONCE):
        check_same_rows(*tables.values())
        documents, images = tables["documents"], tables.get("images")
        keep, keep_block = kept_of(documents, tables.get("last"))
        blocks = kept_images(documents, images, keep, keep_block)
        part.count(PICTURES, sum(map(bool, blocks.facts.get("block_has_image", ()))))
        for row in find_listed(lists, documents, blocks, keep):
            part.count(row["reason"])
            part.write({**row, "row": first + row["row"]})


def _parts(task: ListedTask) -> dict[str, tuple[Place, Sequence[str]]]:
    parts: dict[str, tuple[Place, Sequence[str]]] = {"documents": (task.documents, DOCUMENT_COLUMNS)}
    if task.images is not None:
        parts["images"] = (task.images, IMAGE_COLUMNS)
    if task.last is not None:
        parts["last"] = (task.last, MASK_COLUMNS)
    return parts


def _opted_out(asked: Place | None) -> frozenset[str]:
    """Return the URLs of which a service said that they were opted out."""
    if asked is None:
        return frozenset()
    return frozenset(row["url"] for row in read_rows(asked, ["url", "opted_out"]) if row["opted_out"])


def _check_hashed(step: ListsPass, parts: Sequence[PartEntry]) -> None:
    """Raise InputError where there are images and not one has the hash that a list compares: none was taken."""
    counts: Counter[str] = Counter()
    for entry in parts:
        counts.update(entry.counts)
    for kind, setting in (("pdq", "scores.pdq = true"), ("phash", "inspect.decode = true")):
        if kind in step.files and counts[PICTURES] and counts[f"{UNHASHED}.{kind}"] == counts[PICTURES]:
            raise InputError(
                f"pass {step.name}: image_{kind} is given, and none of {counts[PICTURES]:,} images has such a hash. "
                f"Set {setting} where the images are got, and run that again: nothing is fetched anew for it."
            )


def _write_blocked(listed: Manifest) -> None:
    """Write the sha256 of the images found on lists of hashes: all that is left of them, beside the table's URLs."""
    rows = (row for entry in listed.parts for row in read_rows(entry.path, ["reason", "sha256"]))
    reasons = {f"listed.{kind}" for kind in HASH_BYTES}
    found = sorted({row["sha256"] for row in rows if row["reason"] in reasons and row["sha256"]})
    write_file(listed.folder / BLOCKED, "".join(f"{sha256}\n" for sha256 in found).encode())


# 10,000 entries are read for each that is found: a megabyte.
ENTRIES_STAGE = Stage(
    name="list_entries", version=1, schema=ENTRIES, work=write_entries, rows_per_group=10_000, is_step=True
)
LISTED_STAGE = Stage(name="listed", version=1, schema=LISTED, work=write_listed)
