"""Measure a document once: numbers from which any threshold can be judged later without opening the text.

In: a document. Out: a `Measured`, and rows of `SIGNALS` of many. What adds up (words, characters, lines) is stored as a
count per block, so that sums and ratios can be taken over the blocks that are still kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.core.document import KINDS, Document
from carnac.curate.signals.of_pages import PAGE_COLUMNS, measure_images_of_page
from carnac.curate.signals.of_texts import BLOCK_COUNTS, REMEASURED, TEXT_COLUMNS
from carnac.curate.texts.digests import digest, digest_url, normalise

if TYPE_CHECKING:
    from carnac.curate.texts.batch import TextBatch
    from carnac.curate.texts.lexicon import Lexicon

# Same parts, rows and order as `documents/`. A list has an entry per block, null where the column says nothing about
# that block: text columns on image blocks, all but `block_kind` in a failed row. `block_kind` counts `document.KINDS`.
SIGNALS = pa.schema(
    [
        ("id", pa.string()),
        ("failed", pa.string()),
        ("block_kind", pa.list_(pa.int8())),
        *(column.field for column in (*TEXT_COLUMNS, *PAGE_COLUMNS)),
    ]
)
_KIND_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
_BLOCKS_OF_TEXTS = tuple(column.name for column in TEXT_COLUMNS if column.is_of_blocks)
_BLOCKS_OF_PAGES = tuple(column.name for column in PAGE_COLUMNS if column.is_of_blocks)
_PLAIN = tuple(name for name in SIGNALS.names if not name.startswith("block_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of a document of b blocks.

    `plain` holds the columns that have one value. `texts` holds columns of blocks as arrays over the blocks `places`
    (int64[n], text blocks for all columns but `block_image_digest`); a column that is not there is null. `page` holds
    the columns of `PAGE_COLUMNS` with an entry per block.
    """

    kinds: npt.NDArray[np.int8]
    plain: Mapping[str, Any]
    text_places: npt.NDArray[np.int64]
    image_places: npt.NDArray[np.int64]
    blocks: Mapping[str, npt.NDArray[Any]]
    page: Mapping[str, Sequence[Any]]


def measure(document: Document, lexicon: Lexicon) -> Measured:
    """Measure a document.

    `text_digest` is that of the texts of all blocks, wherever they are cut; it is null for a page without text, which
    therefore repeats no other.
    """
    from carnac.curate.texts.batch import TextBatch

    text_places, image_places = _places(document)
    texts = [text for text in document.texts if text is not None]
    batch = TextBatch.of(texts)
    normalised = [normalise(text) for text in texts]
    blocks, shares = _measure_blocks(batch, lexicon, document.language)
    blocks["block_text_digest"] = np.array([digest(text) if text else 0 for text in normalised], np.uint64)
    if lexicon.model is not None:
        scores = [lexicon.model.score(text) for text in texts]
        blocks["block_log10_probability"] = np.array([score[0] for score in scores], np.float64)
        blocks["block_num_scored_tokens"] = np.array([score[1] for score in scores], np.int32)
    blocks["block_image_digest"] = np.array(
        [digest_url(image) for image in document.images if image is not None], np.uint64
    )
    page = " ".join(text for text in normalised if text)
    plain = {
        "id": document.id,
        "language": document.language,
        "language_score": document.language_score,
        "num_characters": sum(map(len, texts)),
        "text_digest": digest(page) if page else None,
        "url_digest": digest_url(document.url),
        **shares,
    }
    return Measured(
        kinds=_kinds(document),
        plain=plain,
        text_places=text_places,
        image_places=image_places,
        blocks=blocks,
        page=measure_images_of_page(document),
    )


def measure_texts_again(texts: Sequence[str]) -> dict[str, float]:
    """Return the columns that are measured again over what is kept of a document: `REMEASURED`, by name."""
    from carnac.curate.texts.batch import TextBatch

    batch = TextBatch.of(texts)
    return _in_order({"character_repetition": batch.repetition_of_blocks()[2], **batch.repetition_of_page()})


def not_measured(document: Document, reason: str) -> Measured:
    """Return what is stored of a document that could not be measured: nulls."""
    none = np.zeros(0, np.int64)
    return Measured(
        kinds=_kinds(document),
        plain={"id": document.id, "failed": reason},
        text_places=none,
        image_places=none,
        blocks={},
        page={name: [None] * len(document.texts) for name in _BLOCKS_OF_PAGES},
    )


def signals_table(measured: Sequence[Measured]) -> pa.Table:
    """Return rows of `SIGNALS`: arrays all through, since rows of Python lists take longer than measuring them."""
    lengths = [len(each.kinds) for each in measured]
    offsets = np.zeros(len(measured) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    columns: dict[str, pa.Array] = {
        name: pa.array([each.plain.get(name) for each in measured], SIGNALS.field(name).type) for name in _PLAIN
    }
    columns["block_kind"] = _lists(offsets, pa.array(_joined([each.kinds for each in measured], np.int8)))
    for name in _BLOCKS_OF_TEXTS:
        places = [each.image_places if name == "block_image_digest" else each.text_places for each in measured]
        columns[name] = _lists(offsets, _spread(name, measured, places, offsets))
    for name in _BLOCKS_OF_PAGES:
        values = [value for each in measured for value in each.page[name]]
        columns[name] = _lists(offsets, pa.array(values, SIGNALS.field(name).type.value_type))
    return pa.table([columns[name] for name in SIGNALS.names], schema=SIGNALS)


def measure_document(document: Document, lexicon: Lexicon | None = None) -> dict[str, Any]:
    """Return the row of `SIGNALS` of one document, as Python values; without a lexicon by the English lists."""
    row: dict[str, Any] = signals_table([measure(document, lexicon or _english())]).to_pylist()[0]
    return row


def failed_row(document: Document, reason: str) -> dict[str, Any]:
    """Return the row of `SIGNALS` of a document that could not be measured: nulls, lists as long as its blocks."""
    row: dict[str, Any] = signals_table([not_measured(document, reason)]).to_pylist()[0]
    return row


@cache
def _english() -> Lexicon:
    from carnac.curate.texts.lexicon import Lexicon

    return Lexicon()


def _measure_blocks(
    batch: TextBatch, lexicon: Lexicon, language: str | None
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, float]]:
    """Return columns of text blocks, and the shares of the whole page."""
    from carnac.curate.texts.counts import CHARACTER_COUNTS
    from carnac.curate.texts.words import WORD_COUNTS

    words, required = batch.word_counts(lexicon, language)
    characters, common = batch.character_counts(), batch.common_counts(lexicon)
    counts: dict[str, npt.NDArray[Any]] = {
        **dict(zip(CHARACTER_COUNTS, characters.T, strict=True)),
        **dict(zip(WORD_COUNTS, words.T, strict=True)),
        "num_boilerplate_phrases": batch.boilerplate_counts(),
    }
    if common is not None:
        counts["num_common_words"] = common
    of_characters, of_words, page = batch.repetition_of_blocks()
    blocks = {f"block_{name}": counts[name] for name in BLOCK_COUNTS if name in counts}
    blocks |= {
        "block_required_words": required,
        "block_character_repetition": of_characters,
        "block_word_repetition": of_words,
    }
    return blocks, _in_order({"character_repetition": page, **batch.repetition_of_page()})


def _in_order(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: shares[name] for name in REMEASURED}


def _kinds(document: Document) -> npt.NDArray[np.int8]:
    return np.array([_KIND_NUMBERS[kind] for kind in document.kinds], np.int8)


def _places(document: Document) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where the text blocks are, and the image blocks."""
    is_text = np.array([text is not None for text in document.texts], np.bool_)
    return np.flatnonzero(is_text), np.flatnonzero(~is_text)


def _joined(arrays: Sequence[npt.NDArray[Any]], kind: Any) -> npt.NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0, kind)


def _lists(offsets: npt.NDArray[np.int32], values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _spread(
    name: str, measured: Sequence[Measured], places: Sequence[npt.NDArray[np.int64]], offsets: npt.NDArray[np.int32]
) -> pa.Array:
    """Return a column over all blocks of all documents, null where a document has no value."""
    kind = SIGNALS.field(name).type.value_type
    there = [number for number, each in enumerate(measured) if name in each.blocks]
    if not there:
        return pa.nulls(offsets[-1], kind)
    at = np.concatenate([places[number] + offsets[number] for number in there])
    values = np.zeros(offsets[-1], kind.to_pandas_dtype())
    is_null = np.ones(offsets[-1], np.bool_)
    values[at] = np.concatenate([measured[number].blocks[name] for number in there])
    is_null[at] = False
    if name == "block_text_digest":  # a block of white space alone equals no other
        is_null |= values == 0
    return pa.array(values, kind, mask=is_null)
