"""Make a finished chain lie: copy it, change the least of it, and let the golden test find that."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from golden_chain import OUTPUTS
from golden_measure import find_outputs

from carnac.engine.ledger import LEDGER_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One value that was changed: where a message must say that it is."""

    column: str
    unit: str
    row: int


def copy_chain(chain: Path, folder: Path) -> Path:
    """Copy a chain by hard links: what is changed there is written anew, never in place."""
    shutil.copytree(chain, folder, copy_function=os.link)
    return folder


def change_value(chain: Path, name: str) -> Change:
    """Change one value, by as little as can be, in the last row of output `name` that has one in its last column."""
    for path, ledger in reversed(find_outputs(chain / OUTPUTS)[name].parts.items()):
        table = pq.read_table(path)
        rows = table.to_pylist()
        for column in reversed(table.column_names):
            for number in reversed(range(len(rows))):
                changed = least_change(rows[number][column])
                if changed != rows[number][column]:
                    rows[number][column] = changed
                    rewrite(path, pa.Table.from_pylist(rows, table.schema))
                    return Change(column=column, unit=ledger.unit, row=number)
    raise AssertionError(f"{name}: no value to change")


def least_change(value: Any) -> Any:
    """Return another value of the same type as near as can be; None and what holds nothing else stay."""
    if isinstance(value, dict):
        name = next((name for name, item in value.items() if least_change(item) != item), None)
        return value if name is None else {**value, name: least_change(value[name])}
    if isinstance(value, list):
        at = next((at for at, item in enumerate(value) if least_change(item) != item), None)
        return value if at is None else [*value[:at], least_change(value[at]), *value[at + 1 :]]
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return math.nextafter(value, math.inf)
    more: dict[type, Any] = {int: 1, str: ".", bytes: b"."}
    return value + more[type(value)] if type(value) in more else value


def rewrite(path: Path, table: pa.Table, step: int = 0) -> None:
    """Put other rows in the place of a part's, under its ledger, with the version changed by `step`."""
    ledger = json.loads(pq.read_metadata(path).metadata[LEDGER_KEY])
    ledger["version"] += step
    path.unlink()
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({LEDGER_KEY.decode(): json.dumps(ledger)})


def change_version(chain: Path, name: str, step: int) -> None:
    """Change the version of the stage that wrote output `name`, as its parts have it."""
    for path in find_outputs(chain / OUTPUTS)[name].parts:
        rewrite(path, pq.read_table(path), step)
