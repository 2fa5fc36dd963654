"""Rounds of fetching, one after the other, until nothing is left to ask for.

A round is there once its plan is: it goes on where it was left, whatever is wanted by then, and what came of it is
never asked for again, unless `--retry` says so. What new documents want comes in the next round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from carnac.core.places import Place
from carnac.core.taken_down import TakenDown
from carnac.engine.manifest import MANIFEST, Manifest, PartEntry, find_done, manifest_of, read_listed
from carnac.engine.run import Runner
from carnac.engine.storage import list_files
from carnac.engine.unit import Unit, digest_of
from carnac.images.retries import Retry
from carnac.images.settings import FetchSettings, ImageSettings
from carnac.jobs.images_fetch import FETCHED_STAGE, SETTLED_STAGE, FetchTask, SettleTask
from carnac.jobs.images_plan import PLAN_STAGE, PlanTask
from carnac.jobs.images_wanted import Wanted, partition_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """The rounds of one images folder: what they ask for, and under which settings."""

    runner: Runner
    folder: Place
    wanted: Wanted
    archived: tuple[PartEntry, ...]
    inspect: ImageSettings
    http: FetchSettings
    taken_down: TakenDown

    def run(self) -> tuple[list[PartEntry], list[tuple[PartEntry, ...]]]:
        """Do all rounds; return the parts of all fetch units, and what each round settled, by partition."""
        retry = cast("Retry | None", self.runner.retry)
        fetched: list[PartEntry] = []
        settled: list[tuple[PartEntry, ...]] = []
        while (plan := self._next(settled)) is not None:
            is_under_way = self._do(plan, fetched, settled)
            if is_under_way and plan.settings["retry"] == retry:
                retry = None  # the round of that retry was begun by a run that was ended early
        if retry is None:
            return fetched, settled
        plan = self._plan(settled, retry)
        if plan is None:
            self.runner.reporter.say(f"images: nothing to ask for again under --retry {retry}")
        while plan is not None:
            self._do(plan, fetched, settled)
            plan = self._plan(settled, None)
        return fetched, settled

    def _next(self, settled: Sequence[tuple[PartEntry, ...]]) -> Manifest | None:
        """Return the plan of the next round, made where it is not there; None when nothing is left to ask for."""
        folder = self._round_folder(len(settled) + 1) / "plan"
        if MANIFEST in list_files(folder):
            return read_listed(folder, PLAN_STAGE.name)
        return self._plan(settled, None)

    def _round_folder(self, number: int) -> Place:
        # What is kept depends on the settings of [inspect]: rounds of others are no use.
        return self.folder / "rounds" / digest_of(self.inspect.model_dump(mode="json"))[:8] / f"{number:04d}"

    def _plan(self, settled: Sequence[tuple[PartEntry, ...]], retry: Retry | None) -> Manifest | None:
        """Plan a round, and publish it unless there is nothing to ask for."""
        settings = {
            "retry": retry,
            "max_rounds": self.http.rounds,
            "urls_per_unit": self.http.urls_per_unit,
            "num_partitions": self.wanted.num_partitions,
            "round": len(settled) + 1,
        }
        before = digest_of([[entry.digest for entry in entries] for entries in (self.archived, *settled)])
        units = []
        for partition, urls in enumerate(self.wanted.urls):
            task = PlanTask(
                partition=partition,
                urls=urls.path,
                archived=tuple(entry.path for entry in self.archived),
                settled=tuple(tuple(entry.path for entry in entries) for entries in settled),
                max_rounds=self.http.rounds,
                urls_per_unit=self.http.urls_per_unit,
                retry=retry,
                taken_down=self.taken_down,
            )
            inputs = [urls.digest, before]
            units.append(PLAN_STAGE.unit(partition_name(partition), task, settings=settings, inputs=inputs))
        folder = self._round_folder(len(settled) + 1) / "plan"
        entries = self.runner.do(PLAN_STAGE, units, folder)
        if not sum(entry.counts.get("planned", 0) for entry in entries):
            return None
        if self.runner.changes_nothing:
            return manifest_of(PLAN_STAGE, folder, entries, settings, {})
        return self.runner.publish(PLAN_STAGE, folder, entries, settings, {})

    def _do(self, plan: Manifest, fetched: list[PartEntry], settled: list[tuple[PartEntry, ...]]) -> bool:
        """Do one round and note what came of it; return whether some of it was still to be done."""
        number = len(settled) + 1
        units = [unit for entry in plan.parts for unit in self._fetch_units(number, entry)]
        done = find_done(self.folder, units, list_files(self.folder))
        is_under_way = any(entry is None for entry in done.values())
        entries = self.runner.do(FETCHED_STAGE, units, self.folder)
        if is_under_way:
            self.runner.reporter.say(_summary(number, plan, entries))
        fetched += entries
        settled.append(self._settle(plan, entries, self._round_folder(number) / "settled"))
        return is_under_way

    def _settle(self, plan: Manifest, fetched: Sequence[PartEntry], folder: Place) -> tuple[PartEntry, ...]:
        by_partition: dict[str, list[PartEntry]] = {entry.unit: [] for entry in plan.parts}
        for entry in fetched:
            by_partition[entry.unit.split("-")[1]].append(entry)
        settings = {"num_partitions": self.wanted.num_partitions}
        units = []
        for entry in plan.parts:
            parts = by_partition[entry.unit]
            task = SettleTask(
                plan=entry.path,
                fetched=tuple(part.path for part in parts),
                num_partitions=self.wanted.num_partitions,
            )
            inputs = [entry.digest, *(part.digest for part in parts)]
            units.append(SETTLED_STAGE.unit(entry.unit, task, settings=settings, inputs=inputs))
        entries = self.runner.do(SETTLED_STAGE, units, folder)
        self.runner.publish(SETTLED_STAGE, folder, entries, settings, {})
        return entries

    def _fetch_units(self, number: int, plan: PartEntry) -> list[Unit]:
        # Of [http] nothing: how kindly and how long is asked changes when an image comes, not which image.
        settings = {"inspect": self.inspect.model_dump(mode="json")}
        units = []
        for share in range(plan.counts.get("units", 0)):
            task = FetchTask(
                plan=plan.path,
                number=share,
                packs=self.folder / "packs",
                inspect=self.inspect,
                http=self.http,
                taken_down=self.taken_down,
            )
            name = f"r{number:04d}-{plan.unit}-u{share:04d}"
            units.append(FETCHED_STAGE.unit(name, task, settings=settings, inputs=[plan.digest, str(share)]))
        return units


def _summary(number: int, plan: Manifest, fetched: Sequence[PartEntry]) -> str:
    counts: Counter[str] = Counter()
    for entry in fetched:
        for name, count in entry.counts.items():
            counts[name.partition(".")[0]] += count
    ended = ", ".join(f"{counts[name]:,} {name}" for name in ("kept", "dropped", "deferred", "moved") if counts[name])
    why = f" (--retry {plan.settings['retry']})" if plan.settings["retry"] else ""
    later = plan.counts.get("later", 0)
    rest = f", {later:,} left for later rounds" if later else ""
    return f"images, round {number}{why}: {plan.counts['planned']:,} URLs asked for, {ended or 'none ended'}{rest}"
