"""Documents made of real paragraphs and pictures, and evaluation sets to be found in them."""

from __future__ import annotations

import io
import random
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from fastwarc.warc import ArchiveIterator, WarcRecordType
from jobs_shards_inputs import write_parts
from PIL import Image, UnidentifiedImageError
from selectolax.lexbor import LexborHTMLParser

from carnac.core.document import Document, document_id
from carnac.core.schema import DOCUMENTS, MASKS, document_to_row
from carnac.curate.texts.split import split_words
from carnac.engine.manifest import Manifest, read_manifest
from carnac.images.phash import perceptual_hash

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "recipes/tiny/data"
HASHES = pa.schema([("id", pa.string()), ("block_phash", pa.list_(pa.uint64()))])
Block = str | tuple[str, int | None]  # a text, or an image with its hash


@cache
def sample() -> tuple[tuple[str, ...], dict[str, bytes]]:
    """The paragraphs and the images of the sample of real pages."""
    texts: list[str] = []
    images: dict[str, bytes] = {}
    for path in sorted(SAMPLE.glob("*.warc.gz")):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
                payload, kind = record.reader.read(), record.http_content_type or ""
                if kind.startswith("image/"):
                    images[record.headers["WARC-Target-URI"]] = payload
                elif "html" in kind:
                    nodes = LexborHTMLParser(payload.decode()).css("p, li, pre")
                    texts += [text for node in nodes if (text := " ".join(node.text().split()))]
    return tuple(texts), images


@cache
def items() -> tuple[str, ...]:
    """Fifty real sentences that the sample does not hold: of this repository's documentation."""
    lines = [line for path in sorted((ROOT / "docs").glob("0*.md")) for line in path.read_text().splitlines()]
    return tuple(line for line in dict.fromkeys(lines) if len(set(split_words(line))) >= 14)[:50]


def document(number: int, blocks: list[Block]) -> dict[str, Any]:
    url = f"http://stones.example/{number}"
    made = Document(
        id=document_id(url, b""),
        url=url,
        warc_file="a.warc.gz",
        warc_offset=0,
        fetched_at=None,
        title=None,
        language=None,
        language_score=None,
        texts=tuple(block if isinstance(block, str) else None for block in blocks),
        images=tuple(None if isinstance(block, str) else block[0] for block in blocks),
        kinds=tuple("paragraph" if isinstance(block, str) else "image" for block in blocks),
        image_nodes=(None,) * len(blocks),
    )
    return document_to_row(made)


def write_documents(folder: Path, pages: list[list[Block]], rows_per_part: int = 300) -> tuple[Manifest, Manifest]:
    """Write documents and the hashes of their images."""
    rows = [document(number, blocks) for number, blocks in enumerate(pages)]
    hashes = [
        {"id": row["id"], "block_phash": [None if isinstance(block, str) else block[1] for block in blocks]}
        for row, blocks in zip(rows, pages, strict=True)
    ]
    starts = range(0, len(rows), rows_per_part)
    for name, schema, values in (("documents", DOCUMENTS, rows), ("image_signals", HASHES, hashes)):
        write_parts(
            folder / name, name, schema, {f"p{start:05d}": values[start : start + rows_per_part] for start in starts}
        )
    return read_manifest(folder / "documents"), read_manifest(folder / "image_signals")


def write_masks(folder: Path, pages: list[list[bool]], keep: list[bool], rows_per_part: int = 300) -> Manifest:
    rows = [
        {
            "id": document_id(f"http://stones.example/{number}", b""),
            "keep": is_kept,
            "reason": None if is_kept else 0,
            "keep_block": blocks,
            "block_reason": [None if each else 0 for each in blocks],
        }
        for number, (blocks, is_kept) in enumerate(zip(pages, keep, strict=True))
    ]
    starts = range(0, len(rows), rows_per_part)
    parts = {f"p{start:05d}": rows[start : start + rows_per_part] for start in starts}
    write_parts(folder / "masks", "masks", MASKS, parts)
    return read_manifest(folder / "masks")


def lines_file(folder: Path, name: str = "quiz.txt") -> Path:
    path = folder / name
    path.write_text("\n".join(items()) + "\n")
    return path


def scrambled(item: str) -> str:
    """Return an item as somebody may have quoted it."""
    return item.upper().replace(" ", "  \n").replace(",", " --")


def planted(pages: list[list[Block]]) -> dict[int, int]:
    """Put each item into a page; return the item by page."""
    places = random.Random(5).sample(range(len(pages)), len(items()))
    for number, place in enumerate(places):
        words, blocks = scrambled(items()[number]), pages[place]
        half = len(words) // 2 if number % 2 else len(words)
        cut = words.find("\n", half) if number % 2 else half  # every other one goes on in the next block
        blocks[1:1] = [f"someone asked: {words[:cut]}", f"{words[cut:]} so it was said"]
    return dict(zip(places, range(len(places)), strict=True))


def clean_pages(number: int) -> list[list[Block]]:
    """Windows of real paragraphs, each beginning elsewhere."""
    texts = sample()[0]
    return [[texts[(7 * place + block) % len(texts)] for block in range(6)] for place in range(number)]


def encoded(payload: bytes, share: float, quality: int) -> bytes:
    picture = Image.open(io.BytesIO(payload)).convert("RGBA")
    paper = Image.new("RGBA", picture.size, "white")
    small = Image.alpha_composite(paper, picture).convert("RGB")
    small = small.resize((round(small.width * share), round(small.height * share)), Image.Resampling.BICUBIC)
    small.save(file := io.BytesIO(), "JPEG", quality=quality)
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    """Pictures of the sample that show something, one of each hash: a picture and its thumbnail are one to a hash."""
    found: dict[int, tuple[str, bytes]] = {}
    for url, payload in sample()[1].items():
        try:
            phash = perceptual_hash(picture := Image.open(io.BytesIO(payload)))
        except (UnidentifiedImageError, OSError):
            continue
        if min(picture.size) >= 64 and all((phash ^ other).bit_count() > 12 for other in found):
            found[phash] = (url, payload)
    return dict(found.values())
