"""What a pass of rules on documents alone judges: their signals' values over the blocks that are kept, stored once.

    signals, image_signals, kept_signals, last masks --document_values--> a number per document and signal

So judging with other thresholds reads no column of blocks: eleven rules on a million documents of 43 blocks take 4 s of
CPU instead of 10 (bench/judging.py), most of it for the masks themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.core.places import Place
from carnac.curate.rules import Values, signals_named, values_of
from carnac.curate.settings import Rule, RulesPass
from carnac.curate.signals.catalogue import signals_on
from carnac.engine.manifest import Manifest
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit
from carnac.jobs.curate_sources import Sources, StoredParts, read_stored, stored_parts

VALUES_FOLDER = "values"  # in the folder of the pass's masks
FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuesTask:
    """What a worker needs for the values of one part."""

    stored: StoredParts
    rules: tuple[Rule, ...]


def write_values(runner: Runner, sources: Sources, step: RulesPass, folder: Place) -> Manifest:
    """Write the values of the signals that a pass of rules on documents names, to `folder`/values."""
    names = sorted(signals_named(step.rules))
    stage = Stage(
        name="document_values", version=1, schema=_schema(names), work=write_unit, rows_per_group=10_000, is_step=True
    )
    units = []
    for entry in sources.signals.parts:
        stored, digests = stored_parts(sources, step, entry.unit)
        task = ValuesTask(stored=stored, rules=step.rules)
        units.append(stage.unit(entry.unit, task, settings={"signals": names}, inputs=digests))
    place = folder / VALUES_FOLDER
    entries = runner.do(stage, units, place)
    return runner.publish(stage, place, entries, {"signals": names}, {"signals": str(sources.signals.folder)})


def write_unit(unit: Unit, part: Part) -> None:
    """Write the values of one part, row for row."""
    task: ValuesTask = unit.task
    names = sorted(signals_named(task.rules))
    for batch in read_stored(task.stored):
        values = values_of(batch.frame.with_kept(batch.last.keep_block), task.rules)
        columns = [batch.last.ids, pa.array(batch.failed), *(pa.array(values[name]) for name in names)]
        part.write_table(pa.table(columns, schema=_schema(names)))


def values_from(table: pa.Table) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Return the values of some rows by signal, and which documents could not be measured."""
    signals = signals_on("document")
    values = {
        name: table.column(name).combine_chunks() if signals[name].is_label else table.column(name).to_numpy()
        for name in table.column_names
        if name in signals
    }
    return values, table.column(FAILED).to_numpy()


def _schema(names: list[str]) -> pa.Schema:
    signals = signals_on("document")
    columns = [(name, pa.string() if signals[name].is_label else pa.float64()) for name in names]
    return pa.schema([("id", pa.string()), (FAILED, pa.bool_()), *columns])
