"""Samples as a reader sees them: headings as headings, code as code, pictures in their places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from carnac.core.errors import InputError
from carnac.engine.aligned import read_aligned
from carnac.report.pictures import thumbnail
from carnac.report.samples import facts_of, has_turns, samples
from carnac.report.story import Story

MAX_TURNS = 12  # of a conversation shown
MAX_CHARACTERS = 2500  # of a document shown: about two screens
PICTURE_CHARACTERS = 400  # a picture takes about the room of so many characters
SIDE_PX = 420

Block = tuple[str, str]  # (kind, text or data URI)


def readable_documents(story: Story, count: int) -> list[dict[str, Any]]:
    """Return `count` samples of the first 200 that have pictures, those with several pictures and short texts first."""
    documents = next((rows for rows in samples(story, 200) if not has_turns(rows[0])), [])
    candidates = [row for row in documents if any(row["images"])]
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
    facts = facts_of(row)
    pictures = [thumbnail(image["bytes"], SIDE_PX) for image in row["images"] if image is not None]
    blocks = kept if kept is not None else [("image" if text is None else "paragraph", text) for text in row["texts"]]
    # Without masks an image that was not kept may stand among the blocks: only equal numbers can be paired.
    if sum(text is None for _, text in blocks) != len(pictures):
        blocks = [("image" if text is None else "paragraph", text) for text in row["texts"]]
    url = facts.get("url") or ""
    return {"title": facts.get("title") or url or row["id"], "url": url, "blocks": _shortened(blocks, pictures)}


def readable_conversations(story: Story, count: int) -> list[dict[str, Any]]:
    """Return `count` conversations of each folder that has some: what it is called, and who says or shows what."""
    return [
        {"title": facts_of(row).get("title") or row["id"], "source": row["source"], "turns": _turns(row)}
        for rows in samples(story, count)
        if has_turns(rows[0])
        for row in rows
    ]


def _turns(row: dict[str, Any]) -> list[tuple[str, list[Block]]]:
    """Return the turns: blocks that follow one another in one role are one."""
    turns: list[tuple[str, list[Block]]] = []
    left = MAX_CHARACTERS
    for role, text, image in zip(row["roles"], row["texts"], row["images"], strict=True):
        is_new = not turns or turns[-1][0] != role
        if left <= 0 or (is_new and len(turns) == MAX_TURNS):
            return [*turns, ("", [("more", "the conversation goes on")])]
        if is_new:
            turns.append((role, []))
        if text is None:
            picture = thumbnail(image["bytes"], SIDE_PX)
            turns[-1][1].append(("image", picture) if picture else ("more", "a picture that does not decode"))
            left -= PICTURE_CHARACTERS
        else:
            turns[-1][1].append(("paragraph", text if len(text) <= left else f"{text[:left]} ..."))
            left -= len(text)
    return turns


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
