"""Records that misbehave in real stages: each costs itself and is named; nothing else changes.

Stages without records have units in their place: one that misbehaves ends the run with a sentence that names it.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

from carnac.core.places import Place
from carnac.engine.ledger import read_ledger
from carnac.engine.manifest import read_manifest
from carnac.engine.storage import remove
from faults.chain import OUT, Chain, Run, Subject
from faults.kills import wait_for_work
from faults.poison import CULPRIT, ENDLESS, KIND, KINDS, RECORDS, STAGE, UNITS
from faults.records import SOURCES, Culprit, check_others, part_of
from faults.verdict import Verdict, Wrong, check, check_clean_run, check_end, check_sentence

# Small enough to wait for, well above what a sound record takes: 0.03 s, and 400 MB with all that is imported.
LIMITS = {
    "hangs": ("--set=limits.wait_seconds=3", "--set=limits.silent_seconds=3"),
    "spins": ("--set=limits.cpu_seconds=1", "--set=limits.silent_seconds=3"),
    "eats memory": ("--set=limits.memory_mb=1300",),
}
UNIT_SECONDS = 15.0  # of the stage, in which a run is to give up a unit that never ends


def kinds_of(subject: Subject) -> tuple[str, ...]:
    """Return the ways in which a record or a unit of a stage can misbehave here."""
    return tuple(KINDS) if subject.name in RECORDS | UNITS else ()


def poison(chain: Chain, subject: Subject, kind: str, draw: random.Random) -> Verdict:
    """Run the stage with one poisoned record or unit, look at what came of it; then run it sound, and compare."""
    trial = chain.trial(subject, removed=subject.after if subject.name in RECORDS else ())
    wrong = note = ""
    try:
        if subject.name in RECORDS:
            note = _poison_record(chain, subject, trial, kind, draw)
        else:
            note = _poison_unit(chain, subject, trial, kind, draw)
        check_clean_run(chain, subject, trial, others=True)
        chain.discard(trial)
    except Wrong as finding:
        wrong = f"{finding} (in {trial.name})"
    return Verdict(stage=subject.name, fault=kind, wrong=wrong, note=note)


def _poison_record(chain: Chain, subject: Subject, trial: Path, kind: str, draw: random.Random) -> str:
    source = SOURCES[subject.name]
    whole = read_manifest(chain.whole / OUT / source.folder)
    culprit = draw.choice(source.candidates(whole))
    check_end(_start(chain, subject, trial, culprit.name, kind), 0)
    found = read_manifest(trial / OUT / source.folder)
    check_named(part_of(found, culprit.unit), part_of(whole, culprit.unit), culprit, KINDS[kind][1])
    check_others(whole, found, culprit, source)
    remove(part_of(found, culprit.unit))
    for name in subject.after:
        shutil.rmtree(trial / OUT / name)
    return f"{culprit.name} of unit {culprit.unit}"


def _poison_unit(chain: Chain, subject: Subject, trial: Path, kind: str, draw: random.Random) -> str:
    units = sorted(
        path.stem.rpartition("-")[0]
        for name in subject.folders
        for path in (chain.whole / OUT / name).rglob("*.parquet")
        if not set(path.relative_to(chain.whole / OUT / name).parts) & set(subject.keeps)
    )
    unit = draw.choice(units)
    run = _start(chain, subject, trial, unit, kind)
    if kind in ENDLESS:
        wait_for_work(run, trial, subject)
        check_sentence(run, [subject.name, unit], UNIT_SECONDS)
    else:
        check_sentence(run, [subject.name, unit])
    return f"unit {unit}"


def _start(chain: Chain, subject: Subject, trial: Path, culprit: str, kind: str) -> Run:
    limits = LIMITS.get(kind, ())
    environment = {STAGE: subject.name, CULPRIT: culprit, KIND: kind}
    return chain.start(trial, subject.recipe, *limits, program="faults.poisoned", environment=environment)


def check_named(part: Place, sound: Place, culprit: Culprit, reason: str) -> None:
    """Raise Wrong unless the ledger of the culprit's unit names it, once, for this reason, and nobody else."""
    lost = Counter((entry.record, entry.reason) for entry in read_ledger(part).quarantine)
    lost -= Counter((entry.record, entry.reason) for entry in read_ledger(sound).quarantine)
    named = [f"{record} {why}" for record, why in lost.elements()]
    is_right = len(named) == 1 and all(name.startswith(culprit.record) and why == reason for name, why in lost)
    check(is_right, f"the ledger names {named or 'nobody'}, wanted {culprit.record} {reason}")
