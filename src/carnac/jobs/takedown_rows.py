"""Rows of every table without what was taken down. Pure: a row goes in, and comes out as it may stay, or not at all.

documents        a page's row stays, empty; an image's block stays, its URL a mark: rows and blocks keep their numbers
images           the row stays: dropped, `taken_down`
shards           the sample goes, or loses the image
inner steps      (found, wanted, plans, what was fetched): the row goes
chat, questions, excerpts of the funnel: the row that shows a page or an image goes
anything else    mentions are replaced
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from carnac.core.schema import DOCUMENTS, IMAGES, SAMPLES
from carnac.core.taken_down import MARK, TakenDown
from carnac.shards.sample import SEPARATOR

Row = dict[str, Any]
URL_COLUMNS = ("url", "canonical_url", "location", "ask")  # flat columns that hold one URL
SHA256_COLUMNS = ("sha256", "received_sha256")
SHOWING = ("chat", "questions", "funnel_excerpts")  # stages whose rows show what a document or an image holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Victims:
    """What was taken down, and the ids of the pages that were."""

    taken_down: TakenDown
    page_ids: frozenset[str] = frozenset()

    def is_page(self, row: Mapping[str, Any]) -> bool:
        """Say whether a row of documents is a page taken down, by its own URL or the one it calls its own."""
        return any(row.get(name) == MARK or self.taken_down.has_url(row.get(name)) for name in ("url", "canonical_url"))

    def is_image(self, row: Mapping[str, Any]) -> bool:
        """Say whether a row of images, or of a step towards them, is of an image taken down."""
        return any(self.taken_down.has_url(row.get(name)) for name in URL_COLUMNS) or self.taken_down.has_image(
            *(row.get(name) for name in SHA256_COLUMNS)
        )


Rule = Callable[[Row, Victims], Row | None]


def rule_of(stage: str, columns: frozenset[str]) -> Rule:
    """Return what makes of a row of a table what may stay of it; None where nothing may."""
    if columns >= {"url", "texts", "images", "image_nodes"}:
        return _document
    if columns >= set(SAMPLES.names):
        return _sample
    if "url" in columns:
        return _image if stage == "images" else _step
    return _shown if stage in SHOWING else _scrubbed_row


def _scrubbed_row(row: Row, victims: Victims) -> Row | None:
    return {name: scrubbed(value, victims.taken_down) for name, value in row.items()}


def scrubbed(value: Any, taken_down: TakenDown) -> Any:
    """Return a value, lists and tables in it too, with a mark in place of every mention in its strings."""
    if isinstance(value, str):
        return taken_down.scrubbed(value)
    if isinstance(value, list):
        return [scrubbed(entry, taken_down) for entry in value]
    if isinstance(value, dict):
        return {taken_down.scrubbed(name): scrubbed(entry, taken_down) for name, entry in value.items()}
    return value


def _document(row: Row, victims: Victims) -> Row | None:
    if victims.is_page(row):
        emptied: Row = dict.fromkeys(row)
        return emptied | {
            "id": row["id"],
            "url": MARK,
            "reservations": [],
            "texts": [None if text is None else "" for text in row["texts"]],
            "images": [None if image is None else MARK for image in row["images"]],
            "kinds": row["kinds"],
            "image_nodes": [_empty(node) for node in row["image_nodes"]],
        }
    gone = [victims.taken_down.has_url(url) or url == MARK for url in row["images"]]
    images = [MARK if is_gone else url for url, is_gone in zip(row["images"], gone, strict=True)]
    nodes = [_empty(node) if is_gone else node for node, is_gone in zip(row["image_nodes"], gone, strict=True)]
    return _scrubbed_row({**row, "images": images, "image_nodes": nodes}, victims)


def _empty(node: Row | None) -> Row | None:
    return None if node is None else dict.fromkeys(node)


def _image(row: Row, victims: Victims) -> Row | None:
    if not victims.is_image(row):
        return _scrubbed_row(row, victims)
    return {**dict.fromkeys(row), "url": MARK, "status": "dropped", "reason": "taken_down"}


def _step(row: Row, victims: Victims) -> Row | None:
    return None if victims.is_image(row) else _scrubbed_row(row, victims)


def _shown(row: Row, victims: Victims) -> Row | None:
    image = row.get("image")
    shows = isinstance(image, bytes) and victims.taken_down.has_image(hashlib.sha256(image).hexdigest())
    if row["id"] in victims.page_ids or shows:
        return None
    return _scrubbed_row(row, victims)


def _sample(row: Row, victims: Victims) -> Row | None:
    """Return what is left of a sample; of a conversation that loses a picture nothing is."""
    facts = facts_of(row["metadata"])
    if row["id"] in victims.page_ids or victims.taken_down.has_url(facts.get("url")) or facts.get("url") == MARK:
        return None
    urls = image_urls_of(facts, len(row["images"]))
    gone = [_is_gone(image, url, victims) for image, url in zip(row["images"], urls, strict=True)]
    if not any(gone):
        return _scrubbed_row(row, victims)
    if any(role is not None for role in row["roles"]):
        return None
    merged: list[tuple[str | None, Any, str | None]] = []
    for text, image, url, is_gone in zip(row["texts"], row["images"], urls, gone, strict=True):
        if is_gone:
            continue
        if text is not None and merged and merged[-1][0] is not None:
            merged[-1] = (merged[-1][0] + SEPARATOR + text, None, None)
        else:
            merged.append((text, image, url))
    if not merged:
        return None
    texts, images, left = (list(column) for column in zip(*merged, strict=True))
    metadata = json.dumps({**facts, "image_urls": left}, ensure_ascii=False, sort_keys=True)
    changed = {"texts": texts, "images": images, "roles": [None] * len(texts), "metadata": metadata}
    return _scrubbed_row({**row, **changed}, victims)


def _is_gone(image: Row | None, url: str | None, victims: Victims) -> bool:
    """Say whether a sample's image was taken down: by its URL, by the hash that it is named by, by its bytes' hash."""
    if image is None:
        return False
    if victims.taken_down.has_url(url) or victims.taken_down.has_image((image["path"] or "").partition(".")[0]):
        return True
    payload = image["bytes"] or b""
    return bool(victims.taken_down.images) and victims.taken_down.has_image(hashlib.sha256(payload).hexdigest())


def image_urls_of(facts: Row, number: int) -> list[str | None]:
    """Return the URL of each place of a sample; None where its metadata tell none."""
    urls = facts.get("image_urls")
    return urls if isinstance(urls, list) and len(urls) == number else [None] * number


def counts_of(stage: str, row: Row | None) -> Counter[str]:
    """Return what a row adds to the counts of its part: those that say what a table holds, not how it came."""
    counts: Counter[str] = Counter()
    if row is None:
        return counts
    if stage == "images":
        counts["kept" if row["status"] == "kept" else f"{row['status']}.{row['reason']}"] += 1
    elif stage == "shards":
        counts["samples"] += 1
        counts["images"] += sum(image is not None for image in row["images"])
        counts["characters"] += sum(len(text) for text in row["texts"] if text is not None)
        counts["conversations"] += any(role is not None for role in row["roles"])
        counts["answers"] += row["roles"].count("assistant")
    return counts


def facts_of(metadata: str | None) -> Row:
    """Return what the metadata of a sample say; nothing where they are no JSON table."""
    try:
        facts = json.loads(metadata or "{}")
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


assert {"image_nodes", "reservations"} <= set(DOCUMENTS.names)
assert {"status", "reason", *SHA256_COLUMNS} <= set(IMAGES.names)
