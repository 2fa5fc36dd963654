"""What was found, kept as JSON beside the other results, and drawn as a table into the docs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from turns import machine

from faults.chain import SUBJECTS
from faults.kills import VICTIMS
from faults.obstacles import FULL, READ_ONLY
from faults.poison import KINDS, UNITS
from faults.verdict import Verdict

COLUMNS = (*VICTIMS, FULL, READ_ONLY, *KINDS)
BEGIN, END = "<!-- faults -->", "<!-- /faults -->"
Found = dict[str, dict[str, Any]]


def entry_of(verdicts: Sequence[Verdict], seed: int) -> dict[str, Any]:
    """Return what is kept of one stage: by fault the number of trials, and what was wrong."""
    faults = {
        fault: {
            "trials": sum(verdict.fault == fault for verdict in verdicts),
            "wrong": [verdict.wrong for verdict in verdicts if verdict.fault == fault and verdict.wrong],
        }
        for fault in COLUMNS
        if any(verdict.fault == fault for verdict in verdicts)
    }
    return {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "seed": seed, "faults": faults}


def read_found(results: Path) -> Found:
    """Return what was found before, by stage."""
    return json.loads(results.read_bytes()) if results.exists() else {}


def write_found(found: Found, results: Path, chapter: Path) -> None:
    """Write the results and put their table into the chapter."""
    results.write_text(json.dumps(found, indent=1) + "\n")
    text = chapter.read_text()
    drawn = f"{BEGIN}\n{draw_table(found)}{END}"
    chapter.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: drawn, text, flags=re.DOTALL))


def draw_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table in Markdown: a row per stage, a column per fault; under it what was wrong."""
    names = [subject.name for subject in SUBJECTS if subject.name in found]
    lines = ["| stage | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    wrong = []
    for name in names:
        faults = found[name]["faults"]
        shown = f"{name} (unit)" if name in UNITS else name
        lines.append(f"| {shown} | " + " | ".join(_cell(faults.get(fault)) for fault in COLUMNS) + " |")
        wrong += [
            f"- {name}, {fault}: {sentence}"
            for fault, facts in faults.items()
            for sentence in sorted(set(facts["wrong"]))
        ]
    made = sorted({(entry["date"], entry["machine"], entry["seed"]) for entry in found.values()})
    source = "; ".join(f"{date}, {where}, seed {seed}" for date, where, seed in made)
    tail = ["", f"{source}; {_kills(found.values())} kills in all.", *([""] if wrong else []), *wrong]
    return "\n".join([*lines, *tail]) + "\n"


def _cell(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return "-"
    right = facts["trials"] - len(facts["wrong"])
    return f"{right}/{facts['trials']} equal" if not facts["wrong"] else f"**{right}/{facts['trials']} equal**"


def _kills(entries: Iterable[Mapping[str, Any]]) -> int:
    return sum(facts["trials"] for entry in entries for fault, facts in entry["faults"].items() if fault in VICTIMS)
