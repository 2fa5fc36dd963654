"""Samples as a reader sees them: headings as headings, code as code, pictures in their places."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from carnac.core.errors import InputError
from carnac.engine.aligned import read_aligned
from carnac.report.pictures import thumbnail
from carnac.report.story import Story

MAX_CHARACTERS = 2500  # of a document shown: about two screens
PICTURE_CHARACTERS = 400  # a picture takes about the room of so many characters
SIDE_PX = 420

Block = tuple[str, str]  # (kind, text or data URI)


def readable_documents(story: Story, count: int) -> list[dict[str, Any]]:
    """Return `count` samples of the first 200 that have pictures, those with several pictures and short texts first."""
    candidates = [row for row in story.rows("shards", 200) if any(row["images"])]
    candidates.sort(key=lambda row: (-min(3, _num_images(row)), sum(len(text or "") for text in row["texts"])))
    chosen = candidates[:count]
    kept = _kept_blocks(story, {row["id"] for row in chosen})
    return [_document(row, kept.get(row["id"])) for row in chosen]


def _num_images(row: dict[str, Any]) -> int:
    return sum(image is not None for image in row["images"])


def _kept_blocks(story: Story, ids: set[str]) -> dict[str, list[tuple[str, str | None]]]:
    """Return (kind, text) of the kept blocks of documents, where documents and their masks are still there."""
    found: dict[str, list[tuple[str, str | None]]] = {}
    documents, masks = story.find("documents"), story.find("masks")
    if not documents or not masks:
        return found
    for entry in documents[0].parts:
        try:
            for rows in read_aligned({"document": entry.path, "mask": masks[-1].part(entry.unit).path}):
                document = rows["document"]
                if document["id"] in ids:
                    blocks = zip(document["kinds"], document["texts"], rows["mask"]["keep_block"], strict=True)
                    found[document["id"]] = [(kind, text) for kind, text, keep in blocks if keep]
        except InputError:
            continue  # pages crawled anew after the masks were made: the samples show without their headings
        if len(found) == len(ids):
            break
    return found


def _document(row: dict[str, Any], kept: Sequence[tuple[str, str | None]] | None) -> dict[str, Any]:
    facts = json.loads(row["metadata"])
    pictures = [thumbnail(image["bytes"], SIDE_PX) for image in row["images"] if image is not None]
    blocks = kept if kept is not None else [("image" if text is None else "paragraph", text) for text in row["texts"]]
    # Without masks an image that was not kept may stand among the blocks: only equal numbers can be paired.
    if sum(text is None for _, text in blocks) != len(pictures):
        blocks = [("image" if text is None else "paragraph", text) for text in row["texts"]]
    return {"title": facts["title"] or facts["url"], "url": facts["url"], "blocks": _shortened(blocks, pictures)}


def _shortened(blocks: Sequence[tuple[str, str | None]], pictures: Sequence[str | None]) -> list[Block]:
    shown: list[Block] = []
    waiting = iter(pictures)
    left = MAX_CHARACTERS
    for kind, text in blocks:
        if text is None:
            picture = next(waiting)
            shown += [("image", picture)] if picture else []
            left -= PICTURE_CHARACTERS
        else:
            shown.append((kind, text if len(text) <= left else f"{text[:left]} ..."))
            left -= len(text)
        if left <= 0:
            break
    return [*shown, ("more", "the document goes on")] if left <= 0 else shown
