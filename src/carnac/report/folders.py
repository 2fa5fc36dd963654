"""A stage's folder as it is now: done, or a run at work in it, or one that stopped or failed there.

Flow in: folders on a disk or in a store. Flow out: `StageFolder`s. A folder without a manifest is told by what is
committed in it: a run that was killed has done that much.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from carnac.core.places import Place, is_local
from carnac.engine.guard import Failed, read_culprits
from carnac.engine.ledger import Quarantined, read_ledger
from carnac.engine.local import Running
from carnac.engine.manifest import MANIFEST, Manifest, collect_parts, read_listed
from carnac.engine.state import STATE, RunState, read_state
from carnac.engine.storage import list_files
from carnac.engine.unit import Unit

MAX_DEPTH = 7  # folders in a row: out, tiny, curated, repeats, <pass>, keys, <kind>
# Of a folder without a manifest each footer is a file to open: 0.1 s for so many on a disk, some seconds in a store.
MAX_FOOTERS = 200
PART = re.compile(r"([A-Za-z0-9._~-]+)-([0-9a-f]{16})\.parquet")
# Parts of a job's inner steps that lie beside the stage's own: what the archives held, what each unit fetched.
STEP_UNIT = re.compile(r"archived~.+|r\d{4}-p\d{4}-u\d{4}")
CULPRITS = re.compile(r"\.([A-Za-z0-9._~-]+)-([0-9a-f]{16})\.culprits\.json")

Status = Literal["done", "running", "failed", "stopped", "unfinished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """A record that ended its process, of a unit that is not committed yet: it stands in no ledger."""

    unit: str
    why: Quarantined


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFolder:
    """One folder of a stage. `name` is relative to the folder that is shown.

    `content` is its manifest; where it has none (`is_finished` false), one drawn from the first `MAX_FOOTERS` of the
    `num_parts` that are committed. `steps` are the units of inner steps (of `images`: archives, fetching) whose parts
    lie there too, and are no part of the content. `state` is that of the run that works or died in it.
    """

    name: str
    content: Manifest
    is_finished: bool
    num_parts: int
    steps: tuple[Unit, ...]
    status: Status
    state: RunState | None
    num_done: int
    running: tuple[Running, ...]
    culprits: tuple[Culprit, ...]

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.content.stage

    @property
    def title(self) -> str:
        """How the folder is called in a sentence."""
        return self.stage if self.name in (".", self.stage) else f"{self.stage} ({self.name})"

    @property
    def failed(self) -> tuple[Failed, ...]:
        """The units that could not be done."""
        return () if self.state is None else self.state.failed


def names_below(root: Place) -> list[str]:
    """Return the files up to `MAX_DEPTH` folders deep, relative to `root`, those that lie highest first."""
    names = _on_disk(root) if is_local(root) else list_files(root)
    return sorted((name for name in names if name.count("/") < MAX_DEPTH), key=lambda name: (name.count("/"), name))


def _on_disk(root: Path) -> Iterator[str]:
    # Folders of a run may be links to other disks, each followed once; what may not be read is passed over.
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        inside = os.path.relpath(folder, root)
        if (real := os.path.realpath(folder)) in seen or inside.count("/") >= MAX_DEPTH - 1:
            folders.clear()
        if real not in seen:
            seen.add(real)
            folders.sort()
            yield from (name if inside == "." else f"{inside}/{name}" for name in files)


def find_folders(root: Place, names: Sequence[str]) -> Iterator[StageFolder]:
    """Yield the stages' folders among `names`, the files below `root`. Raises InputError for a damaged manifest."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        by_folder.setdefault(folder or ".", []).append(file)
    for name, files in by_folder.items():
        tells = any(file in (MANIFEST, STATE) or CULPRITS.fullmatch(file) for file in files)
        # Parts alone are an intermediate result, which nobody asks for unless by name.
        if tells or (name == "." and any(map(PART.fullmatch, files))):
            yield _read_folder(root if name == "." else root / name, name, files)


def _read_folder(folder: Place, name: str, files: Sequence[str]) -> StageFolder:
    state = read_state(folder) if STATE in files else None
    units = [Unit(name=match[1], key=match[2], task=None) for match in map(PART.fullmatch, files) if match]
    parts = [unit for unit in units if not STEP_UNIT.fullmatch(unit.name)]
    steps = tuple(unit for unit in units if STEP_UNIT.fullmatch(unit.name))
    listed = read_listed(folder) if MANIFEST in files else None
    # A part that is done again is missing for a while.
    is_finished = listed is not None and {entry.path.name for entry in listed.parts} <= set(files)
    content = listed if listed is not None and is_finished else _committed(folder, parts, state, bool(steps))
    done = set() if is_finished else {unit.name for unit in units}
    return StageFolder(
        name=name,
        content=content,
        is_finished=is_finished,
        num_parts=len(content.parts) if is_finished else len(parts),
        steps=steps,
        status=_status(state, is_finished),
        state=state,
        # Of a folder with several steps only the run knows which units are of the present one.
        num_done=0 if state is None else _num_done(state, set() if steps else done),
        running=() if state is None else tuple(unit for unit in state.running if unit.unit not in done),
        culprits=tuple(_culprits(folder, files)),
    )


def _committed(folder: Place, parts: Sequence[Unit], state: RunState | None, has_steps: bool) -> Manifest:
    """Return what is committed in a folder as a manifest would tell it."""
    entries = collect_parts(folder, parts[:MAX_FOOTERS])
    stage, version = "images" if has_steps else "unknown" if state is None else state.stage, 0
    if entries:
        ledger = read_ledger(entries[0].path)
        stage, version = ledger.stage, ledger.version
    return Manifest(folder=folder, stage=stage, version=version, settings={}, inputs={}, parts=entries)


def _status(state: RunState | None, is_finished: bool) -> Status:
    if state is None:
        return "done" if is_finished else "unfinished"
    if state.is_alive:
        return "running"
    return "failed" if state.failed else "stopped"


def _num_done(state: RunState, done: set[str]) -> int:
    """Return how many units of the run are done: at its last word, or more where the parts tell so.

    They do not where there are more of them than the run can have done: of other settings, or of units that were done
    in the folder before (the images' archives, before the rest).
    """
    failed = {unit.unit for unit in state.failed}
    left = {unit.unit for unit in state.running} - done
    told = len(done - failed)
    return told if state.num_done <= told <= state.num_units - len(failed) - len(left) else state.num_done


def _culprits(folder: Place, files: Sequence[str]) -> Iterator[Culprit]:
    for match in map(CULPRITS.fullmatch, files):
        # A unit that is committed has them in its ledger.
        if match and f"{match[1]}-{match[2]}.parquet" not in files:
            unit = Unit(name=match[1], key=match[2], task=None)
            yield from (Culprit(unit=unit.name, why=why) for why in read_culprits(folder, unit).values())
