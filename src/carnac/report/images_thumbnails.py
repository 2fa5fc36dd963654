"""Pictures of a story as thumbnails: some that were kept, and for each rule of a pass some of those that it took.

Flow in: tables of images, their packs, `images/found` and the masks of the last pass. A pack that is gone, or a member
that was taken down, costs its own thumbnail.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.curate.masks import METADATA_KEY
from carnac.engine.manifest import Manifest, PartEntry, read_listed
from carnac.engine.tables import open_part, read_batches, read_rows
from carnac.images.pack import read_image
from carnac.report.pictures import thumbnail
from carnac.report.story import Story

MAX_LOOKED = 20_000  # images found in documents of which the verdicts are looked at: about a second
MAX_REASONS = 12
NUM_TAKEN = 10  # thumbnails of each reason
SIDE_PX = 96
PLACE = ("pack", "offset", "length")


@dataclass(slots=True, kw_only=True)
class Taken:
    """The images that one rule took: how many of those looked at, some of them as (data URI, URL and size).

    `met` are the places in packs of those shown: an image may stand on many pages.
    """

    reason: str
    number: int = 0
    thumbnails: list[tuple[str, str]] = field(default_factory=list)
    met: set[tuple[str, int]] = field(default_factory=set)


def kept_thumbnails(story: Story, count: int) -> list[str]:
    """Return data URIs of up to `count` kept images, spread over the parts of the tables."""
    found: list[str] = []
    for manifest in story.find("images"):
        parts = [part for part in manifest.parts if part.counts.get("kept")]
        chosen = [parts[number * len(parts) // count] for number in range(count)] if len(parts) > count else parts
        for part in chosen:
            found += _some_kept(manifest, part, -(-count // len(chosen)))
    return found[:count]


def _some_kept(manifest: Manifest, part: PartEntry, count: int) -> Iterator[str]:
    met: set[str] = set()
    for row in read_rows(part.path, ["status", "sha256", *PLACE]):
        if len(met) == count:
            return
        if row["status"] == "kept" and row["sha256"] not in met and (shown := _thumbnail(manifest.folder, row)):
            met.add(row["sha256"])
            yield shown


def taken_by_rules(story: Story) -> list[Taken]:
    """Return what the rules of the last pass, and of those before it, took of the images: most first."""
    found: dict[str, Taken] = {}
    masks = story.find("masks")
    judged = (each for images in story.find("images") if masks for each in _taken(images, masks[-1]))
    for folder, row, reason in islice(judged, MAX_LOOKED):
        if reason is not None:
            taken = found.setdefault(reason, Taken(reason=reason))
            taken.number += 1
            place = row["pack"], row["offset"]
            if len(taken.met) < NUM_TAKEN and place not in taken.met:
                taken.met.add(place)
                if shown := _thumbnail(folder, row):
                    taken.thumbnails.append((shown, f"{row['url']} {row['width']} x {row['height']} px"))
    return sorted(found.values(), key=lambda taken: (-taken.number, taken.reason))[:MAX_REASONS]


def _taken(images: Manifest, masks: Manifest) -> Iterator[tuple[Place, dict[str, Any], str | None]]:
    """Yield (folder, row of `found`, why it was taken: None where it was not) of every image that was judged."""
    try:
        listed = read_listed(images.folder / "found")
    except InputError:
        return
    for part in listed.parts:
        try:
            mask = masks.part(part.unit).path
            names = _names_of_reasons(mask)
            yield from ((images.folder, *judged) for judged in _judged(part.path, mask, names))
        except InputError:
            continue  # pages crawled, or images found, anew after the masks were made


def _judged(found: Place, mask: Place, names: list[str]) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Yield the rows of a part of `found` with their verdicts; both parts have the order of the documents."""
    rows = read_rows(found, ["id", "row", "block", "url", "width", "height", *PLACE])
    row = next(rows, None)
    first = 0
    for batch in read_batches(mask, ["id", "block_reason"]):
        while row is not None and row["row"] < first + batch.num_rows:
            reasons = batch["block_reason"][row["row"] - first].as_py()
            if batch["id"][row["row"] - first].as_py() != row["id"] or len(reasons) <= row["block"]:
                raise InputError(f"{mask}: of other documents than {found}. Run the recipe that judges them again.")
            code = reasons[row["block"]]
            yield row, None if code is None else names[code]
            row = next(rows, None)
        first += batch.num_rows


def _names_of_reasons(mask: Place) -> list[str]:
    with open_part(mask) as file:
        stored = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
    return list(json.loads(stored)) if stored else []


def _thumbnail(images: Place, row: dict[str, Any]) -> str | None:
    if row["pack"] is None:
        return None
    try:
        payload = read_image(images / "packs" / row["pack"], row["offset"], row["length"])
    except InputError:
        return None
    return thumbnail(payload, SIDE_PX)
