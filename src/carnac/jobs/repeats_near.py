"""The search for near-duplicates, wired: sketches, bands in buckets, then rounds of few comparisons until none is new.

documents --near_sketches--> bands and shingle hashes of kept texts        one unit per documents part
          --near_bands-----> band keys by bucket                           one unit per documents part
          --near_groups----> documents that share a key                    one unit per bucket of bands
then in every round, of what is not yet dropped:
          --near_edges-----> pairs to compare, by bucket of the pair       one unit per bucket of bands
          --near_pairs-----> each pair once                                one unit per bucket of pairs
          --near_wanted----> the sketches that those need, by bucket       one unit per documents part
          --near_compared--> pairs that are alike                          one unit per bucket of pairs
          --near_sets------> sets and the document of each that stays      one unit
at last   --repeats--------> rows of REPEATS                               one unit
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from carnac.core.places import Place
from carnac.curate.repeats.settings import RepeatsPass
from carnac.engine.buckets import num_buckets
from carnac.engine.manifest import PartEntry, digest_of_parts
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, digest_of
from carnac.jobs import repeats_near_rounds as rounds
from carnac.jobs import repeats_near_sketches as sketching
from carnac.jobs.repeats_near_rounds import CompareTask, EdgesTask, NamesTask, PairsTask, SetsTask, WantedTask
from carnac.jobs.repeats_near_sketches import BandsTask, GroupsTask, SketchTask
from carnac.jobs.repeats_sources import RepeatSources, SearchLimits, part_sources

# A row of bands or of groups is 16 bytes, and a document has up to 20: more of them fit than documents do.
BANDS_PER_DOCUMENT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """What all steps of one search share: `folder` holds their folders."""

    runner: Runner
    step: RepeatsPass
    folder: Place
    limits: SearchLimits
    sketches: tuple[PartEntry, ...]

    def do(self, stage: Stage, tasks: Sequence[tuple[str, Any, dict[str, Any], list[str]]]) -> tuple[PartEntry, ...]:
        """Do a step: per unit its name, task, settings and inputs."""
        units = [stage.unit(name, task, settings=shown, inputs=inputs) for name, task, shown, inputs in tasks]
        return self.runner.do(stage, units, self.folder / stage.name.removeprefix("near_"))

    def publish(self, stage: Stage, entries: Sequence[PartEntry]) -> None:
        """Make the parts of a step the content of its folder."""
        self.runner.publish(stage, self.folder / stage.name.removeprefix("near_"), entries, {}, {})


def search_near(
    runner: Runner,
    step: RepeatsPass,
    sources: RepeatSources,
    found: Sequence[PartEntry],
    folder: Place,
    limits: SearchLimits,
) -> tuple[PartEntry, ...]:
    """Write what is nearly another document to `folder`, and the steps before it to `folder`/near.

    `found` is what earlier kinds of the pass took: it does not compete, and its blocks are not read.
    """
    sketches = _sketch(runner, sources, found, folder / "near" / "sketches")
    return search_sketches(runner, step, sketches, folder, limits)


def search_sketches(
    runner: Runner, step: RepeatsPass, sketches: Sequence[PartEntry], folder: Place, limits: SearchLimits
) -> tuple[PartEntry, ...]:
    """Search the documents of sketches: all steps of `search_near` but the first."""
    ordered = tuple(sorted(sketches, key=lambda entry: entry.unit))  # a unit's rank is its number here
    search = _Search(runner=runner, step=step, folder=folder / "near", limits=limits, sketches=ordered)
    groups = _group(search)
    buckets = num_buckets(sum(entry.rows for entry in groups), limits.rows_per_bucket)  # of pairs
    edges: list[PartEntry] = []
    pairs: list[PartEntry] = []
    wanted: list[PartEntry] = []
    compared: list[PartEntry] = []
    sets: list[PartEntry] = []
    for number in itertools.count(1):
        edges += (new := _propose(search, number, groups, sets, buckets))
        if any(entry.rows for entry in new):
            pairs += (each := _pair(search, number, new, buckets))
            wanted += (asked := _ask(search, number, each))
            compared += _compare(search, each, asked)
        before = sets[-1:]
        sets += _join(search, number, compared, before)
        if sets[-1].rows == sum(entry.rows for entry in before):
            break
    for stage, entries in (
        (rounds.EDGES_STAGE, edges),
        (rounds.PAIRS_STAGE, pairs),
        (rounds.WANTED_STAGE, wanted),
        (rounds.COMPARED_STAGE, compared),
        (rounds.SETS_STAGE, sets),
    ):
        search.publish(stage, entries)
    return _name(search, compared, sets, folder)


def _sketch(runner: Runner, sources: RepeatSources, found: Sequence[PartEntry], place: Place) -> tuple[PartEntry, ...]:
    stage, units = sketching.SKETCHES_STAGE, []
    for entry in sources.documents.parts:
        part, digests = part_sources(sources, entry.unit, found, ("documents",))
        units.append(stage.unit(entry.unit, SketchTask(part=part), settings={}, inputs=digests))
    entries = runner.do(stage, units, place)
    runner.publish(stage, place, entries, {}, {"documents": str(sources.documents.folder)})
    return entries


def _group(search: _Search) -> tuple[PartEntry, ...]:
    """Return the groups of documents that share a band."""
    stage, rows = sketching.BANDS_STAGE, sum(entry.rows for entry in search.sketches)
    buckets = num_buckets(rows, max(1, search.limits.rows_per_bucket // BANDS_PER_DOCUMENT))
    bands = search.do(
        stage,
        [
            (entry.unit, BandsTask(sketches=entry.path, num_buckets=buckets), {"num_buckets": buckets}, [entry.digest])
            for entry in search.sketches
        ],
    )
    search.publish(stage, bands)
    inputs, stage = [digest_of_parts(bands)], sketching.GROUPS_STAGE
    paths, memory = tuple(entry.path for entry in bands), search.limits.max_memory_mb
    groups = search.do(
        stage,
        [
            (
                f"{bucket:05d}",
                GroupsTask(bands=paths, bucket=bucket, max_memory_mb=memory),
                {"num_buckets": buckets, "bucket": bucket},
                inputs,
            )
            for bucket in range(buckets)
        ],
    )
    search.publish(stage, groups)
    return groups


def _propose(
    search: _Search, number: int, groups: Sequence[PartEntry], sets: Sequence[PartEntry], buckets: int
) -> tuple[PartEntry, ...]:
    """Return the pairs to compare in a round: `sets` are those after each round before it."""
    known = [entry.digest for entry in sets[-2:]]
    tasks = []
    for entry in groups:
        task = EdgesTask(
            groups=entry.path,
            dropped=sets[-1].path if sets else None,
            dropped_before=sets[-2].path if len(sets) > 1 else None,
            num_buckets=buckets,
        )
        shown = {"num_buckets": buckets, "round": number}
        tasks.append((f"{number}-{entry.unit}", task, shown, [entry.digest, *known]))
    return search.do(rounds.EDGES_STAGE, tasks)


def _pair(search: _Search, number: int, edges: Sequence[PartEntry], buckets: int) -> tuple[PartEntry, ...]:
    """Return each pair of a round once."""
    paths, inputs = tuple(entry.path for entry in edges), [digest_of_parts(edges)]
    tasks = [
        (
            f"{number}-{bucket:05d}",
            PairsTask(edges=paths, bucket=bucket),
            {"num_buckets": buckets, "bucket": bucket},
            inputs,
        )
        for bucket in range(buckets)
    ]
    return search.do(rounds.PAIRS_STAGE, tasks)


def _ask(search: _Search, number: int, pairs: Sequence[PartEntry]) -> tuple[PartEntry, ...]:
    """Return the sketches that the pairs of a round need."""
    paths, shared = tuple(entry.path for entry in pairs), digest_of_parts(pairs)
    tasks = []
    for rank, entry in enumerate(search.sketches):
        task = WantedTask(pairs=paths, sketches=entry.path, rank=rank, keep=search.step.keep)
        shown = {"rank": rank, "keep": search.step.keep}
        tasks.append((f"{number}-{entry.unit}", task, shown, [entry.digest, shared]))
    return search.do(rounds.WANTED_STAGE, tasks)


def _compare(search: _Search, pairs: Sequence[PartEntry], wanted: Sequence[PartEntry]) -> tuple[PartEntry, ...]:
    """Return the pairs of a round that are alike."""
    paths, shared, least = tuple(entry.path for entry in wanted), digest_of_parts(wanted), search.step.near_similarity
    tasks = []
    for bucket, entry in enumerate(pairs):
        task = CompareTask(
            pairs=entry.path,
            wanted=paths,
            bucket=bucket,
            min_similarity=least,
            max_memory_mb=search.limits.max_memory_mb,
        )
        tasks.append((entry.unit, task, {"bucket": bucket, "min_similarity": least}, [entry.digest, shared]))
    return search.do(rounds.COMPARED_STAGE, tasks)


def _join(
    search: _Search, number: int, compared: Sequence[PartEntry], before: Sequence[PartEntry]
) -> tuple[PartEntry, ...]:
    """Return the sets after a round, from the pairs of all rounds so far and the sets `before` it."""
    least = search.step.near_similarity
    task = SetsTask(
        number=number,
        compared=tuple(entry.path for entry in compared),
        before=before[0].path if before else None,
        min_similarity=least,
    )
    inputs = [digest_of_parts(compared), digest_of_parts(before)]
    return search.do(rounds.SETS_STAGE, [(f"{number}-sets", task, {"min_similarity": least, "round": number}, inputs)])


def _name(
    search: _Search, compared: Sequence[PartEntry], sets: Sequence[PartEntry], folder: Place
) -> tuple[PartEntry, ...]:
    """Write the rows of `REPEATS` of the last sets."""
    names = tuple(entry.unit for entry in search.sketches)
    task = NamesTask(sets=sets[-1].path, compared=tuple(entry.path for entry in compared), units=names)
    inputs = [digest_of(list(names)), digest_of_parts(compared), digest_of_parts(sets[-1:])]
    unit = rounds.NAMES_STAGE.unit("near-00000", task, settings={"kind": "near"}, inputs=inputs)
    return search.runner.do(rounds.NAMES_STAGE, [unit], folder)
