"""A part without what was taken down, written anew beside the old one and put in its place by one rename.

Its key stays, and its digest too where rows keep their numbers, so that nothing that was made of it is made again. A
shard whose samples change gets a new digest: a plan over it must be made anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from carnac.core.errors import OutputError
from carnac.core.places import Place
from carnac.core.schema import SAMPLES
from carnac.engine.ledger import LEDGER_KEY, Ledger, Quarantined, read_ledger
from carnac.engine.storage import commit, temporary_path
from carnac.engine.tables import open_part
from carnac.jobs.takedown_columns import Needles, light_columns, suspected_rows
from carnac.jobs.takedown_rows import SHOWING, Row, Victims, counts_of, rule_of

COUNT = "taken_down"
PIECE_BYTES = 1 << 20
Changes = Mapping[int, tuple[Row, Row | None]]  # by row of a row group: what stood there and what does, or nothing


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """What is looked for in the rows of every part."""

    victims: Victims
    needles: Needles


def clean_part(place: Place, cleaning: Cleaning, *, dry_run: bool) -> int:
    """Take out of a part what was taken down; return how many rows changed or went. Raises InputError, OutputError."""
    ledger = read_ledger(place)
    scrubbed = tuple(_clean_loss(lost, cleaning.victims) for lost in ledger.quarantine)
    with open_part(place) as file:
        part = _Part(file, ledger.stage, cleaning)
        counts, touched, number = Counter(ledger.counts), set(), 0
        for group in range(file.num_row_groups):
            # Counted now and found again when they are written: a shard's pictures are not held for that long.
            changes = part.changes(group)
            if changes:
                touched.add(group)
                number += len(changes)
            for before, after in changes.values():
                counts.subtract(counts_of(ledger.stage, before))
                counts.update(counts_of(ledger.stage, after))
        if dry_run or not (number or scrubbed != ledger.quarantine):
            return number
        counts[COUNT] += number
        kept = {name: count for name, count in sorted(counts.items()) if count or name in ledger.counts}
        _write(place, part, touched, dataclasses.replace(ledger, quarantine=scrubbed, counts=kept))
    return number


def _clean_loss(lost: Quarantined, victims: Victims) -> Quarantined:
    record, detail = (victims.taken_down.scrubbed(text) for text in (lost.record, lost.detail))
    return dataclasses.replace(lost, record=record, detail=detail)


class _Part:
    """A part that is open, and what changes in it."""

    def __init__(self, file: pq.ParquetFile, stage: str, cleaning: Cleaning) -> None:
        self.file, self._cleaning = file, cleaning
        self._rule = rule_of(stage, frozenset(file.schema_arrow.names))
        self._shows_bytes = stage in SHOWING

    def changes(self, group: int) -> Changes:
        """Return what changes in a row group."""
        columns = None if self._shows_bytes else light_columns(self.file.schema)
        light = self.file.read_row_group(group, columns=columns, use_threads=False)
        needles, victims = self._cleaning.needles, self._cleaning.victims
        suspected = suspected_rows(light, needles, victims, look_at_bytes=self._shows_bytes)
        if not suspected:
            return {}
        whole = self.file.read_row_group(group, use_threads=False)
        found: dict[int, tuple[Row, Row | None]] = {}
        for number in suspected:
            (row,) = whole.slice(number, 1).to_pylist()
            left = self._rule(row, victims)
            if left != row:
                found[number] = (row, left)
        return found


def _write(place: Place, part: _Part, touched: Collection[int], ledger: Ledger) -> None:
    temporary, file = temporary_path(place), part.file
    schema = file.schema_arrow
    kept = {name: value for name, value in (schema.metadata or {}).items() if name != LEDGER_KEY}
    schema = schema.with_metadata(kept) if kept else schema.remove_metadata()
    try:
        with temporary.open("wb") as sink, pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            rows = 0
            for group in range(file.num_row_groups):
                changes = part.changes(group) if group in touched else {}
                table = _changed(file.read_row_group(group, use_threads=False), changes)
                if table.num_rows:
                    writer.write_table(table.replace_schema_metadata(kept or None), row_group_size=table.num_rows)
                    rows += table.num_rows
            sink.flush()
            ledger = dataclasses.replace(ledger, rows=rows, **_digests(temporary, schema, ledger))
            writer.add_key_value_metadata({LEDGER_KEY.decode(): ledger.to_json()})
        commit(temporary, place)
    except OSError as error:
        raise OutputError(f"{place}: cannot be written ({error.strerror}). Free space and run it again.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _changed(table: pa.Table, changes: Changes) -> pa.Table:
    """Return a table with some rows replaced or left out; the others are as they were, byte for byte."""
    if not changes:
        return table
    return pa.concat_tables(_slices(table, changes)).combine_chunks()


def _slices(table: pa.Table, changes: Changes) -> Iterator[pa.Table]:
    start = 0
    for number, (_, row) in sorted(changes.items(), key=lambda change: change[0]):
        yield table.slice(start, number - start)
        if row is not None:
            yield pa.Table.from_pylist([row], table.schema)
        start = number + 1
    yield table.slice(start)


def _digests(rows: Path, schema: pa.Schema, ledger: Ledger) -> dict[str, Any]:
    """Return the digests of a shard's new rows, as a part takes them; of any other table none: its own stay."""
    if not set(schema.names) >= set(SAMPLES.names) or COUNT not in ledger.counts:
        return {}
    digest = hashlib.sha256()
    with rows.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    rows_digest = digest.hexdigest()
    digest.update(schema.serialize())
    return {"rows_digest": rows_digest, "digest": digest.hexdigest()}
