"""One stage of a run: find what is missing, do it, list what counts."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carnac.core.errors import CarnacError, InputError, RunError
from carnac.core.places import Place
from carnac.engine.guard import Done, Failed, forget_culprits
from carnac.engine.ledger import read_ledger
from carnac.engine.local import Beat, run_units, with_memory
from carnac.engine.manifest import Manifest, PartEntry, collect_parts, find_done, manifest_of, write_manifest
from carnac.engine.part import EARLY, budget_sentence
from carnac.engine.progress import Reporter, Task
from carnac.engine.reproduce import find_lost, try_again
from carnac.engine.spool import sweep_spools
from carnac.engine.state import Pulse, RunState, end_state, new_state, refuse_second
from carnac.engine.storage import list_files, make_folder, may_write, sweep
from carnac.engine.unit import Stage, Unit
from carnac.recipe.settings import Limits

# A stage of which no unit works is wrong as a whole: the rest of 10,000 units is not tried.
MAX_FAILED_UNITS = 5
QUIET_SECONDS = 2.0  # an inner step that takes no longer is not worth a line


class EarlyEnd(Exception):  # noqa: N818 -- no error: the run has done what it was asked for
    """A run ends before its last stage: a dry run met work to do, a record was tried again, a file asked for a stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """How this run does its units: how many at once, within what limits, what it tells.

    With `dry_run` it only says what it would do; with `record` it tries that lost record again, and commits nothing.
    `retry` names what a job that asks the web asks for once more.
    `preload` names modules that the children of all stages need (`run_units`).
    """

    reporter: Reporter
    workers: int = 1
    dry_run: bool = False
    record: str | None = None
    retry: str | None = None
    limits: Limits = field(default_factory=Limits)
    preload: tuple[str, ...] = ()

    @property
    def changes_nothing(self) -> bool:
        """Whether the run writes no file."""
        return self.dry_run or self.record is not None

    def missing(self, units: Sequence[Unit], folder: Place) -> tuple[Unit, ...]:
        """Return the units that `do` would do: so what only they need is made for them alone."""
        found = find_done(folder, units, list_files(folder))
        return tuple(unit for unit in units if found[unit.name] is None)

    def do(self, stage: Stage, units: Sequence[Unit], folder: Place) -> tuple[PartEntry, ...]:
        """Do the units whose part is missing and return the entries of all, in the order given.

        Raises RunError when some could not be done, after all others were; OutputError while another run works there.
        """
        there = list_files(folder)
        found = find_done(folder, units, there)
        missing = [unit for unit in units if found[unit.name] is None]
        if self.record is not None:
            self._try_record(self.record, stage, units, missing, folder)
            if missing:
                raise InputError(
                    f"{folder}: {len(missing)} of {len(units)} units are not done, and what is done has not lost "
                    f"{self.record}. Run the recipe first; carnac show then names what was lost."
                )
        if self.dry_run:
            done = len(units) - len(missing)
            self.reporter.say(f"{stage.name}: {len(units)} units, {done} done, {len(missing)} to do -> {folder}")
        if self.changes_nothing:
            if missing:
                raise EarlyEnd
            return tuple(entry for entry in found.values() if entry is not None)
        # What is finished may lie where nothing is to be written.
        before = self.prepare(folder, there) if missing or may_write(folder) else None
        started = time.perf_counter()
        if missing:
            failed = {unit.unit for unit in before.failed} if before else set()
            missing.sort(key=lambda unit: unit.name in failed)  # what failed last time must not keep others from work
            num_done = len(units) - len(missing)
            with (
                self.working(stage, folder, len(units), num_done) as pulse,
                self.reporter.task(stage.name, len(units), num_done, is_step=stage.is_step) as task,
            ):
                _Work(stage, folder, self, pulse, task).do(missing)
        # Footers of what was done before are read once: an empty run over many units is nothing else.
        new = {entry.unit: entry for entry in collect_parts(folder, missing)}
        entries = tuple(found[unit.name] or new[unit.name] for unit in units)
        self.tell(stage, entries, len(missing), time.perf_counter() - started)
        return entries

    def tell(self, stage: Stage, entries: Sequence[PartEntry], num_done: int, seconds: float) -> None:
        """Print the summary of a stage: rows, bytes, what was lost and why, what was done now."""
        if stage.is_step and (not num_done or seconds < QUIET_SECONDS) and not _lost(entries):
            return
        self.reporter.say(_summary(stage, entries, num_done, seconds))

    def prepare(self, folder: Place, there: Iterable[str] = ()) -> RunState | None:
        """Create `folder`, sweep what dead runs left among the files `there`; return the last word of the last one.

        Raises OutputError while another run works in it.
        """
        make_folder(folder)
        before = refuse_second(folder)
        forget_culprits(folder, there)
        sweep(folder)
        sweep_spools(folder, there)
        return before

    @contextlib.contextmanager
    def working(self, stage: Stage, folder: Place, num_units: int, num_done: int) -> Iterator[Pulse]:
        """Say in `folder` that this run works there; what says so goes when the block ends well."""
        pulse = Pulse(folder, new_state(stage.name, num_units, num_done))
        try:
            yield pulse
        except CarnacError as error:
            pulse.beat(why_stopped=str(error))
            raise
        end_state(folder)

    def publish(
        self,
        stage: Stage,
        folder: Place,
        entries: Sequence[PartEntry],
        settings: Mapping[str, Any],
        inputs: Mapping[str, Any],
        *,
        steps: Sequence[PartEntry] = (),
    ) -> Manifest:
        """Write the manifest that makes `entries` the content of `folder`, beside the parts of inner `steps`."""
        manifest = manifest_of(stage, folder, entries, settings, inputs, steps)
        if not self.changes_nothing:
            make_folder(folder)  # a stage without units has none yet
            write_manifest(manifest)
        return manifest

    def _try_record(
        self, record: str, stage: Stage, units: Sequence[Unit], missing: Sequence[Unit], folder: Place
    ) -> None:
        """Try a lost record of this stage again and end the run; return if it is none of this stage."""
        names = {unit.name for unit in missing}
        lost = find_lost(missing, [unit for unit in units if unit.name not in names], folder, record)
        if lost is None:
            return
        self.reporter.say(
            f"{record}: lost by {stage.name}, unit {lost.unit.name}: {lost.why.reason}. {lost.why.detail}"
        )
        self.reporter.say(try_again(stage, lost, with_memory(self.limits, self.workers)))
        raise EarlyEnd


class _Work:
    """The units of one stage on their way: what is done, what failed, what is shown of it."""

    def __init__(self, stage: Stage, folder: Place, runner: Runner, pulse: Pulse, task: Task) -> None:
        self._stage, self._folder, self._runner, self._pulse, self._task = stage, folder, runner, pulse, task
        self._before = pulse.state.num_done
        self._failed: list[Failed] = []
        self._new: list[str] = []
        self._began = time.monotonic()

    def do(self, units: Sequence[Unit]) -> None:
        runner = self._runner
        files = {unit.name: unit.file_name for unit in units}
        events = run_units(self._stage, units, self._folder, runner.workers, runner.limits, runner.preload)
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, Done):
                    self._new.append(files[event.unit])
                    self._task.advance()
                elif isinstance(event, Failed):
                    self._failed.append(event)
                    runner.reporter.say(f"{self._stage.name}, unit {event.unit} failed: {event.why}")
                    if len(self._failed) >= MAX_FAILED_UNITS and not self._new and not self._before:
                        break
                else:
                    self._beat(event)
        if self._failed:
            why = self._failure(len(units))
            self._pulse.beat(num_done=self._before + len(self._new), failed=self._failed, why_stopped=why)
            raise RunError(why)

    def _beat(self, beat: Beat) -> None:
        limits = self._runner.limits
        if beat.lost >= limits.min_lost * EARLY and beat.lost > limits.max_lost_share * beat.tried:
            raise RunError(self._over_budget(beat))
        seconds = time.monotonic() - self._began
        rate = f"{beat.tried / seconds:,.0f} records/s" if beat.tried else ""
        speed = f"{beat.num_bytes / seconds / 1e6:,.1f} MB/s" if beat.num_bytes else ""
        lost = f"{beat.lost:,} lost" if beat.lost else ""
        failed = f"{len(self._failed)} failed" if self._failed else ""
        at = ", ".join(unit.unit for unit in beat.running[:2])
        self._task.show("  ".join(word for word in (rate, speed, lost, failed, at) if word))
        self._pulse.beat(num_done=self._before + len(self._new), running=beat.running, failed=self._failed)

    def _over_budget(self, beat: Beat) -> str:
        """Return why the run stops: reasons as far as the parts of this run tell them."""
        lost = [record for name in self._new for record in read_ledger(self._folder / name).quarantine]
        counts = Counter(record.reason for record in lost)
        counts["in units under way"] += max(0, beat.lost - counts.total())
        why = budget_sentence(beat.tried, +counts, lost, self._runner.limits.max_lost_share)
        return f"{self._stage.name}: {why}"

    def _failure(self, num_units: int) -> str:
        first = self._failed[0]
        names = ", ".join(failed.unit for failed in self._failed[:5])
        left = num_units - len(self._new) - len(self._failed)
        rest = f", {left} were not tried" if left else ", the others are done"
        return (
            f"{self._stage.name}: {len(self._failed)} of {num_units} units failed ({names}){rest}. Unit {first.unit}: "
            f"{first.why.removesuffix('.')}. What is done is kept; the same command tries the failed ones again."
        )


def available_workers() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _lost(entries: Sequence[PartEntry]) -> Counter[str]:
    lost: Counter[str] = Counter()
    for entry in entries:
        lost.update({name[5:]: number for name, number in entry.counts.items() if name.startswith("lost.")})
    return lost


def _summary(stage: Stage, entries: Sequence[PartEntry], num_done: int, seconds: float) -> str:
    rows = sum(entry.rows for entry in entries)
    lost = _lost(entries)
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in lost.most_common(3))
    losses = f", {lost.total():,} records lost ({reasons}{', ...' if len(lost) > 3 else ''})" if lost else ""
    size = sum(entry.total_bytes for entry in entries)
    work = (
        f"{num_done} of {len(entries)} units done in {seconds:.1f} s"
        if num_done
        else f"{len(entries)} units, all done before"
    )
    return f"{stage.name}: {rows:,} rows, {size / 1e6:.1f} MB{losses} ({work})"
