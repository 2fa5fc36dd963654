"""The units of inner steps that lie beside the table of images: which of them count, and what they have lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from carnac.core.places import Place, is_local
from carnac.engine.manifest import collect_parts
from carnac.engine.unit import Unit
from carnac.report.folders import MAX_FOOTERS, StageFolder
from carnac.report.lost import LostRecords, lost_records

ARCHIVED = "archived~"  # how the units begin that read archives; the others fetched


def newest(folder: StageFolder, units: Sequence[Unit]) -> list[Unit]:
    """Return units by name, each once: of parts of several settings the one that was written last."""
    place = folder.content.folder
    if len({unit.name for unit in units}) < len(units):
        units = sorted(units, key=lambda unit: (_written(place, unit), unit.key))
    return sorted({unit.name: unit for unit in units}.values(), key=lambda unit: unit.name)


def spread(units: Sequence[Unit], most: int) -> list[Unit]:
    """Return at most `most` units, evenly spread."""
    if len(units) <= most:
        return list(units)
    return [units[number * len(units) // most] for number in range(most)]


def lost_in_steps(folder: StageFolder, recipes: Sequence[Place] = ()) -> Iterator[LostRecords]:
    """Yield what the units of inner steps have lost; of many units, `MAX_FOOTERS` are read, which the title says."""
    for stage in ("archived", "fetched"):
        units = newest(
            folder, [unit for unit in folder.steps if unit.name.startswith(ARCHIVED) == (stage == "archived")]
        )
        read = spread(units, MAX_FOOTERS)
        content = replace(folder.content, stage=stage, parts=collect_parts(folder.content.folder, read))
        lost = lost_records(replace(folder, content=content, steps=(), culprits=()), recipes)
        if lost is not None:
            some = f", {len(read):,} of its {len(units):,} units" if len(read) < len(units) else ""
            yield replace(lost, title=f"{lost.title}{some}")


def _written(folder: Place, unit: Unit) -> float:
    try:
        return (folder / unit.file_name).stat().st_mtime if is_local(folder) else 0.0
    except OSError:
        return 0.0
