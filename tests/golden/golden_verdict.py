"""The golden facts beside those of now: what changed, whether the version says so, and what to do.

A changed output is a reason to raise a stage's version unless something it reads changed too: its settings, its pages,
a folder of a stage before. Those are in its units' keys already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from golden_chain import READS, READS_PAGES
from golden_measure import CONTENT, FACTS, VALUE_DIGITS, Column, Folder, Golden, Table

COMMAND = "python tests/golden/golden_update.py --update"
NUM_SHOWN = 5  # rows named per column

# raise: the version must be raised. lowered: it went down, so old outputs would pass for new ones.
# update: all is said, but the golden file does not know it yet.
State = Literal["equal", "raise", "lowered", "update"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to be said about one folder of one stage; `lines` is empty where it is as it was."""

    folder: str
    stage: str
    state: State
    lines: tuple[str, ...]
    only_floats: bool = False


def judge(golden: Golden, now: Golden) -> list[Verdict]:
    """Judge every folder that either knows, in the order of the chain."""
    folders = dict.fromkeys([*now["folders"], *golden["folders"]])
    return [_judge_folder(name, golden, now) for name in folders]


def _judge_folder(name: str, golden: Golden, now: Golden) -> Verdict:
    before, after = golden["folders"].get(name), now["folders"].get(name)
    if before is None or after is None:
        there = before or after
        assert there is not None
        line = "the chain writes it, but it has no golden entry" if before is None else "golden, but no longer written"
        return Verdict(folder=name, stage=there["stage"], state="update", lines=(line,))
    changes = describe(before, after)
    causes = _causes(name, golden, now)
    state: State = "equal"
    if before["version"] != after["version"]:
        state = "lowered" if after["version"] < before["version"] else "update"
        changes = [f"version {before['version']} -> {after['version']}", *(changes or ["output as before"])]
    elif changes:
        state = "update" if causes else "raise"
        changes += [f"that follows from: {', '.join(causes)}"] if causes else []
    elif before["settings"] != after["settings"]:
        state, changes = "update", ["other settings, output as before"]
    floats = before["types"] == after["types"] and _only_floats(before, after)
    return Verdict(folder=name, stage=after["stage"], state=state, lines=tuple(changes), only_floats=floats)


def _causes(name: str, golden: Golden, now: Golden) -> list[str]:
    """Return what changed of all that the stage of folder `name` reads."""
    before, after = golden["folders"], now["folders"]
    causes = ["its settings"] if before[name]["settings"] != after[name]["settings"] else []
    if name in READS_PAGES and golden["given"] != now["given"]:
        causes.append("other pages")
    for read in READS.get(name, ()):
        there = read in before and read in after
        if not there or any(before[read][fact] != after[read][fact] for fact in CONTENT):  # type: ignore[literal-required]
            causes.append(read)
    return causes


def describe(before: Folder, after: Folder) -> list[str]:
    """Return a line per difference between two outputs; none if they are equal."""
    if before["digest"] == after["digest"]:
        return []
    lines = [f"types: {line}" for line in _describe_values(before["types"], after["types"])]
    lines += _describe_table("rows", before["rows"], after["rows"])
    lines += [f"footer: {line}" for line in _describe_digests(before["footer"], after["footer"])]
    lines += [f"file {line}" for line in _describe_digests(before["beside"], after["beside"])]
    lines += [f"count {line}" for line in _describe_values(before["counts"], after["counts"])]
    return lines + _describe_table("lost records", before["lost"], after["lost"])


def _describe_values(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    return [f"{name}: {before.get(name, 'nothing')} -> {after.get(name, 'nothing')}" for name in names]


def _describe_digests(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    return [f"{name} {'is new' if name not in before else 'changed' if name in after else 'is gone'}" for name in names]


def _describe_table(what: str, before: Table, after: Table) -> list[str]:
    lines = [f"{what}: unit {line}" for line in _describe_values(before["units"], after["units"])]
    if not lines and list(before["units"]) != list(after["units"]):
        lines.append(f"{what}: order of units {list(before['units'])} -> {list(after['units'])}")
    for name in changed_columns(before, after):
        if name not in before["columns"] or name not in after["columns"]:
            lines.append(f"{what}: column {name} is {'gone' if name in before['columns'] else 'new'}")
            continue
        rows = _changed_rows(before, after, name)
        named = ", ".join(rows[:NUM_SHOWN]) + (", ..." if len(rows) > NUM_SHOWN else "")
        where = f" in {len(rows)} of {sum(after['units'].values())} rows: {named}" if rows else " with the rows"
        lines.append(f"{what}: column {name} changed{where}")
    return lines


def changed_columns(before: Table, after: Table) -> list[str]:
    """Return the names of the columns that differ."""
    names = dict.fromkeys([*before["columns"], *after["columns"]])
    return [name for name in names if before["columns"].get(name) != after["columns"].get(name)]


def _changed_rows(before: Table, after: Table, name: str) -> list[str]:
    """Return `unit@row` of the values that differ, among the rows that a unit had before and has after."""
    old, new = (_split(table["units"], table["columns"][name]) for table in (before, after))
    return [
        f"{unit}@{row}"
        for unit in old
        for row, (left, right) in enumerate(zip(old[unit], new.get(unit, []), strict=False))
        if left != right
    ]


def _split(units: Mapping[str, int], column: Column) -> dict[str, list[str]]:
    """Return the short digests of a column's values by unit."""
    values = [column["values"][at : at + VALUE_DIGITS] for at in range(0, len(column["values"]), VALUE_DIGITS)]
    found, start = {}, 0
    for unit, number in units.items():
        found[unit] = values[start : start + number]
        start += number
    return found


def _only_floats(before: Folder, after: Folder) -> bool:
    columns = changed_columns(before["rows"], after["rows"])
    others = [fact for fact in FACTS if fact != "rows" and before[fact] != after[fact]]  # type: ignore[literal-required]
    return bool(columns) and not others and all("float" in after["types"].get(name, "") for name in columns)


def report(verdicts: Iterable[Verdict], sources: Mapping[str, str], hints: Iterable[str]) -> str:
    """Return what is to be said about folders, stage by stage; an empty text if all is equal.

    `sources` says where the version of each stage stands; `hints` are likelier causes than a change of the code.
    """
    stages: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.state != "equal":
            stages.setdefault(verdict.stage, []).append(verdict)
    blocks = [_report_stage(stage, found, sources.get(stage, "src/carnac/jobs")) for stage, found in stages.items()]
    return "\n\n".join(blocks) + "".join(f"\n\n{hint}" for hint in hints if blocks)


def _report_stage(stage: str, verdicts: list[Verdict], source: str) -> str:
    states = {verdict.state for verdict in verdicts}
    if "lowered" in states:
        head = "its version went down: folders made with the higher one would pass for finished"
        todo = f"Set a higher version than ever before in {source}, then run: {COMMAND}"
    elif "raise" in states:
        head = "its output changed, but not its version: finished folders would keep what the old code wrote"
        todo = f"If the change is meant, raise the version in {source}, then run: {COMMAND}"
    else:
        head = "the golden file does not know this stage as it is now"
        todo = f"If all of this is meant, run: {COMMAND}"
    lines = [f"  {verdict.folder}: {line}" for verdict in verdicts for line in verdict.lines]
    floats = "  Only floats differ: another processor or C library can do that." * any(
        verdict.only_floats for verdict in verdicts
    )
    return "\n".join([f"stage {stage}: {head}", *lines, *([floats] if floats else []), todo])
