"""What does not add up over blocks, measured again before a pass that judges it: `kept_signals/<pass>`.

    documents, signals, last masks --kept_signals--> the columns, over the texts that are kept     one unit per part

Only documents that are kept and lost a text are measured again, and only row groups with such documents are opened;
the others' numbers are copied from `signals/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.core.places import Place
from carnac.curate.masks import Masks, check_same_rows
from carnac.curate.signals.catalogue import column_named
from carnac.curate.signals.frame import IMAGE_KIND
from carnac.curate.signals.measure import measure_texts_again
from carnac.engine.manifest import Manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.tables import open_part, read_batches, read_table
from carnac.engine.unit import Stage, Unit

NOT_MEASURED = "not_measured"  # in `failed`: a record that was lost now, though it could be measured before
MEASURED_AGAIN = "measured_again"  # count of the ledger
ROWS_COPIED = 2_000  # at once
ROWS_OPENED = 64  # documents with all their texts


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTask:
    """What a worker needs to measure what is kept of one part."""

    documents: Place
    signals: Place
    last: Place
    columns: tuple[str, ...]


def remeasure(
    runner: Runner, folder: Place, documents: Manifest, signals: Manifest, last: Manifest, columns: Sequence[str]
) -> Manifest:
    """Write the stored `columns`, which must be `remeasured` ones, over what `last` keeps, to `folder`."""
    names = tuple(sorted(columns))
    stage = Stage(name="kept_signals", version=1, schema=_schema(names), work=remeasure_unit, is_step=True)
    units = []
    for entry in documents.parts:
        measured, kept = signals.part(entry.unit), last.part(entry.unit)
        task = KeptTask(documents=entry.path, signals=measured.path, last=kept.path, columns=names)
        inputs = [entry.digest, measured.digest, kept.rows_digest]
        units.append(stage.unit(entry.unit, task, settings={"columns": list(names)}, inputs=inputs))
    entries = runner.do(stage, units, folder)
    return runner.publish(stage, folder, entries, {"columns": list(names)}, {"masks": str(last.folder)})


def remeasure_unit(unit: Unit, part: Part) -> None:
    """Write the columns of one part, row for row."""
    task: KeptTask = unit.task
    kinds = read_table(task.signals, ["id", "block_kind"])
    stored = read_table(task.last, ["id", "reason", "block_reason"])
    check_same_rows(kinds, stored)
    last = Masks.from_table(stored)
    again = _changed(last, kinds.column("block_kind").combine_chunks().flatten().to_numpy() == IMAGE_KIND)
    measured = _measure_again(part, task, last, again)
    following = next(measured, None)
    first = 0
    for batch in read_batches(task.signals, ["id", "failed", *task.columns], ROWS_COPIED):
        columns = {name: batch.column(name).to_pylist() for name in ("failed", *task.columns)}
        while following is not None and following[0] < first + batch.num_rows:
            row, values = following
            for name, column in columns.items():
                column[row - first] = values[name]
            following = next(measured, None)
        part.write_table(pa.table({"id": batch.column("id"), **columns}, schema=_schema(task.columns)))
        first += batch.num_rows
    part.count(MEASURED_AGAIN, len(again))


def _changed(last: Masks, is_image: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the rows of the documents that are kept and lost a text."""
    gone = np.zeros(len(is_image) + 1, np.int64)
    np.cumsum(~last.keep_block & ~is_image, out=gone[1:])
    return np.flatnonzero(last.keep & (gone[last.starts[1:]] > gone[last.starts[:-1]]))


def _measure_again(
    part: Part, task: KeptTask, last: Masks, rows: npt.NDArray[np.int64]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each of `rows` with the values of its columns."""
    keep = last.keep_block
    for row, document_id, texts in _open(task.documents, rows):
        wanted = last.ids[row].as_py()
        if document_id != wanted:
            check_same_rows(pa.table({"id": [wanted]}), pa.table({"id": [document_id]}))
        kept = keep[last.starts[row] : last.starts[row + 1]].tolist()
        left = [text for text, is_kept in zip(texts, kept, strict=True) if is_kept and text is not None]
        values = part.attempt(f"{document_id}@{row}", measure_texts_again, left)
        if values is LOST:
            yield row, {"failed": NOT_MEASURED, **dict.fromkeys(task.columns)}
        else:
            yield row, {"failed": None, **values}


def _open(documents: Place, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, str, list[str | None]]]:
    """Yield `rows` (ascending) of a documents part with their id and texts; row groups without any are not read."""
    if not len(rows):
        return
    with open_part(documents) as file:
        first = 0
        for group in range(file.num_row_groups):
            stop = first + file.metadata.row_group(group).num_rows
            if _between(rows, first, stop):
                columns = ["id", "texts"]
                for batch in file.iter_batches(ROWS_OPENED, row_groups=[group], columns=columns, use_threads=False):
                    for row in _between(rows, first, first + batch.num_rows):
                        yield row, *(batch.column(name)[row - first].as_py() for name in columns)
                    first += batch.num_rows
            first = stop


def _between(rows: npt.NDArray[np.int64], first: int, stop: int) -> list[int]:
    start, end = np.searchsorted(rows, [first, stop]).tolist()
    between: list[int] = rows[start:end].tolist()
    return between


def _schema(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([("id", pa.string()), ("failed", pa.string()), *(column_named(name).field for name in columns)])
