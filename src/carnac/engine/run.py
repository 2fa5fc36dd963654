"""One stage of a run: find what is missing, do it, list what counts."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carnac.core.errors import OutputError
from carnac.engine.local import run_units
from carnac.engine.manifest import Manifest, PartEntry, collect_parts, find_done, manifest_of, write_manifest
from carnac.engine.part import sweep
from carnac.engine.progress import Reporter
from carnac.engine.unit import Stage, Unit


class DryRunEnd(Exception):  # noqa: N818 -- no error: a dry run ends where the first output would be missing
    """A dry run reached work to do; what follows depends on its output."""


def available_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """How this run does its units: how many at once, what it tells, and whether it only says what it would do."""

    reporter: Reporter
    workers: int = 1
    dry_run: bool = False

    def do(self, stage: Stage, units: Sequence[Unit], folder: Path) -> tuple[PartEntry, ...]:
        """Do the units whose part is missing and return the entries of all, in the order given."""
        found = {unit.name: find_done(folder, unit) for unit in units}
        missing = [unit for unit in units if found[unit.name] is None]
        if self.dry_run:
            done = len(units) - len(missing)
            self.reporter.say(f"{stage.name}: {len(units)} units, {done} done, {len(missing)} to do -> {folder}")
            if missing:
                raise DryRunEnd
            return tuple(entry for entry in found.values() if entry is not None)
        self.prepare(folder)
        started = time.perf_counter()
        if missing:
            with self.reporter.task(stage.name, len(units), len(units) - len(missing)) as task:
                for name in run_units(stage, missing, folder, self.workers):
                    task.advance(note=name)
        # Footers of what was done before are read once: an empty run over many units is nothing else.
        new = {entry.unit: entry for entry in collect_parts(folder, missing)}
        entries = tuple(found[unit.name] or new[unit.name] for unit in units)
        self.tell(stage, entries, len(missing), time.perf_counter() - started)
        return entries

    def tell(self, stage: Stage, entries: Sequence[PartEntry], num_done: int, seconds: float) -> None:
        """Print the summary of a stage: rows, bytes, what was lost and why, what was done now."""
        self.reporter.say(_summary(stage, entries, num_done, seconds))

    def prepare(self, folder: Path) -> None:
        """Create `folder` and sweep what dead processes left there."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be created ({error.strerror}). Choose another output.") from None
        if not os.access(folder, os.W_OK):
            raise OutputError(f"{folder}: not writable by this user. Choose another output or mend its permissions.")
        sweep(folder)

    def publish(
        self,
        stage: Stage,
        folder: Path,
        entries: Sequence[PartEntry],
        settings: Mapping[str, Any],
        inputs: Mapping[str, Any],
    ) -> Manifest:
        """Write the manifest that makes `entries` the content of `folder`."""
        manifest = manifest_of(stage, folder, entries, settings, inputs)
        if not self.dry_run:
            write_manifest(manifest)
        return manifest


def _summary(stage: Stage, entries: Sequence[PartEntry], num_done: int, seconds: float) -> str:
    rows = sum(entry.rows for entry in entries)
    lost: Counter[str] = Counter()
    for entry in entries:
        lost.update({name[5:]: number for name, number in entry.counts.items() if name.startswith("lost.")})
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in lost.most_common(3))
    losses = f", {lost.total():,} records lost ({reasons}{', ...' if len(lost) > 3 else ''})" if lost else ""
    size = sum(entry.total_bytes for entry in entries)
    work = (
        f"{num_done} of {len(entries)} units done in {seconds:.1f} s"
        if num_done
        else f"{len(entries)} units, all done before"
    )
    return f"{stage.name}: {rows:,} rows, {size / 1e6:.1f} MB{losses} ({work})"
