"""What the job `shards` reads, made to measure: documents, masks, packs, images found; and what is to come out of it.

Pictures are real ones with noise behind their end, where no decoder looks: all differ, and cost one drawing.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from carnac.core.document import Document, document_id
from carnac.core.schema import DOCUMENTS, FOUND, IMAGES, MASKS, document_to_row
from carnac.core.seeds import generator
from carnac.engine.manifest import collect_parts, manifest_of, read_manifest, write_manifest
from carnac.engine.part import Part
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage
from carnac.images.pack import PackWriter, read_image
from carnac.shards.sample import sample_of
from carnac.shards.split import Split, split_of

HELD_OUT = 0.2
RECIPE = f"""
job = "shards"
documents = "documents"
images = "images"
masks = "masks"
output = "shards"
split.held_out = {HELD_OUT}
gather.group_mb = {{group_mb}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much there is: `images` are places in documents, one in ten of which shows a picture of another place."""

    parts: int = 3
    documents: int = 60
    images: int = 5  # of a document
    packs: int = 9
    image_bytes: int = 4000


def write_inputs(folder: Path, size: Size, *, group_mb: int = 1) -> Path:
    """Write all that the job reads, and `shards.toml`, which is returned."""
    random = generator(0, "inputs of shards")
    names = [f"r01-p{number % 4:04d}-u{number // 4:04d}-{number:016x}.tar" for number in range(size.packs)]
    (folder / "images" / "packs").mkdir(parents=True)
    with ExitStack() as stack:
        packs = [stack.enter_context(PackWriter(folder / "images" / "packs" / name)) for name in names]
        head = picture()
        kept: list[dict[str, Any]] = []

        def image(url: str) -> dict[str, Any]:
            if kept and random.random() < 0.1:
                return kept[int(random.integers(len(kept)))]
            payload = head + random.bytes(int(size.image_bytes * random.uniform(0.2, 1.8)))
            place, sha256 = int(random.integers(len(packs))), hashlib.sha256(payload).hexdigest()
            offset, length = packs[place].add(sha256, "image/jpeg", payload)
            facts = {"sha256": sha256, "media_type": "image/jpeg", "width": 9, "height": 9}
            found = {"pack": names[place], "offset": offset, "length": length}
            kept.append({"url": url, **facts, **found})
            return kept[-1]

        _write_tables(folder, size, random, image)
        states = [{**row, "status": "kept", "source": "http"} for row in kept]
        write_parts(folder / "images", "images", IMAGES, {"images-p0000": states})
    recipe = folder / "shards.toml"
    recipe.write_text(RECIPE.format(group_mb=group_mb))
    return recipe


def picture() -> bytes:
    """Return a small JPEG."""
    pixels = generator(0, "picture").integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", quality=60)
    return file.getvalue()


def _write_tables(
    folder: Path, size: Size, random: np.random.Generator, image: Callable[[str], dict[str, Any]]
) -> None:
    documents: dict[str, list[dict[str, Any]]] = {}
    masks: dict[str, list[dict[str, Any]]] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    number = 0
    for part in range(size.parts):
        unit = f"crawl-{part:05d}"
        documents[unit], masks[unit], found[unit] = [], [], []
        for row in range(size.documents):
            url = f"http://pages.test/{part}/{row}"
            blocks: list[tuple[str | None, str | None]] = [(f"{url} text {place}", None) for place in range(3)]
            for _ in range(int(random.integers(0, 2 * size.images + 1))):
                blocks.insert(int(random.integers(len(blocks) + 1)), (None, f"http://a.test/{number}"))
                number += 1
            documents[unit].append(_document(url, blocks))
            known = documents[unit][-1]["id"]
            keep = (random.random(len(blocks)) < 0.85).tolist()
            masks[unit].append({"id": known, "keep": bool(random.random() < 0.8), "keep_block": keep})
            for block, (_, asked) in enumerate(blocks):
                if asked is not None and random.random() < 0.9:
                    found[unit].append({**image(asked), "url": asked, "id": known, "row": row, "block": block})
    write_parts(folder / "documents", "documents", DOCUMENTS, documents)
    write_parts(folder / "masks", "masks", MASKS, masks)
    write_parts(folder / "images" / "found", "found", FOUND, found)


def _document(url: str, blocks: Sequence[tuple[str | None, str | None]]) -> dict[str, Any]:
    document = Document(
        id=document_id(url, b""),
        url=url,
        warc_file="crawl.warc.gz",
        warc_offset=0,
        fetched_at="2024-01-01T00:00:00Z",
        title="T",
        language="en",
        language_score=1.0,
        texts=tuple(text for text, _ in blocks),
        images=tuple(image for _, image in blocks),
        kinds=tuple("image" if text is None else "paragraph" for text, _ in blocks),
        image_nodes=(None,) * len(blocks),
    )
    return document_to_row(document)


def write_parts(folder: Path, stage: str, schema: pa.Schema, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Write a finished stage: the rows of each unit, and the manifest; other parts that lie there stay."""
    kind = Stage(name=stage, version=1, schema=schema, work=None)
    units = [kind.unit(name, None, settings={}, inputs=[]) for name in rows]
    folder.mkdir(parents=True, exist_ok=True)
    for unit in units:
        with Part(kind, unit, folder) as part:
            for row in rows[unit.name]:
                part.write(row)
    write_manifest(manifest_of(kind, folder, collect_parts(folder, units), {}, {}))


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a finished stage by unit."""
    return {entry.unit: list(read_rows(entry.path)) for entry in read_manifest(folder).parts}


def expected_samples(folder: Path, split: Split, limit: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the samples of each shard of a split, made with a random read for each image."""
    found, masks = rows_of(folder / "images" / "found"), rows_of(folder / "masks")
    samples = {}
    for unit, documents in rows_of(folder / "documents").items():
        images = {(row["row"], row["block"]): row for row in found[unit]}
        made = _samples(documents, masks[unit], images, folder / "images" / "packs", split, limit)
        samples[f"{split}-{unit}"] = list(made)
    return samples


def _samples(
    documents: list[dict[str, Any]],
    masks: list[dict[str, Any]],
    images: dict[tuple[int, int], dict[str, Any]],
    packs: Path,
    split: Split,
    limit: int | None,
) -> Iterator[dict[str, Any]]:
    taken = 0
    for row, (document, mask) in enumerate(zip(documents, masks, strict=True)):
        if not mask["keep"] or split_of(document["id"], HELD_OUT, 0) != split or taken == limit:
            continue
        taken += 1

        def image_bytes(block: int, row: int = row) -> tuple[bytes, str] | None:
            image = images.get((row, block))
            if image is None:
                return None
            return read_image(packs / image["pack"], image["offset"], image["length"]), f"{image['sha256']}.jpeg"

        sample = sample_of(document, mask["keep_block"], image_bytes, "web")
        if sample is not None:
            yield sample
