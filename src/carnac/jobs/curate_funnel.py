"""The funnel, wired: what every pass kept and took is added up part by part, and its samples are looked up last.

    signals, masks --funnel_parts--> sums, histograms, places of samples    one unit per documents part
    funnel_parts --funnel--> their sum                                      one unit per 64 of them, and so on
    samples, documents --funnel_excerpts--> URL and excerpt of each         one unit per documents part with some

No text is opened but those of the samples that are left, a row group each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from carnac.core.places import Place
from carnac.core.taken_down import MARK
from carnac.curate.funnel.steps import Excerpt, Excerpts, excerpt_of, place_of, steps_of
from carnac.curate.funnel.table import TALLIES, from_rows, to_rows
from carnac.curate.funnel.tally import DIGESTS, WORDS, After, Rows, Tally
from carnac.curate.masks import Masks, check_same_rows
from carnac.curate.rules import columns_read
from carnac.curate.settings import RulesPass
from carnac.curate.signals.catalogue import column_named
from carnac.curate.signals.frame import Frame
from carnac.curate.signals.measure import SIGNALS
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.manifest import Manifest, PartEntry
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.storage import write_changed
from carnac.engine.tables import open_part, read_rows
from carnac.engine.unit import Stage, Unit, digest_of
from carnac.jobs.curate_passes import AnyPass

FUNNEL = "funnel.json"
ROWS_AT_ONCE = 2_000  # of documents; 43 blocks each make 86,000 entries, under a megabyte a column
MERGED_AT_ONCE = 64  # tallies: about a megabyte each

# Where a sample lies in the documents, and what it shows. `page` is the URL of its page: a take-down that finds one of
# its victims here by `id` takes the row away.
EXCERPTS = pa.schema(
    [
        ("id", pa.string()),
        ("row", pa.int64()),
        ("block", pa.int32()),
        ("page", pa.string()),
        ("excerpt", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTables:
    """What a pass judged from and what it wrote: as `Sources` of the judge had it, and the masks it made."""

    step: AnyPass
    images: Manifest | None
    kept: Manifest | None
    masks: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class PassParts:
    """The parts of one unit of a pass."""

    step: AnyPass
    images: Place | None
    kept: Place | None
    masks: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class TallyTask:
    """What a worker needs to add up one documents part."""

    signals: Place
    passes: tuple[PassParts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeTask:
    """What a worker needs to add up tallies."""

    parts: tuple[Place, ...]
    steps: tuple[AnyPass, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExcerptTask:
    """What a worker needs to look up samples: (row, block) of one documents part, ascending; block -1 for none."""

    documents: Place
    places: tuple[tuple[int, int], ...]


def draw_funnel(
    runner: Runner, passes: Sequence[PassTables], documents: Manifest, signals: Manifest, folder: Place
) -> None:
    """Write `folder`/funnel.json, and `folder`/funnel, from which it is drawn."""
    steps = tuple(each.step for each in passes)
    parts = runner.do(PART_STAGE, [_tally_unit(entry, passes) for entry in signals.parts], folder / "funnel" / "parts")
    runner.publish(PART_STAGE, folder / "funnel" / "parts", parts, _settings(steps), {})
    total = _merged(runner, parts, steps, folder / "funnel")
    runner.publish(MERGE_STAGE, folder / "funnel", total, _settings(steps), {})
    rows = [row for entry in total for row in read_rows(entry.path)]
    tally = from_rows(steps, rows)
    excerpts = _look_up(runner, tally, documents, folder / "funnel" / "excerpts")
    if runner.changes_nothing:
        return
    drawn = steps_of(tally, [each.masks.counts for each in passes], excerpts)
    content = json.dumps({"steps": [step.to_json() for step in drawn]}, indent=1) + "\n"
    write_changed(folder / FUNNEL, content.encode())


def _settings(steps: Sequence[AnyPass]) -> dict[str, Any]:
    """Return what of the recipe decides the funnel: names of passes, rules and reasons."""
    return {"passes": [{"name": step.name, "reasons": step.reasons(), "rules": _rules(step)} for step in steps]}


def _rules(step: AnyPass) -> list[dict[str, Any]]:
    return [rule.model_dump(mode="json") for rule in step.rules] if isinstance(step, RulesPass) else []


def _tally_unit(signals: PartEntry, passes: Sequence[PassTables]) -> Unit:
    parts, inputs = [], [signals.digest]
    for each in passes:
        masks, is_rules = each.masks.part(signals.unit), isinstance(each.step, RulesPass)
        images = each.images.part(signals.unit) if each.images is not None and is_rules else None
        kept = each.kept.part(signals.unit) if each.kept is not None and is_rules else None
        parts.append(
            PassParts(
                step=each.step,
                images=None if images is None else images.path,
                kept=None if kept is None else kept.path,
                masks=masks.path,
            )
        )
        inputs += [masks.rows_digest, *("" if entry is None else entry.digest for entry in (images, kept))]
    task = TallyTask(signals=signals.path, passes=tuple(parts))
    settings = _settings([each.step for each in passes])
    return PART_STAGE.unit(signals.unit, task, settings=settings, inputs=inputs)


def _merged(
    runner: Runner, parts: Sequence[PartEntry], steps: tuple[AnyPass, ...], folder: Place
) -> tuple[PartEntry, ...]:
    """Return the part that holds the sum of all, none where there are none."""
    entries, level = tuple(parts), 0
    while level == 0 or len(entries) > 1:
        level += 1
        units = []
        for number, start in enumerate(range(0, len(entries), MERGED_AT_ONCE)):
            group = entries[start : start + MERGED_AT_ONCE]
            task = MergeTask(parts=tuple(entry.path for entry in group), steps=steps)
            inputs = [entry.digest for entry in group]
            units.append(MERGE_STAGE.unit(f"sum-{level}-{number:05d}", task, settings={}, inputs=inputs))
        entries = runner.do(MERGE_STAGE, units, folder)
    return entries


def _look_up(runner: Runner, tally: Tally, documents: Manifest, folder: Place) -> Excerpts:
    """Return what the samples of a tally show."""
    wanted: dict[str, set[tuple[int, int]]] = {}
    for picks in tally.picks.values():
        for unit, row, block in map(place_of, picks):
            wanted.setdefault(unit, set()).add((row, -1 if block is None else block))
    units = []
    for entry in documents.parts:
        if places := sorted(wanted.get(entry.unit, ())):
            task = ExcerptTask(documents=entry.path, places=tuple(places))
            settings = {"places": digest_of(places)}
            units.append(EXCERPTS_STAGE.unit(entry.unit, task, settings=settings, inputs=[entry.digest]))
    entries = runner.do(EXCERPTS_STAGE, units, folder)
    runner.publish(EXCERPTS_STAGE, folder, entries, {}, {})
    return {
        (entry.unit, row["row"], row["block"]): Excerpt(url=row["page"], excerpt=row["excerpt"])
        for entry in entries
        for row in read_rows(entry.path)
        if row["page"] not in (None, MARK)
    }


def tally_part(unit: Unit, part: Part) -> None:
    """Write the tally of one documents part."""
    task: TallyTask = unit.task
    tally = Tally([each.step for each in task.passes])
    for first, tables in read_aligned_tables(_parts(task), ROWS_AT_ONCE):
        check_same_rows(*tables.values())
        tally.add(Rows.of_signals(unit.name, first, tables["signals"]), list(_afters(task, tables)))
        part.count("documents", tables["signals"].num_rows)
    for row in to_rows(tally):
        part.write(row)


def _parts(task: TallyTask) -> dict[str, tuple[Place, Sequence[str]]]:
    """Return the parts to read, each once, with the columns that are needed of each."""
    always = ["id", "failed", "block_kind", WORDS, *(name for name in DIGESTS if name in SIGNALS.names)]
    needed = {name for each in task.passes for name in _columns(each.step)}
    of_texts = sorted(name for name in needed if column_named(name).table == "signals")
    parts: dict[str, tuple[Place, Sequence[str]]] = {
        "signals": (task.signals, list(dict.fromkeys([*always, *of_texts])))
    }
    for number, each in enumerate(task.passes):
        parts[f"masks {number}"] = (each.masks, ["id", "reason", "block_reason"])
        mine = sorted(_columns(each.step))
        images = [name for name in mine if column_named(name).table == "image_signals"]
        again = [name for name in mine if column_named(name).remeasured]
        if each.images is not None and images:
            parts[f"images {number}"] = (each.images, ["id", *images])
        if each.kept is not None and again:
            parts[f"kept {number}"] = (each.kept, ["id", *again])
    return parts


def _columns(step: AnyPass) -> frozenset[str]:
    return columns_read(step.rules) if isinstance(step, RulesPass) else frozenset()


def _afters(task: TallyTask, tables: Mapping[str, pa.Table]) -> Iterator[After]:
    for number, each in enumerate(task.passes):
        names = ("signals", f"images {number}", f"kept {number}")
        frame = None
        if isinstance(each.step, RulesPass):
            frame = Frame.of(*(tables[name] for name in names if name in tables))
        yield After(masks=Masks.from_table(tables[f"masks {number}"]), frame=frame)


def merge_tallies(unit: Unit, part: Part) -> None:
    """Write the sum of some tallies."""
    task: MergeTask = unit.task
    total = Tally(task.steps)
    for place in task.parts:
        total.merge(from_rows(task.steps, list(read_rows(place))))
    for row in to_rows(total):
        part.write(row)


def write_excerpts(unit: Unit, part: Part) -> None:
    """Write what the samples of one documents part show; only the row groups that hold one are read."""
    task: ExcerptTask = unit.task
    waiting = list(task.places)
    first = 0
    with open_part(task.documents) as file:
        for group in range(file.num_row_groups):
            after = first + file.metadata.row_group(group).num_rows
            if waiting and waiting[0][0] < after:
                columns = ["id", "url", "texts", "images"]
                table = file.read_row_group(group, columns=columns, use_threads=False)
                while waiting and waiting[0][0] < after:
                    row, block = waiting.pop(0)
                    (document,) = table.slice(row - first, 1).to_pylist()
                    part.write(_excerpt(document, row, block))
            first = after


def _excerpt(document: Mapping[str, Any], row: int, block: int) -> dict[str, Any]:
    content = "" if block < 0 else document["texts"][block] or document["images"][block] or ""
    where = {"id": document["id"], "row": row, "block": None if block < 0 else block}
    return {**where, "page": document["url"], "excerpt": excerpt_of(content)}


PART_STAGE = Stage(name="funnel_parts", version=1, schema=TALLIES, work=tally_part, is_step=True)
MERGE_STAGE = Stage(name="funnel", version=1, schema=TALLIES, work=merge_tallies, is_step=True)
EXCERPTS_STAGE = Stage(name="funnel_excerpts", version=1, schema=EXCERPTS, work=write_excerpts, is_step=True)
