"""One document's fate as lines for a terminal and rows for a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from carnac.report.fate import BlockFate, PassFate

MAX_BLOCKS = 6  # of one reason, by number


@dataclass(frozen=True, slots=True, kw_only=True)
class FateRow:
    """What a pass did, for a page: a verdict, and what is behind it, line by line."""

    name: str
    kind: str
    state: str
    verdict: str
    lines: tuple[str, ...]


def fate_rows(fates: Sequence[PassFate]) -> list[FateRow]:
    """Return a row per pass."""
    return [
        FateRow(name=fate.name, kind=fate.kind, state=fate.state, verdict=_verdict(fate), lines=tuple(_behind(fate)))
        for fate in fates
    ]


def fate_lines(fates: Sequence[PassFate]) -> Iterator[str]:
    """Yield the fate as lines: a line per pass, and what is behind it."""
    yield "fate, pass by pass:"
    for row in fate_rows(fates):
        yield f"  {row.name}: {row.verdict}"
        yield from (f"    {line}" for line in row.lines)


def dropped_blocks(fates: Sequence[PassFate]) -> dict[int, str]:
    """Return why each block was dropped, by its number."""
    return {block.block: f"{fate.name}, {_because(block)}" for fate in fates for block in fate.blocks}


def _verdict(fate: PassFate) -> str:
    if fate.state == "gone":
        return "not judged: dropped before"
    left = f"{fate.num_left:,} of {fate.num_blocks:,} blocks left"
    if fate.state == "kept":
        return f"kept, {left}"
    why = f" ({fate.why})" if fate.why else ""
    return f"dropped: {fate.reason}{why}"


def _behind(fate: PassFate) -> Iterator[str]:
    if fate.values:
        yield ", ".join(f"{name} {value}" for name, value in fate.values)
    by_reason: dict[str, list[BlockFate]] = {}
    for block in fate.blocks:
        by_reason.setdefault(block.reason, []).append(block)
    for reason, blocks in by_reason.items():
        some = ", ".join(_number(block) for block in blocks[:MAX_BLOCKS])
        more = ", ..." if len(blocks) > MAX_BLOCKS else ""
        yield f"{len(blocks):,} block{'s' if len(blocks) > 1 else ''} dropped: {reason}: {some}{more}"


def _number(block: BlockFate) -> str:
    said = ", ".join(filter(None, (block.value, block.why)))
    return f"block {block.block + 1}{f' ({said})' if said else ''}"


def _because(block: BlockFate) -> str:
    said = ", ".join(filter(None, (block.value, block.why)))
    return f"{block.reason}{f' ({said})' if said else ''}"
