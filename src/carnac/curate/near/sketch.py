"""What is kept of a document's text to find near-duplicates: MinHash bands that propose, a sketch that verifies.

In: the texts of a document's kept blocks. Out: a `Sketch`, 160 bytes of bands and up to 2 kB of shingle hashes, from
which the Jaccard similarity of the sets of word 3-shingles (Broder 1997) is told: exactly for short texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.curate.near.numbers import BANDS, ROWS, SHINGLE, SKETCH
from carnac.curate.texts.split import split_words
from carnac.engine.buckets import mix

# A document that competes. `fetched_at` is in microseconds since 1970. `bands` are uint64[BANDS] and `hashes` ascending
# uint32[<= SKETCH], little-endian: fixed bytes are read four times as fast as lists.
SKETCHES = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("num_words", pa.int64()),
        ("fetched_at", pa.int64()),
        ("num_shingles", pa.int64()),
        ("bands", pa.binary(8 * BANDS)),
        ("hashes", pa.binary()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """A text in short: its words, its distinct shingles, the keys of its bands, the least hashes of its shingles.

    `bands` is uint64[BANDS]; `hashes` is uint32[<= SKETCH], ascending.
    """

    num_words: int
    num_shingles: int
    bands: npt.NDArray[np.uint64]
    hashes: npt.NDArray[np.uint32]


def sketch_texts(texts: Sequence[str]) -> Sketch | None:
    """Return the sketch of the texts of one document, read as one; None where they have fewer than three words."""
    from carnac.curate.near.kernels import band_keys

    words = [word for text in texts for word in split_words(text)]
    shingles = shingles_of(words)
    if not len(shingles):
        return None
    factors, addends = permutations()
    hashes = np.unique((shingles >> np.uint64(32)).astype(np.uint32))
    return Sketch(
        num_words=len(words),
        num_shingles=len(shingles),
        bands=band_keys(shingles, factors, addends),
        hashes=hashes[:SKETCH],
    )


def shingles_of(words: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return the distinct hashes of the word 3-shingles of a text, ascending; none of fewer than three words.

    Two of a million shingles share a hash with a probability of 3e-8.
    """
    from carnac.curate.near.kernels import hash_shingles

    if len(words) < SHINGLE:
        return np.zeros(0, np.uint64)
    # A word holds no white space, so a line feed ends it.
    codes = np.frombuffer(("\n".join(words) + "\n").encode("utf-8", "surrogatepass"), np.uint8)
    distinct: npt.NDArray[np.uint64] = np.unique(hash_shingles(codes, len(words)))
    return distinct


def compare(first: Sketch, second: Sketch) -> float:
    """Return the similarity that two sketches tell: exact where both hold all their shingles."""
    hashes = (first.hashes, second.hashes)
    starts = np.array([0, len(hashes[0]), len(hashes[0]) + len(hashes[1])])
    num_shingles = np.array([first.num_shingles, second.num_shingles])
    is_whole = holds_all(num_shingles, np.diff(starts))
    return float(compare_pairs(np.array([[0, 1]]), starts, np.concatenate(hashes), is_whole)[0])


def compare_pairs(
    pairs: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    hashes: npt.NDArray[np.uint32],
    is_whole: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Return the similarity of pairs of sketches: see `kernels.similarities`."""
    from carnac.curate.near.kernels import similarities

    found: npt.NDArray[np.float64] = similarities(pairs, starts, hashes, is_whole, SKETCH)
    return found


def holds_all(num_shingles: npt.NDArray[np.int64], num_hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Say of each sketch whether it holds all shingles: it is not full, or they are no more than it holds."""
    whole: npt.NDArray[np.bool_] = (num_hashes < SKETCH) | (num_shingles <= SKETCH)
    return whole


@lru_cache(maxsize=1)
def permutations() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return the odd factors and the addends of the signature's hash functions: the same on every machine."""
    numbers = mix(np.arange(2 * BANDS * ROWS))
    return numbers[::2] | np.uint64(1), numbers[1::2].copy()
