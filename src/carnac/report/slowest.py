"""The units that took longest: one that is slow among equals holds something odd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from carnac.report.folders import StageFolder
from carnac.report.layout import rendered

NUM_UNITS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowUnit:
    """One unit, and how many times longer than the median unit of its stage it took (None: that took no time)."""

    stage: str
    unit: str
    seconds: float
    rows: int
    times_median: float | None

    @property
    def rate(self) -> str:
        """Rows per second."""
        return f"{self.rows / self.seconds:,.1f}" if self.seconds else ""

    @property
    def times(self) -> str:
        """How many times longer than the median unit."""
        return "" if self.times_median is None else f"{self.times_median:,.1f}x"


def slowest(folder: StageFolder) -> list[SlowUnit]:
    """Return the slowest units of a stage of more than one, the slowest first."""
    parts = folder.content.parts
    if len(parts) < 2:
        return []
    middle = median(part.seconds for part in parts)
    return [
        SlowUnit(
            stage=folder.title,
            unit=part.unit,
            seconds=part.seconds,
            rows=part.rows,
            times_median=part.seconds / middle if middle else None,
        )
        for part in sorted(parts, key=lambda part: (-part.seconds, part.unit))[:NUM_UNITS]
    ]


def slowest_text(folders: Sequence[StageFolder]) -> str:
    """Return a table of the slowest units, over all stages of more than one unit."""
    units = sorted((unit for folder in folders for unit in slowest(folder)), key=lambda unit: -unit.seconds)
    if not units:
        return ""
    table = Table("slowest units", "stage", box=None, pad_edge=False)
    for name in ("seconds", "vs median", "rows", "rows/s"):
        table.add_column(name, justify="right")
    for unit in units[:NUM_UNITS]:
        table.add_row(unit.unit, unit.stage, f"{unit.seconds:.1f}", unit.times, f"{unit.rows:,}", unit.rate)
    return rendered(table)
