"""Real samples: paragraphs and pictures of the scikit-image pages, in reading order, as shards."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from fastwarc.warc import ArchiveIterator, WarcRecordType
from PIL import Image
from selectolax.lexbor import LexborHTMLParser

from carnac.core.batch import Batch
from carnac.core.errors import RecordError
from carnac.core.schema import SAMPLES
from carnac.mix.plan import PIECES, pieces_of_sample
from carnac.mix.settings import MixSettings, SourceSettings
from carnac.sequence.layout import Sample
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import LoadedTokenizer, ready, train_tokenizer

ROW_GROUP = 16
DATA = Path(__file__).parents[2] / "recipes" / "tiny" / "data"
PICTURES = PictureSettings(size_px=32, patch_px=8)  # 16 tokens an image
SOURCE = SourceSettings(name="skimage", shards=Path("shards"))
MIX = MixSettings(row_tokens=256, row_images=4, rows_per_batch=4, seed=3)


def _records(path: Path) -> dict[str, tuple[str, bytes]]:
    with path.open("rb") as file:
        return {
            record.headers["WARC-Target-URI"]: (record.http_content_type or "", record.reader.read())
            for record in ArchiveIterator(file, record_types=WarcRecordType.response)
        }


def _sample(url: str, payload: bytes, files: dict[str, tuple[str, bytes]]) -> Sample | None:
    blocks: list[tuple[str | None, bytes | None]] = []
    for node in LexborHTMLParser(payload).css("p, h1, h2, h3, pre, img"):
        if node.tag == "img":
            media_type, image = files.get(urljoin(url, node.attributes.get("src") or ""), ("", b""))
            if media_type.startswith("image/"):
                blocks.append((None, image))
        elif text := node.text().strip():
            blocks.append((text, None))
    if not blocks:
        return None
    texts, images = zip(*blocks, strict=True)
    return Sample(texts=texts, images=images, id=url, source="skimage")


def row_of(sample: Sample) -> dict[str, Any]:
    images = [None if image is None else {"bytes": image, "path": None} for image in sample.images]
    return {
        "id": sample.id,
        "source": sample.source,
        "texts": list(sample.texts),
        "images": images,
        "roles": [None] * len(images),
        "metadata": "{}",
    }


def write_shard(path: Path, samples: Sequence[Sample]) -> Path:
    table = pa.Table.from_pylist([row_of(sample) for sample in samples], SAMPLES)
    pq.write_table(table, path, row_group_size=ROW_GROUP)
    return path


def png(colour: tuple[int, int, int], size: tuple[int, int] = (40, 24)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def real_samples() -> list[Sample]:
    files = _records(DATA / "skimage-00000.warc.gz")
    pages = [(url, payload) for url, (kind, payload) in files.items() if kind == "text/html"]
    return [sample for url, payload in pages if (sample := _sample(url, payload, files))]


@cache
def real_tokenizer() -> LoadedTokenizer:
    texts = (text for sample in real_samples() for text in sample.texts if text)
    return ready(train_tokenizer(texts, TokenizerSettings(vocabulary_size=1024)))


def write_real_shards(folder: Path) -> dict[str, Path]:
    """Write two shards of real pages; the first begins with a picture that does not decode and a block that is none."""
    samples = real_samples()
    broken = replace(samples[0], texts=("before", None, "after"), images=(None, png((9, 9, 9))[:60], None))
    empty = replace(samples[0], texts=(None,), images=(None,))
    half = len(samples) // 2
    return {
        "00000-a": write_shard(folder / "00000-a.parquet", [broken, empty, *samples[:half]]),
        "00001-b": write_shard(folder / "00001-b.parquet", samples[half:]),
    }


def pieces_of_shards(shards: dict[str, Path], mix: MixSettings = MIX) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for name, path in shards.items():
        for number, sample in enumerate(pq.read_table(path).to_pylist()):
            place = {"source": "skimage", "shard": name, "row": number, "group": number // ROW_GROUP}
            with contextlib.suppress(RecordError):  # the broken sample
                rows += pieces_of_sample(sample, place, real_tokenizer(), PICTURES, mix).rows
    return pa.Table.from_pylist(rows, PIECES)


def write_plan(path: Path, plan: pa.Table, row_group_size: int = 100) -> Path:
    """Write a plan as its part lies on disk."""
    pq.write_table(plan, path, row_group_size=row_group_size)
    return path


def image_segments(batch: Batch) -> npt.NDArray[np.int64]:
    """The index into `provenance` of the piece of each image."""
    return batch.segment[batch.image_slots[:, 0], batch.image_slots[:, 1]]
