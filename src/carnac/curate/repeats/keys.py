"""What competes in a search for repeats: of documents that are kept, the keys of which equal ones must meet.

In: stored columns and what is kept so far. Out: rows of `DOCUMENT_KEYS` or `BLOCK_KEYS`. Keys are 64-bit hashes: among
a billion documents 0.03 pairs are expected to be taken for equal by chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.taken_down import host_key
from carnac.curate.masks import Masks
from carnac.curate.repeats.settings import Keep
from carnac.curate.signals.frame import Frame
from carnac.engine.buckets import BUCKET, KEY, mix

Keys = npt.NDArray[np.uint64]
Truths = npt.NDArray[np.bool_]

# A document that competes: `row` of its part, with the key that it would share. Of equals the one with the smallest
# `preference` stays, then the one of the smallest part name and row.
DOCUMENT_KEYS = pa.schema(
    [(BUCKET, pa.int32()), (KEY, pa.uint64()), ("id", pa.string()), ("row", pa.int64()), ("preference", pa.int64())]
)
# A block that counts: the one at (`row`, `block`) of its part.
BLOCK_KEYS = pa.schema(
    [(BUCKET, pa.int32()), (KEY, pa.uint64()), ("id", pa.string()), ("row", pa.int64()), ("block", pa.int32())]
)

# The stored columns that keys are made of, by the folder that holds them.
COLUMNS_OF: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "url": {"signals": ("url_digest",)},
        "text": {"signals": ("text_digest",)},
        "image_set": {"signals": ("block_image_digest",)},
        "paragraph": {"signals": ("block_text_digest",), "documents": ("url",)},
        "image_url": {"signals": ("block_image_digest",)},
        "image_sha256": {"images": ("block_sha256",)},
        "image_in_document": {"signals": ("block_image_digest",), "images": ("block_sha256",)},
    }
)
COLUMNS_OF_KEEP: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"first": {}, "latest": {"documents": ("fetched_at",)}, "longest": {"signals": ("block_num_words",)}}
)

WORST = 1 << 62  # the preference for a document of which nothing is known
_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:]*)"
_DIGITS = 16  # hexadecimal ones of a key
_NIBBLES = np.zeros(256, np.uint8)
_NIBBLES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def document_keys(frame: Frame, masks: Masks, kind: str, keep: Keep, first_row: int) -> pa.Table:
    """Return the documents that compete by `kind`: the columns of `DOCUMENT_KEYS` after the bucket.

    `frame` and `masks` hold the same rows of a part, those from `first_row` on. Only documents that are kept compete,
    and only those with a key: a page without text equals no other by text, one without images none by image set.
    """
    keys, known = _image_sets(frame) if kind == "image_set" else keys_of(frame.columns[f"{kind}_digest"])
    rows = np.arange(first_row, first_row + frame.num_documents)
    columns = {KEY: keys, "id": frame.columns["id"], "row": rows, "preference": _preferences(frame, keep)}
    return pa.table(columns).filter(pa.array(masks.keep & known))


def block_keys(frame: Frame, masks: Masks, kind: str, first_row: int) -> pa.Table:
    """Return the blocks that are counted by `kind`: the columns of `BLOCK_KEYS` after the bucket.

    `frame` and `masks` are as for `document_keys`. Only blocks that are kept, of kept documents, count.
    """
    if kind == "paragraph":
        keys, known = _paragraphs(frame)
    else:
        keys, known = keys_of(frame.labels({"image_url": "block_image_digest", "image_sha256": "block_sha256"}[kind]))
    places = np.flatnonzero(known & masks.is_alive)
    row, block = locate(frame, places)
    ids = frame.columns["id"].take(pa.array(row))
    return pa.table({KEY: keys[places], "id": ids, "row": row + first_row, "block": block.astype(np.int32)})


def locate(frame: Frame, places: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the documents (from 0) and block numbers of entries of the frame's flat arrays."""
    row = np.searchsorted(frame.starts, places, side="right") - 1
    return row, places - frame.starts[row]


def keys_of(digests: pa.Array | pa.ChunkedArray) -> tuple[Keys, Truths]:
    """Return digests as 64-bit keys, and which are known: whole numbers as they are, of hexadecimal the first digits.

    A digest in words has 16 hexadecimal digits or more, in lower case.
    """
    values = digests.combine_chunks() if isinstance(digests, pa.ChunkedArray) else digests
    known: Truths = pc.is_valid(values).to_numpy(zero_copy_only=False)
    if pa.types.is_integer(values.type):
        return pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(np.uint64), known
    heads = pc.utf8_slice_codeunits(pc.fill_null(values.cast(pa.string()), "0" * _DIGITS), 0, _DIGITS)
    if not len(heads):
        return np.zeros(0, np.uint64), known
    assert pc.min(pc.binary_length(heads)).as_py() == _DIGITS, "a digest of fewer than 16 hexadecimal digits"
    text = np.frombuffer(heads.buffers()[2], np.uint8, _DIGITS * len(heads))
    nibbles = _NIBBLES[text].reshape(-1, 2)
    packed = (nibbles[:, 0] << 4 | nibbles[:, 1]).reshape(-1, _DIGITS // 2)
    return np.ascontiguousarray(packed).view(">u8").ravel().astype(np.uint64), known


def _image_sets(frame: Frame) -> tuple[Keys, Truths]:
    """Return a key per document of the different image URLs of its kept blocks, in whatever order; none without."""
    digests, known = keys_of(frame.labels("block_image_digest"))
    places = np.flatnonzero(known & frame.keep_block)
    row, _ = locate(frame, places)
    digests = digests[places]
    order = np.lexsort((digests, row))
    row, digests = row[order], digests[order]
    first = np.ones(len(row), np.bool_)
    first[1:] = (row[1:] != row[:-1]) | (digests[1:] != digests[:-1])
    # The sum does not depend on the order: two sets have equal sums of mixed numbers as rarely as equal hashes.
    sums = np.zeros(frame.num_documents, np.uint64)
    np.add.at(sums, row[first], mix(digests[first]))
    sizes = np.bincount(row[first], minlength=frame.num_documents)
    return mix(sums), sizes > 0


def _paragraphs(frame: Frame) -> tuple[Keys, Truths]:
    """Return a key per text block of its text and the host of its document; none where there is no host."""
    digests, known = keys_of(frame.labels("block_text_digest"))
    hosts, has_host = _hosts(frame.columns["url"])
    num_blocks = np.diff(frame.starts)
    return mix(mix(digests) ^ np.repeat(hosts, num_blocks)), known & np.repeat(has_host, num_blocks)


def _hosts(urls: pa.ChunkedArray) -> tuple[Keys, Truths]:
    """Return a hash of the host of each URL (without port and user, lower case, ASCII), and which have one."""
    found = pc.struct_field(pc.extract_regex(urls, _HOST), "host").combine_chunks().dictionary_encode()
    names = [host_key(name) for name in found.dictionary.to_pylist()]
    hashes = np.array([_hash(name) for name in [*names, ""]], np.uint64)
    places = pc.fill_null(found.indices, len(names)).to_numpy(zero_copy_only=False)
    return hashes[places], np.array([bool(name) for name in [*names, ""]])[places]


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _preferences(frame: Frame, keep: Keep) -> npt.NDArray[np.int64]:
    """Return a number per document, from 0 to `WORST`: of equals, that of the smallest stays."""
    if keep == "first":
        return np.zeros(frame.num_documents, np.int64)
    if keep == "longest":
        return WORST - 1 - frame.total("block_num_words").astype(np.int64)
    fetched = [_microseconds(chunk) for chunk in frame.columns["fetched_at"].chunks]
    return WORST - np.concatenate([np.zeros(0, np.int64), *fetched])


def _microseconds(times: pa.Array) -> npt.NDArray[np.int64]:
    """Return times (ISO 8601 with a zone) in microseconds since 1970, from 1 on; 0 where there is none to be read."""
    try:
        read = pc.cast(times, pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:  # one of them: each by itself
        if len(times) == 1:
            return np.zeros(1, np.int64)
        half = len(times) // 2
        return np.concatenate([_microseconds(times.slice(0, half)), _microseconds(times.slice(half))])
    numbers: npt.NDArray[np.int64] = pc.fill_null(read.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    return np.clip(numbers, 0, WORST - 1)
