"""A judged document to a training sample: what the mask keeps, adjacent text merged, pictures as bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

SEPARATOR = "\n\n"  # between merged blocks, as OBELICS joins paragraphs
METADATA = ("url", "title", "language", "fetched_at", "warc_file", "warc_offset")
COLUMNS = ("id", "texts", "images", *METADATA)  # of a document, all that a sample is made of


def sample_of(
    document: Mapping[str, Any],
    keep_block: Sequence[bool],
    image_bytes: Callable[[int], tuple[bytes, str] | None],
    source: str,
) -> dict[str, Any] | None:
    """Return a row of `core.schema.SAMPLES`, or None when nothing is left.

    `image_bytes(block)` returns (bytes, file name) of a block's image, or None where it was not kept; an image without
    bytes leaves no trace, so the texts around it are merged.
    """
    texts: list[str | None] = []
    images: list[dict[str, Any] | None] = []
    urls: list[str | None] = []
    for block, (text, url, keep) in enumerate(zip(document["texts"], document["images"], keep_block, strict=True)):
        if not keep:
            continue
        if text is not None:
            if texts and texts[-1] is not None:
                texts[-1] += SEPARATOR + text
            else:
                texts.append(text)
                images.append(None)
                urls.append(None)
        elif (found := image_bytes(block)) is not None:
            payload, name = found
            texts.append(None)
            images.append({"bytes": payload, "path": name})
            urls.append(url)
    if not texts:
        return None
    metadata = {**{name: document[name] for name in METADATA}, "image_urls": urls}
    return {
        "id": document["id"],
        "source": source,
        "texts": texts,
        "images": images,
        "roles": [None] * len(texts),
        "metadata": json.dumps(metadata, ensure_ascii=False, sort_keys=True),
    }
