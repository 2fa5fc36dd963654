"""One stage of a run: find what is missing, do it, list what counts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carnac.core.errors import OutputError
from carnac.engine.local import run_units
from carnac.engine.manifest import Manifest, PartEntry, collect_parts, write_manifest
from carnac.engine.part import BESIDE, sweep
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
        missing = [unit for unit in units if not (folder / unit.file_name).is_file()]
        if self.dry_run:
            done = len(units) - len(missing)
            self.reporter.say(f"{stage.name}: {len(units)} units, {done} done, {len(missing)} to do -> {folder}")
            if missing:
                raise DryRunEnd
            return collect_parts(folder, units)
        self.prepare(folder)
        started = time.perf_counter()
        if missing:
            with self.reporter.task(stage.name, len(units), len(units) - len(missing)) as task:
                for name in run_units(stage, missing, folder, self.workers):
                    task.advance(note=name)
        entries = collect_parts(folder, units)
        self.reporter.say(_summary(stage, entries, len(missing), time.perf_counter() - started))
        return entries

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
        manifest = Manifest(
            folder=folder,
            stage=stage.name,
            version=stage.version,
            settings=dict(settings),
            inputs=dict(inputs),
            parts=tuple(entries),
        )
        if not self.dry_run:
            write_manifest(manifest)
        return manifest


def _summary(stage: Stage, entries: Sequence[PartEntry], num_done: int, seconds: float) -> str:
    rows = sum(entry.rows for entry in entries)
    lost = sum(number for entry in entries for name, number in entry.counts.items() if name.startswith("lost."))
    size = sum(entry.bytes + entry.counts.get(BESIDE, 0) for entry in entries)
    work = (
        f"{num_done} of {len(entries)} units done in {seconds:.1f} s"
        if num_done
        else f"{len(entries)} units, all done before"
    )
    return f"{stage.name}: {rows:,} rows, {size / 1e6:.1f} MB{f', {lost:,} records lost' if lost else ''} ({work})"
