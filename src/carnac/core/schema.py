"""The columns of every table on disk: the contract between stages, which never import one another.

`documents/`, `signals/` and `masks/<pass>/` have the same parts, the same rows in the same order; `id` is repeated and
readers assert it. Lists named `block_*` and `keep_block` are as long as the document's block lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from carnac.core.document import Document, ImageNode

IMAGE_NODE = pa.struct(
    [
        ("alt", pa.string()),
        ("caption", pa.string()),
        ("declared_width", pa.int32()),
        ("declared_height", pa.int32()),
        ("source_attribute", pa.string()),
    ]
)

DOCUMENTS = pa.schema(
    [
        ("id", pa.string()),
        ("url", pa.string()),
        ("warc_file", pa.string()),
        ("warc_offset", pa.int64()),
        ("fetched_at", pa.string()),
        ("title", pa.string()),
        ("canonical_url", pa.string()),
        ("published_at", pa.string()),
        ("author", pa.string()),
        ("site", pa.string()),
        ("licence", pa.string()),
        ("licence_url", pa.string()),
        ("reservations", pa.list_(pa.string())),
        ("language", pa.string()),
        ("language_score", pa.float32()),
        ("texts", pa.list_(pa.string())),
        ("images", pa.list_(pa.string())),
        ("kinds", pa.list_(pa.string())),
        ("image_nodes", pa.list_(IMAGE_NODE)),
    ]
)

# The state of an image URL, as archives and fetching leave it. `status` is "kept", "dropped", "deferred" (no round was
# left to ask again); `reason` and `detail` say why it is not kept. `source` is "warc", "pairs" or "http", null if none
# was asked. `sha256` is that of the bytes stored, `received_sha256` of those that came. Width and height are as shown:
# upright. `phash` is a DCT hash of 64 bits. The bytes of a kept image are `length` bytes at `offset` of `packs/<pack>`.
IMAGE_STATES = pa.schema(
    [
        ("url", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("source", pa.string()),
        ("location", pa.string()),  # where the last redirect led, null without one
        ("rounds", pa.int16()),  # in which it was asked for
        ("received_bytes", pa.int64()),  # over HTTP, of all tries
        ("sha256", pa.string()),
        ("received_sha256", pa.string()),
        ("media_type", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("phash", pa.uint64()),
        ("pack", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
    ]
)

# One row per image URL with its final state, and what its bytes were scored, where the recipe asks for scores:
# `nsfw_score` is a probability, `pdq` a perceptual hash of 256 bits, the first byte first.
IMAGES = pa.schema([*IMAGE_STATES, ("nsfw_score", pa.float32()), ("pdq", pa.binary(32))])

# An image of a document, found: a kept image at (`row`, `block`) of the documents part of the same unit, in that order.
_FOUND_FACTS = ("url", "sha256", "received_sha256", "media_type", "width", "height", "phash", "nsfw_score", "pdq")
FOUND = pa.schema(
    [
        ("id", pa.string()),
        ("row", pa.int32()),
        ("block", pa.int32()),
        *(IMAGES.field(name) for name in (*_FOUND_FACTS, "pack", "offset", "length")),
    ]
)

# `reason` and `block_reason` index the list of names in the part's footer (`carnac.reasons`); null where kept.
MASKS = pa.schema(
    [
        ("id", pa.string()),
        ("keep", pa.bool_()),
        ("reason", pa.int16()),
        ("keep_block", pa.list_(pa.bool_())),
        ("block_reason", pa.list_(pa.int16())),
    ]
)

# What a search found and a pass therefore drops: the document at `row` of a part, or a `block` of it (null: all of it).
# Every table of a search begins so; `reason` is the name that the masks give.
HITS = pa.schema([("id", pa.string()), ("row", pa.int64()), ("block", pa.int32()), ("reason", pa.string())])
HIT_COLUMNS = ("row", "block", "reason")

# A duplicate found, in the part `unit`: what is at (`row`, `block`) equals `root`, the document that is kept, under
# `kind`; `key` is what they share. `root` is null where every copy goes.
REPEATS = pa.schema(
    [
        *HITS,
        ("unit", pa.string()),
        ("kind", pa.string()),
        ("key", pa.string()),
        ("root", pa.string()),
    ]
)

SAMPLE_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

SAMPLES = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("texts", pa.list_(pa.string())),
        ("images", pa.list_(SAMPLE_IMAGE)),
        ("roles", pa.list_(pa.string())),
        ("metadata", pa.string()),
    ]
)

_LISTS = ("reservations", "texts", "images", "kinds")
_PLAIN = tuple(name for name in DOCUMENTS.names if name not in (*_LISTS, "image_nodes"))


def document_to_row(document: Document) -> dict[str, Any]:
    """Return `document` as a row of `DOCUMENTS`."""
    return {
        **{name: getattr(document, name) for name in _PLAIN},
        **{name: list(getattr(document, name)) for name in _LISTS},
        "image_nodes": [
            None if node is None else {name: getattr(node, name) for name in ImageNode.__slots__}
            for node in document.image_nodes
        ],
    }


def document_from_row(row: Mapping[str, Any]) -> Document:
    """Return the document of a row of `DOCUMENTS`; columns that are younger than its part have their defaults."""
    values: dict[str, Any] = {name: row[name] for name in _PLAIN if name in row}
    values |= {name: tuple(row[name]) for name in _LISTS if name in row}
    nodes = tuple(None if node is None else ImageNode(**node) for node in row["image_nodes"])
    return Document(**values, image_nodes=nodes)
