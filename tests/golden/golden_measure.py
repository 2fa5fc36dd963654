"""What a stage's folder says, whatever its files look like: the same facts for the same rows.

In: the folders of a finished chain. Out: facts that go to JSON, with digests fine enough to tell what changed. Not in
them: how Parquet encodes, keys (they hold modification times), seconds, where the folder lies.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
from golden_chain import OUTPUTS, READS, given

from carnac.engine.ledger import LEDGER_KEY, Ledger, read_ledger
from carnac.engine.manifest import MANIFEST, read_manifest
from carnac.engine.unit import KEY_CHARACTERS

STEPS = "#steps"
VALUE_DIGITS = 4  # of the hex digits of a value's digest: to point at rows; the column's digest is whole


class Column(TypedDict):
    """The values of one column: the digest of all, and `VALUE_DIGITS` of the digest of each."""

    digest: str
    values: str


class Table(TypedDict):
    """Rows of all parts in the manifest's order: how many each unit has, and what stands in them."""

    units: dict[str, int]
    columns: dict[str, Column]


class Folder(TypedDict):
    """A stage's folder. `digest` is that of `rows` and all below it."""

    stage: str
    version: int
    num_rows: int
    digest: str
    settings: str
    rows: Table
    types: dict[str, str]
    footer: dict[str, str]
    beside: dict[str, str]
    counts: dict[str, int]
    lost: Table


class Golden(TypedDict):
    """A finished chain. `made_with` explains differences, it makes none."""

    made_with: dict[str, str]
    given: dict[str, str]
    folders: dict[str, Folder]


CONTENT = ("rows", "types", "footer", "beside")  # what the stages that read a folder can see of it
LOST_COLUMNS = ("record", "reason", "detail")
FACTS = (*CONTENT, "counts", "lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a stage left in a folder, part by part in the manifest's order. `settings` are the manifest's."""

    parts: dict[Path, Ledger]
    settings: dict[str, Any]


def measure(folder: Path, only: Collection[str] | None = None) -> Golden:
    """Measure what every stage left in the chain that was run in `folder`, or `only` some, in the chain's order."""
    outputs = find_outputs(folder / OUTPUTS)
    keys = Keys(ledger.key for output in outputs.values() for ledger in output.parts.values())
    return {
        "made_with": made_with(),
        "given": given(folder),
        "folders": {
            name: measure_output(output, keys) for name, output in outputs.items() if only is None or name in only
        },
    }


def find_outputs(root: Path) -> dict[str, Output]:
    """Return all outputs under `root` by the names that `READS` gives them, those that it lacks last.

    A folder without a manifest is one that only its own job reads: all its parts count, by the names of their units.
    Parts of inner steps that a manifest lists apart are an output of their own, `FOLDER#steps`.
    """
    found: dict[str, Output] = {}
    for folder in sorted({path.parent for path in root.rglob("*.parquet")}):
        name, settings, listed = folder.relative_to(root).as_posix(), {}, sorted(folder.glob("*.parquet"))
        if (folder / MANIFEST).is_file():
            manifest = read_manifest(folder)
            settings, listed = manifest.settings, [Path(str(part.path)) for part in manifest.parts]
            if manifest.steps:
                steps = {Path(str(part.path)): read_ledger(part.path) for part in manifest.steps}
                found[f"{name}{STEPS}"] = Output(parts=steps, settings=settings)
        parts = {path: read_ledger(path) for path in listed}
        turns = [turn.partition("#")[2] for turn in READS if turn.startswith(f"{name}#") and not turn.endswith(STEPS)]
        for turn in turns:
            there = {path: ledger for path, ledger in parts.items() if ledger.unit.startswith(f"{turn}-")}
            found[f"{name}#{turn}"] = Output(parts=there, settings=settings)
            parts = {path: ledger for path, ledger in parts.items() if path not in there}
        if parts or not turns:
            found[name] = Output(parts=parts, settings=settings)
    assert found, f"{root}: no chain was run there"
    order = list(READS)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def made_with() -> dict[str, str]:
    """Return what floats and characters may depend on beside the libraries."""
    return {"python": ".".join(platform.python_version_tuple()[:2]), "machine": platform.machine()}


class Keys:
    """The keys of a run: they stand in file names, and so in rows that name files, but are no output."""

    def __init__(self, keys: Iterable[str]) -> None:
        starts = sorted({key[:KEY_CHARACTERS] for key in keys})
        self._pattern = re.compile(f"(?:{'|'.join(starts)})(?:[0-9a-f]{{{64 - KEY_CHARACTERS}}})?")

    def hide(self, text: str) -> str:
        """Return `text` with KEY for each key."""
        return self._pattern.sub("KEY", text)


def measure_output(output: Output, keys: Keys) -> Folder:
    """Measure what one stage left in a folder."""
    ledgers = list(output.parts.values())
    assert len({(ledger.stage, ledger.version) for ledger in ledgers}) == 1, "parts of one stage and version"
    tables = {ledger.unit: pq.read_table(path) for path, ledger in output.parts.items()}
    rows = {unit: table.to_pylist() for unit, table in tables.items()}
    lost = {
        ledger.unit: [{name: getattr(entry, name) for name in LOST_COLUMNS} for entry in ledger.quarantine]
        for ledger in ledgers
    }
    beside = {name: path.parent / name for path, ledger in output.parts.items() for name in ledger.beside}
    schemas = [table.schema for table in tables.values()]
    counts: Counter[str] = Counter()
    for ledger in ledgers:
        counts.update(ledger.counts)
    facts: dict[str, Any] = {
        "rows": measure_rows(rows, list(dict.fromkeys(name for schema in schemas for name in schema.names)), keys),
        "types": {field.name: type_name(field.type) for schema in schemas for field in schema},
        "footer": {name: text for schema in schemas for name, text in measure_footer(schema, keys).items()},
        "beside": {keys.hide(name): digest(path.read_bytes()) for name, path in sorted(beside.items())},
        "counts": dict(sorted(counts.items())),
        "lost": measure_rows(lost, LOST_COLUMNS, keys),
    }
    assert tuple(facts) == FACTS
    return {
        "stage": ledgers[0].stage,
        "version": ledgers[0].version,
        "num_rows": sum(table.num_rows for table in tables.values()),
        "digest": digest(canonical(facts)),
        "settings": digest(canonical(output.settings)),
        **facts,  # type: ignore[typeddict-item]  # the fields that FACTS names
    }


def measure_rows(units: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str], keys: Keys) -> Table:
    """Measure rows column by column; `units` are in the manifest's order."""
    columns: dict[str, Column] = {}
    for name in names:
        values = [digest(keys.hide(canonical(row.get(name)))) for rows in units.values() for row in rows]
        columns[name] = {"digest": digest("".join(values)), "values": "".join(text[:VALUE_DIGITS] for text in values)}
    return {"units": {unit: len(rows) for unit, rows in units.items()}, "columns": columns}


def measure_footer(schema: pa.Schema, keys: Keys) -> dict[str, str]:
    """Return what a stage's own schema says in the footer: the names of reasons, the features of shards."""
    footer = schema.metadata or {}
    assert LEDGER_KEY not in footer, "a ledger is no part of a schema"
    return {name.decode(): digest(keys.hide(value.decode())) for name, value in sorted(footer.items())}


def type_name(kind: pa.DataType) -> str:
    """Return a type in words that no version of pyarrow changes: theirs name the items of lists differently."""
    if pa.types.is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {type_name(field.type)}' for field in kind)}>"
    return str(kind)


def canonical(value: Any) -> str:
    """Return a value as JSON: keys sorted, floats to the last bit, bytes as their digest."""

    def encode(other: Any) -> dict[str, str]:
        if isinstance(other, bytes):
            return {"sha256": digest(other)}
        raise TypeError(f"{type(other).__name__}: no canonical form; give it one in golden_measure.py")

    return json.dumps(value, sort_keys=True, default=encode)


def digest(content: str | bytes) -> str:
    """Return the sha256 of a text or of bytes, in hex."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()
