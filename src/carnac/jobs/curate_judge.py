"""One pass over all parts: its masks, from the signals, the masks of the pass before and what was searched for it.

No text and no image is opened: only columns of `signals/`, `image_signals/`, `kept_signals/`, masks and hits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from carnac.core.places import Place
from carnac.core.schema import HIT_COLUMNS, HITS, MASKS
from carnac.curate.hits import WHOLE, Hits, judge_hits
from carnac.curate.masks import IMAGE_MISSING, NO_BLOCKS_LEFT, SIGNALS_FAILED, Masks, Reasons, check_same_rows
from carnac.curate.repeats.settings import RepeatsPass
from carnac.curate.rules import Judged, judge_documents, judge_rules
from carnac.curate.settings import RulesPass
from carnac.curate.signals.frame import starts_of
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.buckets import read_equal
from carnac.engine.manifest import Manifest, PartEntry
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_batches
from carnac.engine.unit import Stage, Unit
from carnac.jobs.curate_passes import AnyPass, FetchPass
from carnac.jobs.curate_sources import (
    Sources,
    StoredBatch,
    StoredParts,
    needs_files,
    read_stored,
    remeasured_columns,
    stored_parts,
)
from carnac.jobs.curate_values import values_from, write_values
from carnac.jobs.repeats_sources import naming

# Counts of a part of masks, before the name of a reason: blocks, or documents, that it alone would take, and of those
# the ones that no other reason of the pass takes.
OWN = "own."
MARGINAL = "marginal."
ROWS_BY_VALUES = 10_000  # judged at once where no columns of blocks are read but what is kept of them
__all__ = ("MARGINAL", "OWN", "Sources", "judge", "needs_files", "remeasured_columns")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeTask:
    """What a worker needs to judge one part. `hits` are all parts of a search for repeats, else the unit's own.

    With `values` the pass judges them and reads no columns of blocks.
    """

    stored: StoredParts
    values: Place | None
    hits: tuple[Place, ...]
    step: AnyPass
    reasons: Reasons


def judge(runner: Runner, sources: Sources, step: AnyPass, reasons: Reasons, folder: Place) -> Manifest:
    """Write the masks of one pass to `folder`."""
    values = None
    if isinstance(step, RulesPass) and all(rule.on == "document" for rule in step.rules):
        values = write_values(runner, sources, step, folder)
    settings = {"pass": step.model_dump(mode="json"), **_settings(step, reasons)}
    schema = MASKS.with_metadata(reasons.to_metadata())
    stage = Stage(name="masks", version=2, schema=schema, work=judge_unit, rows_per_group=ROWS_BY_VALUES)
    units = [_unit(stage, entry.unit, sources, values, step, reasons) for entry in sources.signals.parts]
    entries = runner.do(stage, units, folder)
    return runner.publish(stage, folder, entries, settings, {"signals": str(sources.signals.folder)})


def _unit(stage: Stage, name: str, sources: Sources, values: Manifest | None, step: AnyPass, reasons: Reasons) -> Unit:
    stored, digests = stored_parts(sources, step, name)
    hits = () if sources.hits is None else _hits_for(sources.hits, step, name)
    task = JudgeTask(
        stored=stored,
        values=None if values is None else values.part(name).path,
        hits=tuple(entry.path for entry in hits),
        step=step,
        reasons=reasons,
    )
    inputs = [*digests, *(entry.digest for entry in hits)]
    return stage.unit(name, task, settings=_settings(step, reasons), inputs=inputs)


def _settings(step: AnyPass, reasons: Reasons) -> dict[str, Any]:
    """Return what of a pass decides its masks: rules, or for other passes the hits, which are inputs."""
    rules = [rule.model_dump(mode="json") for rule in step.rules] if isinstance(step, RulesPass) else []
    return {"kind": step.kind, "rules": rules, "reasons": list(reasons.names)}


def _hits_for(hits: Manifest, step: AnyPass, unit: str) -> tuple[PartEntry, ...]:
    """Return the parts of a search that may name rows of a unit: all of a global search, else the unit's own."""
    return naming(hits.parts, unit) if isinstance(step, RepeatsPass) else (hits.part(unit),)


def judge_unit(unit: Unit, part: Part) -> None:
    """Write the masks of one part after one pass, and count what each reason takes by itself."""
    task: JudgeTask = unit.task
    kills: Counter[str] = Counter()
    for masks, taken in _judged_by_values(task) if task.values is not None else _judged(task, unit.name):
        part.write_table(masks.to_table(task.reasons))
        kills.update(taken)
    for name, number in kills.items():
        part.count(name, number)


def _judged_by_values(task: JudgeTask) -> Iterator[tuple[Masks, Mapping[str, int]]]:
    """Yield the masks of some documents after others, from what their signals came to."""
    assert task.values is not None
    assert isinstance(task.step, RulesPass)
    stored = task.stored
    lists = (
        (stored.signals, ["id", "block_kind"])
        if stored.last is None
        else (stored.last, ["id", "reason", "block_reason"])
    )
    parts: dict[str, tuple[Place, Sequence[str] | None]] = {"values": (task.values, None), "lists": lists}
    for _, tables in read_aligned_tables(parts, ROWS_BY_VALUES):
        check_same_rows(*tables.values())
        rows = tables["lists"]
        if stored.last is None:
            last = Masks.keeping_all(rows.column("id"), starts_of(rows.column("block_kind")))
        else:
            last = Masks.from_table(rows)
        values, failed = values_from(tables["values"])
        judged = judge_documents(values, last, failed, task.step.rules, task.reasons)
        yield judged.masks, _counts(judged)


def _judged(task: JudgeTask, unit: str) -> Iterator[tuple[Masks, Mapping[str, int]]]:
    """Yield the masks of some documents after others, from their stored columns and what was searched."""
    hits = _read_hits(task, unit)
    for batch in read_stored(task.stored):
        if isinstance(task.step, RulesPass):
            judged = judge_rules(batch.frame, batch.last, batch.failed, task.step.rules, task.reasons)
            yield judged.masks, _counts(judged)
        elif isinstance(task.step, FetchPass):
            yield _without_missing(batch, task.reasons), {}
        else:
            mine = hits.between(batch.first, len(batch.failed))
            yield judge_hits(batch.last, batch.failed, mine, task.reasons), {}


def _counts(judged: Judged) -> Mapping[str, int]:
    own = {f"{OWN}{name}": each.own for name, each in judged.kills.items()}
    return {**own, **{f"{MARGINAL}{name}": each.marginal for name, each in judged.kills.items()}}


def _without_missing(batch: StoredBatch, reasons: Reasons) -> Masks:
    """Return what is kept where images without a file go."""
    missing = batch.frame.is_image & ~batch.frame.flags("block_has_image")
    masks = batch.last.drop_documents(batch.failed, reasons.code(SIGNALS_FAILED))
    return masks.drop_blocks(missing, reasons.code(IMAGE_MISSING)).drop_emptied(reasons.code(NO_BLOCKS_LEFT))


def _read_hits(task: JudgeTask, unit: str) -> Hits:
    """Return what was found in a part, by row."""
    batches: list[pa.RecordBatch] = []
    for place in task.hits:
        if isinstance(task.step, RepeatsPass):
            batches += read_equal(place, "unit", unit, HIT_COLUMNS)
        else:
            batches += read_batches(place, HIT_COLUMNS)
    table = pa.Table.from_batches(batches, pa.schema([HITS.field(name) for name in HIT_COLUMNS])).sort_by("row")
    return Hits(
        row=table.column("row").to_numpy(),
        block=pc.fill_null(table.column("block"), WHOLE).to_numpy().astype(np.int64),
        reason=table.column("reason").to_pylist(),
    )
