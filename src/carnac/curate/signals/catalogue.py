"""All signals that rules may name and all columns that are stored for them.

Adding a signal is adding an entry to one of the lists put together here: recipes may name it at once, it gets its
histogram, and a misspelt one is answered with the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from carnac.curate.signals.of_images import IMAGE_COLUMNS, IMAGE_SIGNALS
from carnac.curate.signals.of_pages import PAGE_COLUMNS, PAGE_SIGNALS
from carnac.curate.signals.of_safety import SAFETY_COLUMNS, SAFETY_SIGNALS
from carnac.curate.signals.of_texts import TEXT_COLUMNS, TEXT_SIGNALS
from carnac.curate.signals.signal import Column, Level, Signal

COLUMNS: tuple[Column, ...] = (*TEXT_COLUMNS, *PAGE_COLUMNS, *IMAGE_COLUMNS, *SAFETY_COLUMNS)
CATALOGUE: tuple[Signal, ...] = (*TEXT_SIGNALS, *PAGE_SIGNALS, *IMAGE_SIGNALS, *SAFETY_SIGNALS)


@cache
def signals_on(level: Level) -> Mapping[str, Signal]:
    """Return the signals of a level by name."""
    return MappingProxyType({signal.name: signal for signal in CATALOGUE if signal.level == level})


@cache
def column_named(name: str) -> Column:
    """Return a stored column."""
    return next(column for column in COLUMNS if column.name == name)
