"""What a signal is: a named number (or word) of a block or a document, where it comes from, and how it is drawn.

`Column` is what is measured and stored, `Signal` what rules name: often a column itself, or a ratio of two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

if TYPE_CHECKING:
    from carnac.curate.signals.frame import Frame

Level = Literal["text", "image", "document"]
Over = Literal["page", "kept"]
Table = Literal["signals", "image_signals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A stored measure: one value per document, or, where the name begins with `block_`, one per block.

    `type` is that of one value. `remeasured`: of a document whose texts were dropped in part it is measured again over
    what is kept, before the next pass judges it; what adds up over blocks needs no such thing.
    """

    name: str
    type: pa.DataType
    table: Table = "signals"
    remeasured: bool = False

    @property
    def is_of_blocks(self) -> bool:
        """Whether it has a value per block."""
        return self.name.startswith("block_")

    @property
    def field(self) -> pa.Field:
        """The column of the table on disk."""
        return pa.field(self.name, pa.list_(self.type) if self.is_of_blocks else self.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A number that rules judge: `value(frame)` gives one per block (on text, image) or per document, as float64.

    NaN stands for what is not known, which no threshold drops. A signal with `is_label` gives words instead (an Arrow
    array of strings, null where not known). `columns` are those that `value` reads. `over` is for documents: "page" was
    measured on the whole page, "kept" is taken over the blocks that are still kept. `needs_file`: of an image without a
    kept file it is not known, and a rule on it drops that image. `scale` is the axis of its histogram.
    """

    name: str
    level: Level
    unit: str
    description: str
    source: str
    columns: tuple[str, ...]
    value: Callable[[Frame], Any]
    over: Over | None = None
    is_label: bool = False
    needs_file: bool = False
    scale: Literal["linear", "log"] = "linear"

    def __post_init__(self) -> None:
        assert (self.over is not None) == (self.level == "document"), f"{self.level}.{self.name}: over is {self.over}"
