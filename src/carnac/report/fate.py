"""One document's fate: what each pass did to it and to its blocks, and by which values.

Flow in: the folders of a run that hold masks, signals and what was searched, and where the document lies (unit, row).
Flow out: a `PassFate` per pass, in their order. What is not there is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.core.schema import HITS
from carnac.curate.funnel.rules import look
from carnac.curate.masks import Masks, Reasons
from carnac.curate.settings import Rule, RulesPass
from carnac.curate.signals.frame import Frame
from carnac.engine.buckets import read_equal
from carnac.engine.manifest import Manifest, PartEntry
from carnac.engine.tables import open_part
from carnac.report.folders import StageFolder

MAX_HITS = 50  # of one pass on one document
_PLAIN = ("id", "row", "block", "reason", "unit")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFate:
    """A block that a pass dropped; `value` is that of the rule's signal, `why` what a search found."""

    block: int
    reason: str
    value: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PassFate:
    """What a pass did to a document.

    `state` is "kept", "dropped", or "gone" where an earlier pass had dropped it; `reason` is that of this pass.
    `values` are (signal, value) of the pass's rules on documents. `blocks` are those that it dropped, `num_left` how
    many of `num_blocks` are kept after it.
    """

    name: str
    kind: str
    state: str
    reason: str | None
    why: str
    values: tuple[tuple[str, str], ...]
    blocks: tuple[BlockFate, ...]
    num_left: int
    num_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a document lies: its id, its unit, its row in that unit's part."""

    id: str
    unit: str
    row: int


def read_fate(folders: Sequence[StageFolder], pass_names: Sequence[str], where: Location) -> tuple[PassFate, ...]:
    """Return the fate of a document; nothing where no masks hold it. `pass_names` are in the recipe's order."""
    masks = [folder.content for folder in folders if folder.stage == "masks" and _has(folder.content, where)]
    masks.sort(key=lambda manifest: _order(manifest, pass_names))
    fates: list[PassFate] = []
    last: Masks | None = None
    for manifest in masks:
        table = _row(manifest, where, ["id", "reason", "block_reason"])
        if table is None:
            continue
        now = Masks.from_table(table)
        # A mask of other blocks is of another run in the same folder.
        if last is None or len(last.block_reason) == len(now.block_reason):
            fates.append(_fate(folders, manifest, where, (last, now, Reasons.from_table(table))))
            last = now
    return tuple(fates)


def _order(manifest: Manifest, pass_names: Sequence[str]) -> tuple[int, int, str]:
    """Return where a pass comes: as the funnel says, else by its reasons, to which each pass adds."""
    name = manifest.folder.name
    number = pass_names.index(name) if name in pass_names else len(pass_names)
    return number, len(manifest.settings.get("reasons", ())), name


def _fate(
    folders: Sequence[StageFolder], manifest: Manifest, where: Location, masks: tuple[Masks | None, Masks, Reasons]
) -> PassFate:
    last, now, reasons = masks
    was_kept = last is None or bool(last.keep[0])
    is_kept = bool(now.keep[0])
    step = manifest.settings.get("pass", {})
    hits = _hits(folders, manifest.folder.name, where) if was_kept else {}
    measured = _measured(folders, manifest, where, (last, now)) if was_kept else {}
    before = np.ones(len(now.block_reason), np.bool_) if last is None else last.keep_block
    dropped = np.flatnonzero(before & ~now.keep_block).tolist() if was_kept else []
    names = {block: reasons.names[now.block_reason[block]] for block in dropped}
    return PassFate(
        name=manifest.folder.name,
        kind=str(step.get("kind", manifest.settings.get("kind", ""))),
        state="kept" if is_kept else "dropped" if was_kept else "gone",
        reason=None if is_kept or not was_kept else reasons.names[now.reason[0]],
        why=hits.get(None, ""),
        values=tuple((name, values[0]) for (on, name), values in measured.items() if on == "document"),
        blocks=tuple(
            BlockFate(block=block, reason=name, value=_value_at(measured, name, block), why=hits.get(block, ""))
            for block, name in names.items()
        ),
        num_left=int(now.is_alive.sum()),
        num_blocks=len(now.block_reason),
    )


_Values = dict[tuple[str, str], list[str]]  # by (level, signal): one of the document, or one of each block


def _measured(
    folders: Sequence[StageFolder], manifest: Manifest, where: Location, masks: tuple[Masks | None, Masks]
) -> _Values:
    """Return the values of the signals that a pass of rules judged by, as it saw them."""
    try:
        step = RulesPass.model_validate_json(json.dumps(manifest.settings.get("pass", {})))
    except ValidationError:
        return {}
    name, base = manifest.folder.name, manifest.folder.parent.parent
    wanted = (base / "signals", base / "image_signals", base / "kept_signals" / name)
    tables = [
        table
        for place in wanted
        for folder in folders
        if str(folder.content.folder) == str(place) and (table := _row(folder.content, where, None)) is not None
    ]
    if not tables or "block_kind" not in tables[0].column_names:
        return {}
    last, now = masks
    frame = Frame.of(*tables)
    if len(frame.kinds) != len(now.block_reason):
        return {}
    alive = np.ones(len(frame.kinds), np.bool_) if last is None else last.keep_block
    values: _Values = {}
    for rule in step.rules:
        is_document = rule.on == "document"
        seen = frame.with_kept(now.keep_block if is_document else alive)
        said = _said(seen, rule, np.ones(1, np.bool_) if is_document else alive)
        if said is not None:
            values[rule.on, rule.signal] = said
    return values


def _said(frame: Frame, rule: Rule, alive: Any) -> list[str] | None:
    try:
        looked = look(frame, rule, alive)
    except KeyError:  # a column that was not measured then
        return None
    if looked.labels is not None:
        return [label or "not known" for label in looked.labels.to_pylist()]
    assert looked.values is not None
    return ["not known" if np.isnan(value) else f"{value:,.4g}" for value in looked.values.tolist()]


def _value_at(measured: _Values, reason: str, block: int) -> str:
    """Return the value by which a block was dropped: its reason begins with level and signal."""
    on, _, rest = reason.partition(".")
    values = measured.get((on, rest.partition(" ")[0]))
    return "" if values is None or block >= len(values) else values[block]


def _hits(folders: Sequence[StageFolder], name: str, where: Location) -> dict[int | None, str]:
    """Return what the search of a pass says of the document (None) and of its blocks."""
    found: dict[int | None, str] = {}
    for folder in folders:
        if folder.content.folder.name != name or folder.stage == "masks":
            continue
        for part in folder.content.parts:
            for hit in _hits_in(part, where):
                more = [f"{key} {value}" for key, value in hit.items() if key not in _PLAIN and value is not None]
                found.setdefault(hit["block"], ", ".join(more))
                if len(found) == MAX_HITS:
                    return found
    return found


def _hits_in(part: PartEntry, where: Location) -> Iterator[Mapping[str, Any]]:
    with open_part(part.path) as file:
        schema = file.schema_arrow
    names = schema.names
    if not set(HITS.names) <= set(names) or ("unit" not in names and part.unit != where.unit):
        return
    columns = [name for name in names if not pa.types.is_nested(schema.field(name).type)]
    # A table of all parts is sorted by unit.
    key, value = ("unit", where.unit) if "unit" in names else ("row", where.row)
    for batch in read_equal(part.path, key, value, columns):
        yield from batch.filter(pc.equal(batch["row"], where.row)).to_pylist()


def _has(manifest: Manifest, where: Location) -> bool:
    return any(part.unit == where.unit for part in manifest.parts)


def _row(manifest: Manifest, where: Location, columns: list[str] | None) -> pa.Table | None:
    """Return the document's row of a stage as a table; None where that is another document's, or cannot be read."""
    try:
        return _row_of(manifest.part(where.unit).path, where, columns)
    except InputError:
        return None


def _row_of(part: Place, where: Location, columns: list[str] | None) -> pa.Table | None:
    row = where.row
    with open_part(part) as file:
        for group in range(file.num_row_groups):
            number = file.metadata.row_group(group).num_rows
            if row < number:
                table = file.read_row_group(group, columns=columns, use_threads=False).slice(row, 1)
                return table if table.column("id")[0].as_py() == where.id else None
            row -= number
    return None
