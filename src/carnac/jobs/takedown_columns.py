"""Where in a table something taken down may stand: found by column, so that few rows are looked at one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from carnac.core.taken_down import MARK
from carnac.jobs.takedown_rows import SHA256_COLUMNS, URL_COLUMNS, Victims

HOSTS_AT_ONCE = 500  # of one expression: 4 MB are searched for them in 6 ms
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needles:
    """What a text must hold, in any case, to mention something taken down: hosts, and sha256 values."""

    expressions: tuple[str, ...]

    @classmethod
    def of(cls, words: Sequence[str]) -> Needles:
        """Return the needles of some words."""
        groups = [words[start : start + HOSTS_AT_ONCE] for start in range(0, len(words), HOSTS_AT_ONCE)]
        return cls(expressions=tuple("(?i)" + "|".join(map(re.escape, group)) for group in groups))

    def found_in(self, values: pa.Array) -> Mask:
        """Return which of some strings, or binary values, hold one; null holds none."""
        found = np.zeros(len(values), bool)
        for expression in self.expressions:
            matches = pc.fill_null(pc.match_substring_regex(values, pattern=expression), False)
            found |= matches.to_numpy(zero_copy_only=False)
        return found


def light_columns(schema: pq.ParquetSchema) -> list[str]:
    """Return the columns of a Parquet file without bytes of images, as its reader takes them."""
    columns = [schema.column(number) for number in range(len(schema.names))]
    return [
        column.path
        for column in columns
        if column.physical_type != "BYTE_ARRAY" or column.logical_type.type == "STRING"
    ]


def suspected_rows(table: pa.Table, needles: Needles, victims: Victims, *, look_at_bytes: bool) -> list[int]:
    """Return the rows that may have to change, ascending: all that do are among them.

    With `look_at_bytes` every row with bytes in it is suspected: what was taken down is told by a hash alone.
    """
    found = np.zeros(table.num_rows, bool)
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = column.combine_chunks()
        for path, leaf, places in leaves(name, values):
            held = np.zeros(len(leaf), bool)
            if pa.types.is_string(leaf.type):
                held = needles.found_in(leaf) | known_values(path, leaf, victims)
            elif look_at_bytes and pa.types.is_binary(leaf.type):
                held = pc.is_valid(leaf).to_numpy(zero_copy_only=False)
            found[places[held]] = True
    rows: list[int] = np.flatnonzero(found).tolist()
    return rows


def known_rows(table: pa.Table, victims: Victims) -> list[int]:
    """Return the rows of which a URL, a hash or an id is of what was taken down, or marked so, ascending."""
    found = np.zeros(table.num_rows, bool)
    for name, column in zip(table.column_names, table.columns, strict=True):
        for path, leaf, rows in leaves(name, column.combine_chunks()):
            if pa.types.is_string(leaf.type):
                marked = pc.fill_null(pc.equal(leaf, MARK), False).to_numpy(zero_copy_only=False)
                found[rows[marked | known_values(path, leaf, victims)]] = True
    rows_found: list[int] = np.flatnonzero(found).tolist()
    return rows_found


def known_values(path: str, leaf: pa.Array, victims: Victims) -> Mask:
    """Return which values of a column that holds URLs, hashes or ids are of what was taken down."""
    record = victims.taken_down
    if path in URL_COLUMNS or path == "images":
        wanted = [url for url in _distinct(leaf) if url != MARK and record.has_url(url)]
    elif path in SHA256_COLUMNS:
        wanted = [sha256 for sha256 in _distinct(leaf) if record.has_image(sha256)]
    elif path == "images.path":
        wanted = [name for name in _distinct(leaf) if record.has_image(name.partition(".")[0])]
    elif path == "id":
        wanted = [identity for identity in _distinct(leaf) if identity in victims.page_ids]
    else:
        return np.zeros(len(leaf), bool)
    mask: Mask = pc.is_in(leaf, value_set=pa.array(wanted, leaf.type)).to_numpy(zero_copy_only=False)
    return mask


def _distinct(leaf: pa.Array) -> list[str]:
    values: list[str] = pc.unique(leaf.drop_null()).to_pylist()
    return values


def leaves(path: str, values: pa.Array) -> Iterator[tuple[str, pa.Array, npt.NDArray[np.int64]]]:
    """Yield (path, flat values, row of each) of all that a column holds, in lists and structs too."""
    yield from _leaves(path, values, np.arange(len(values)))


def _leaves(path: str, values: Any, rows: npt.NDArray[np.int64]) -> Iterator[tuple[str, pa.Array, Any]]:
    if pa.types.is_list(values.type):
        parents = pc.list_parent_indices(values).to_numpy()
        yield from _leaves(path, values.flatten(), rows[parents])
    elif pa.types.is_struct(values.type):
        for number, field in enumerate(values.type):
            yield from _leaves(f"{path}.{field.name}", pc.struct_field(values, number), rows)
    else:
        yield path, values, rows
