"""The sizes of a model as text: a line per part, and what memory that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from carnac.core.errors import InputError
from carnac.core.places import Place, is_local
from carnac.report.layout import rendered

if TYPE_CHECKING:
    from carnac.model.describe import ModelSize


def size_text(size: ModelSize) -> str:
    """Return a table of the parts (what, parameters, how many are trained) and two lines of squares and memory."""
    table = Table("part", box=None, pad_edge=False)
    for name in ("parameters", "trained"):
        table.add_column(name, justify="right")
    table.add_column("what it is", overflow="fold")
    for part in size.parts:
        table.add_row(part.name, f"{part.parameters:,}", f"{part.trained:,}", part.kind)
    table.add_row("all", f"{size.parameters:,}", f"{size.trained:,}", "")
    tokens = "1 place in a row" if size.tokens_per_image == 1 else f"{size.tokens_per_image} image tokens"
    squares = f"squares of {size.image_size_px} px, {tokens} each"
    memory = (
        f"memory in fp32: weights {_amount(size.weight_bytes)}; in training {_amount(size.training_bytes)} with "
        f"gradients and AdamW's moments, activations on top; cache of {_amount(size.cache_bytes)} per token"
    )
    return f"{rendered(table)}\n{squares}\n{memory}"


def folder_text(folder: Place | None) -> str:
    """Return the sizes of a model's folder; nothing where there is none on a disk, or its files do not tell."""
    if folder is None or not is_local(folder):
        return ""
    from carnac.model.describe import measure_folder

    try:
        return size_text(measure_folder(folder))
    except InputError:
        # A run's folder is shown with what is wrong in it; what opens the model says what is.
        return ""


def _amount(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.2f} {unit}" if count < 10 * size else f"{count / size:,.0f} {unit}"
    return f"{count / 1e3:.1f} KB"
