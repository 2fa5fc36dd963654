"""`metrics.jsonl` -> one array per number, to be drawn: a million steps take 200 MB so, a tenth of what rows take.

Whatever number a line holds, at whatever depth, becomes an array: fields that came later need nothing here.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Name = tuple[str, ...]
"""The keys that lead to a number in a line: ("loss",), ("sources", "web", "loss")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The numbers of a run by step: each of `values` is as long as `steps`, NaN at the steps that lack it."""

    steps: npt.NDArray[np.int64]
    values: Mapping[Name, Floats]

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.steps)

    def whole(self, *name: str) -> Floats:
        """Return a number at every step, NaN where a step lacks it."""
        found = self.values.get(name)
        return np.full(len(self.steps), np.nan) if found is None else found

    def there(self, *name: str) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the steps that have a number, and the number at each."""
        found = self.whole(*name)
        has = np.isfinite(found)
        return self.steps[has], found[has]

    def losses(self, *within: str) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return steps and losses, of a source where `within` names one; a step without labels has none."""
        found = np.where(self.whole(*within, "label_tokens") > 0, self.whole(*within, "loss"), np.nan)
        has = np.isfinite(found)
        return self.steps[has], found[has]

    def below(self, prefix: str) -> list[str]:
        """Return the names one level below `prefix`, in the order in which they came."""
        return list(dict.fromkeys(name[1] for name in self.values if name[0] == prefix and len(name) > 1))


def read_series(path: Path) -> Series:
    """Return the numbers of a metrics file; lines that are not whole are left out, a missing file has none."""
    if not path.is_file():
        return series_of(())
    with path.open("rb") as file:
        return series_of(_rows(file))


def series_of(rows: Iterable[Mapping[str, Any]]) -> Series:
    """Return the numbers of rows as arrays."""
    steps = array("q")
    columns: dict[Name, array[float]] = {}
    for row in rows:
        _add(row, (), columns, len(steps))
        steps.append(row["step"])
    for column in columns.values():
        column.extend([float("nan")] * (len(steps) - len(column)))
    values = {name: np.frombuffer(column, dtype=np.float64) for name, column in columns.items() if name != ("step",)}
    return Series(steps=np.array(steps, dtype=np.int64), values=values)


def _add(row: Mapping[str, Any], prefix: Name, columns: dict[Name, array[float]], number: int) -> None:
    """Append the numbers of row `number` to their columns, which end where they last had one."""
    for key, value in row.items():
        kind = type(value)
        if kind is dict:
            _add(value, (*prefix, key), columns, number)
        # An integer of JSON may be longer than a float reaches.
        elif kind is float or (kind is int and abs(value) < 2**63):
            column = columns.get(name := (*prefix, key))
            if column is None:
                column = columns[name] = array("d")
            if len(column) != number:
                column.extend([float("nan")] * (number - len(column)))
            column.append(value)


def _rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # what a killed run was writing
        # A step is a number of 64 bits to an array, of any length to JSON.
        if not isinstance(row, dict) or type(row.get("loss")) not in (float, int):
            continue
        if type(step := row.get("step")) is int and 0 <= step < 2**63:
            yield row
