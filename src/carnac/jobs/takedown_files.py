"""All files of a run but its parts: packs, spools, lists, manifests, drawn pages. What of them was taken down goes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from carnac.core.errors import InputError, OutputError
from carnac.core.places import Place, open_binary, read_bytes
from carnac.core.stores import store_errors
from carnac.core.taken_down import MARK, RECORD, TakenDown
from carnac.engine.ledger import read_ledger
from carnac.engine.manifest import MANIFEST, PartEntry, read_listed, write_manifest
from carnac.engine.storage import commit, remove, temporary_path, write_file
from carnac.engine.tables import read_rows
from carnac.images.erase import erased_copy, members, sha256_of_name
from carnac.jobs.images_wanted import DIGESTS, digest_of_url
from carnac.jobs.takedown_rows import Victims, scrubbed

TEXTS = (".json", ".jsonl", ".toml", ".log", ".txt", ".md", ".csv", ".tsv", ".yaml", ".yml")
FUNNEL = "funnel.json"
MAX_TEXT_BYTES = 1 << 28
DRAWN = b"<title>carnac: "  # a page of `carnac show --html`
HEAD_BYTES = 4096


def clean_pack(place: Place, record: TakenDown, *, dry_run: bool) -> int:
    """Take out of a pack the images that were taken down; return how many. Raises OutputError; InputError: no pack."""
    try:
        with store_errors(place), open_binary(place) as pack:
            number = sum(record.has_image(sha256_of_name(name)) for _, name, _ in members(pack))
            if dry_run or not number:
                return number
            _write_pack(place, pack, record)
    except ValueError as error:
        raise InputError(f"{place}: not a pack, or damaged ({error}). Remove it and run its recipe again.") from None
    return number


def _write_pack(place: Place, pack: Any, record: TakenDown) -> None:
    temporary = temporary_path(place)
    try:
        with temporary.open("wb") as copy:
            erased_copy(pack, copy, record.has_image)
        commit(temporary, place)
    except OSError as error:
        raise OutputError(f"{place}: cannot be written ({error.strerror}). Free space and run it again.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def clean_digests(part: Place, record: TakenDown) -> None:
    """Have the digests of URLs beside a part no longer tell of what was taken down; their number stays.

    Done before the part itself, of which they are told.
    """
    place = part.with_name(part.name.removesuffix(".parquet") + DIGESTS)
    gone = [digest_of_url(row["url"]) for row in read_rows(part, ["url"]) if record.has_url(row["url"])]
    with contextlib.suppress(FileNotFoundError):
        digests = np.frombuffer(read_bytes(place), "<u8")
        hit = np.isin(digests, np.array(gone, "<u8"))
        if not hit.any():
            return
        left = digests[~hit]
        # Still as many, still sorted: a digest that stays is said more than once.
        filler = left[-1:] if len(left) else np.zeros(1, "<u8")
        write_file(place, np.concatenate([left, np.repeat(filler, int(hit.sum()))]).astype("<u8").tobytes())


def clean_text(place: Place, victims: Victims, *, dry_run: bool) -> bool:
    """Replace every mention in a small file of text; return whether there was one. A funnel that shows one goes."""
    content = read_bytes(place)
    if len(content) > MAX_TEXT_BYTES:
        return False  # the search tells
    text = content.decode("utf-8", "surrogateescape")
    left = victims.taken_down.scrubbed(text)
    is_funnel = place.name == FUNNEL
    if left == text and not (is_funnel and _shows_page(_parsed(text), victims)):
        return False
    if dry_run:
        return True
    if is_funnel:
        remove(place)  # drawn from what it shows samples of, and drawn again by the next run
    else:
        write_file(place, left.encode("utf-8", "surrogateescape"))
    return True


def _shows_page(value: Any, victims: Victims) -> bool:
    """Say whether a funnel holds a sample of a page taken down, other than what is left of it."""
    if isinstance(value, list):
        return any(_shows_page(entry, victims) for entry in value)
    if not isinstance(value, dict):
        return False
    is_shown = value.get("id") in victims.page_ids and value.get("url") != MARK
    return is_shown or any(_shows_page(entry, victims) for entry in value.values())


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def clean_manifest(folder: Place, there: Mapping[str, int], record: TakenDown) -> bool:
    """Have the manifest of a folder say what its parts are now; return whether it changed. `there`: bytes by name."""
    try:
        manifest = read_listed(folder)
    except InputError:
        return False  # damaged: scrubbed as a text
    now = dataclasses.replace(
        manifest,
        parts=tuple(_fresh(entry, there) for entry in manifest.parts),
        steps=tuple(_fresh(entry, there) for entry in manifest.steps),
        settings=scrubbed(manifest.settings, record),
        inputs=scrubbed(manifest.inputs, record),
    )
    if now == manifest:
        return False
    write_manifest(now)
    return True


def _fresh(entry: PartEntry, there: Mapping[str, int]) -> PartEntry:
    size = there.get(entry.path.name)
    if size is None:
        return entry
    ledger = read_ledger(entry.path)
    names = ("digest", "rows_digest", "rows", "counts", "beside")
    return dataclasses.replace(entry, bytes=size, **{name: getattr(ledger, name) for name in names})


def is_drawn_page(place: Place) -> bool:
    """Say whether a file is a page that carnac drew: thumbnails in it cannot be told from one another."""
    return DRAWN in read_bytes(place, 0, HEAD_BYTES)


def is_text(name: str) -> bool:
    """Say whether a file is one of text, by its name; manifests and records are no such."""
    path = PurePosixPath(name)
    return path.suffix.lower() in TEXTS and path.name not in (MANIFEST, RECORD)


def is_spool(name: str) -> bool:
    """Say whether a file is what a unit received and has not kept yet."""
    path = PurePosixPath(name)
    return path.name.startswith(".") and path.suffix == ".spool"


def write_records(folders: Iterable[Place], record: TakenDown) -> None:
    """Write the record into every folder, beside what it says already. Raises OutputError."""
    for folder in folders:
        place = folder / RECORD
        content = TakenDown.read([folder]).merged(record).to_json()
        with contextlib.suppress(OSError):
            if read_bytes(place) == content:
                continue
        write_file(place, content)
