"""A language model as text, in the ARPA form that KenLM and others read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carnac.curate.perplexity.ngrams import Ngrams
from carnac.curate.perplexity.training import OrderModel

ROWS_AT_ONCE = 100_000  # n-grams whose text is held: some 10 MB


def write_arpa(file: IO[bytes], vocabulary: pa.Array, orders: Sequence[Ngrams], models: Sequence[OrderModel]) -> None:
    """Write a model; `vocabulary` holds the words by number. N-grams stand in the order of their numbers."""
    sizes = [f"ngram {number}={model.num_ngrams}\n" for number, model in enumerate(models, 1)]
    file.write(f"\\data\\\n{''.join(sizes)}".encode())
    for number, model in enumerate(models):
        file.write(f"\n\\{number + 1}-grams:\n".encode())
        kept = np.flatnonzero(model.is_kept)
        for start in range(0, len(kept), ROWS_AT_ONCE):
            rows = kept[start : start + ROWS_AT_ONCE]
            columns = [_decimal(model.probability[rows]), _texts(vocabulary, orders[: number + 1], rows)]
            columns += [] if model.backoff is None else [_decimal(model.backoff[rows])]
            lines = pc.binary_join_element_wise(*columns, "\t")
            file.write(pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "\n")[0].as_buffer())
            file.write(b"\n")
    file.write(b"\n\\end\\\n")


def _decimal(values: npt.NDArray[np.float32]) -> pa.Array:
    """Return numbers in the fewest digits that give them back."""
    return pc.cast(pa.array(values), pa.string())


def _texts(vocabulary: pa.Array, orders: Sequence[Ngrams], rows: npt.NDArray[np.intp]) -> pa.Array:
    """Return the words of the highest of `orders` at `rows`, joined by spaces."""
    words = []
    for ngrams in reversed(orders):
        words.append(vocabulary.take(pa.array(ngrams.word[rows])))
        rows = ngrams.prefix[rows].astype(np.intp)
    return pc.binary_join_element_wise(*reversed(words), " ")
