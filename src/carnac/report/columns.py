"""What the columns of a stage hold: least, median and most of numbers, how often each word occurs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.places import Place
from carnac.curate.masks import METADATA_KEY
from carnac.engine.ledger import read_ledger
from carnac.engine.manifest import Manifest
from carnac.engine.tables import open_part, read_batches

MAX_ROWS = 10_000  # of a stage looked at: under a second, and bounded whatever the size of the stage
NAMES = ("phash",)  # numbers that only name something
MAX_WORDS = 12  # a column with more distinct words names things instead of sorting them into kinds


def column_facts(manifest: Manifest) -> Iterator[tuple[str, int, str]]:
    """Yield (column, number of values, what they are) of the first rows; columns of lists count their entries.

    Columns that only name or hold things (ids, addresses, texts, bytes) are left out.
    """
    if not manifest.parts:
        return
    schema = _schema(manifest.parts[0].path)
    told = [field.name for field in schema if _can_be_told(field.type) and field.name not in NAMES]
    table = _first_table(manifest, told)
    for name in table.column_names:
        column = table[name].combine_chunks()
        if _is_list(column.type):
            column = column.flatten()
        values = column.drop_null()
        if len(values) and (facts := _facts(values, _names_of_reasons(manifest, schema, name))):
            yield name, len(values), facts


def some_rows(manifest: Manifest, count: int) -> list[str]:
    """Return rows spread over the first ones as lines of `column value`, without lists, long values cut."""
    table = _first_table(manifest, None)
    chosen = [round(number * (table.num_rows - 1) / max(1, count - 1)) for number in range(min(count, table.num_rows))]
    return [
        ", ".join(f"{name} {_cut(value)}" for name, value in row.items() if not isinstance(value, list | None))
        for row in table.take(chosen).to_pylist()
    ]


def _schema(part: Place) -> pa.Schema:
    read_ledger(part)  # says in a sentence what is wrong with a damaged part
    with open_part(part) as file:
        return file.schema_arrow


def _first_table(manifest: Manifest, names: list[str] | None) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    left = MAX_ROWS
    for part in manifest.parts:
        for batch in read_batches(part.path, names):
            batches.append(batch.slice(0, left))
            left -= len(batches[-1])
            if not left:
                return pa.Table.from_batches(batches)
    return pa.Table.from_batches(batches) if batches else pa.table({})


def _facts(values: pa.Array, names: list[str]) -> str:
    if names:
        values = pa.array(names).take(values)
    if pa.types.is_string(values.type) or pa.types.is_boolean(values.type):
        counts = sorted((-row["counts"], str(row["values"])) for row in values.value_counts().to_pylist())
        if not names and (len(counts) > min(MAX_WORDS, len(values) - 1) or max(len(word) for _, word in counts) > 60):
            return ""
        return ", ".join(f"{word} {-number:,}" for number, word in counts[:MAX_WORDS])
    ends = pc.min_max(values).as_py()
    median = pc.quantile(values, 0.5)[0].as_py()
    return f"{_number(ends['min'])} to {_number(ends['max'])}, median {_number(median)}"


def _names_of_reasons(manifest: Manifest, schema: pa.Schema, column: str) -> list[str]:
    """Return what the numbers of a column of masks stand for: by the manifest, or by a part where there is none yet."""
    if column not in ("reason", "block_reason"):
        return []
    stored = (schema.metadata or {}).get(METADATA_KEY)
    return list(manifest.settings.get("reasons", ())) or (json.loads(stored) if stored else [])


def _can_be_told(kind: pa.DataType) -> bool:
    kind = kind.value_type if _is_list(kind) else kind
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string)
    return any(test(kind) for test in tests)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _cut(value: Any) -> str:
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    text = _number(value) if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."
