"""`scripts/bench faults [--stage NAME ...] [--kills 20] [--seed 0]`: all faults in all stages, and the table of it.

Each stage is written to the results when it is through: a run that was stopped goes on with the stages left.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from threading import Lock

from carnac.core.seeds import seed_of
from faults.chain import BENCH, SUBJECTS, Chain, Subject
from faults.culprits import kinds_of, poison
from faults.kills import kill, measure_window, victims_of
from faults.obstacles import fill_disk, forbid, may_mount
from faults.table import entry_of, read_found, write_found
from faults.verdict import Verdict

RESULTS = BENCH / "results" / "faults.json"
CHAPTER = BENCH.parent / "docs" / "faults.md"


def trials(chain: Chain, subject: Subject, kills: int, draw: random.Random) -> Iterator[Callable[[], Verdict]]:
    """Yield what is tried on one stage: `kills` signals in turns, the obstacles, a culprit of each kind."""
    window = measure_window(chain, subject)
    for victim in islice(cycle(victims_of(subject)), kills):
        yield partial(kill, chain, subject, victim, window, draw)
    for _ in range(max(1, kills // 10)):
        yield partial(fill_disk, chain, subject, draw)
    for which in ("folder", "parent"):
        yield partial(forbid, chain, subject, which)
    for kind in kinds_of(subject):
        yield partial(poison, chain, subject, kind, draw)


def main() -> None:
    """Run the suite; exit 1 when something was wrong."""
    names = [subject.name for subject in SUBJECTS]
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--stage", action="append", choices=names, help="only this stage; may be given again")
    parser.add_argument("--kills", type=int, default=20, help="signals per stage, over its kinds in turns")
    parser.add_argument("--seed", type=int, default=0, help="moments and culprits are drawn from it")
    parser.add_argument("--at-once", type=int, default=2, help="stages at the same time: a run is half waiting")
    parser.add_argument("--left", action="store_true", help="only the stages that the results lack")
    parser.add_argument("--folder", type=Path, help="where to work; what went wrong stays there (default: temporary)")
    parser.add_argument("--draft", action="store_true", help="write neither the results nor the table")
    chosen = parser.parse_args()
    found = read_found(RESULTS)
    wanted = [
        subject
        for subject in SUBJECTS
        if subject.name in (chosen.stage or names) and not (chosen.left and subject.name in found)
    ]
    root = chosen.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    print(f"working in {root}; making the chain", flush=True)
    chain = Chain(root)
    chain.finish()
    may_mount(root)  # once, before there are threads
    began, lock = time.monotonic(), Lock()

    def examine(subject: Subject) -> int:
        draw = random.Random(seed_of(chosen.seed, subject.name))  # noqa: S311 -- no secret
        verdicts = []
        for trial in trials(chain, subject, chosen.kills, draw):
            verdicts.append(verdict := trial())
            said = f"WRONG: {verdict.wrong}" if verdict.wrong else "equal"
            seconds = time.monotonic() - began
            print(f"{seconds:6.0f} s  {verdict.stage}, {verdict.fault} {verdict.note}: {said}", flush=True)
        with lock:
            if not chosen.draft:
                found[subject.name] = entry_of(verdicts, chosen.seed)
                write_found(found, RESULTS, CHAPTER)
        return sum(bool(verdict.wrong) for verdict in verdicts)

    with ThreadPoolExecutor(chosen.at_once) as threads:
        bad = sum(threads.map(examine, wanted))
    print(f"{bad} wrong, {time.monotonic() - began:.0f} s", flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
