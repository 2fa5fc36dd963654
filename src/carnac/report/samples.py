"""Training samples as they lie in shards: documents and conversations, what is known of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from carnac.engine.manifest import Manifest
from carnac.engine.tables import read_rows
from carnac.report.story import Story


def samples(story: Story, count: int) -> list[list[dict[str, Any]]]:
    """Return up to `count` samples of each kind of shards: of the first folder of documents, and of conversations.

    A run has training shards and held-out ones, and two kinds where it mixes them.
    """
    found: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for manifest in story.find("shards"):
        rows = list(islice(_rows(manifest), count))
        if rows:
            found.setdefault((str(rows[0]["source"]), has_turns(rows[0])), rows)
    return list(found.values())


def has_turns(row: dict[str, Any]) -> bool:
    """Say whether a sample is a conversation."""
    return any(role is not None for role in row.get("roles") or ())


def facts_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a sample says of itself; nothing where that is no JSON object: shards may be of other hands."""
    try:
        found = json.loads(row.get("metadata") or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def image_names(row: dict[str, Any]) -> list[str | None]:
    """Return what each picture of a sample is called, by its address where it has one; None at texts."""
    told = facts_of(row)
    urls, names = told.get("image_urls"), told.get("image_names")
    if isinstance(urls, list) and len(urls) == len(row["images"]):
        return urls
    waiting = iter(names if isinstance(names, list) else ())
    return [None if image is None else next(waiting, None) or image["path"] or "" for image in row["images"]]


def _rows(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for part in manifest.parts:
        yield from read_rows(part.path)
