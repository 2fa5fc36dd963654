"""A whole run in a process of its own: it stands in for `carnac run`, with a stage that does what the test decides.

engine_script.py OUTPUT LOG UNITS WORKERS SHIFT PAUSE_SECONDS     units of numbers; prints the manifest's digest
engine_script.py hazards OUTPUT LOG HAZARD,HAZARD,...             one unit with a record per hazard
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine_hazards import STAGE, hazard_unit
from engine_stages import NUMBERS, numbers_units

from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.recipe.settings import Limits


def main() -> None:
    """Run the stage and print the digest."""
    if sys.argv[1] == "hazards":
        _hazards(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4].split(","))
        return
    output, log = Path(sys.argv[1]), Path(sys.argv[2])
    num_units, workers, shift = (int(text) for text in sys.argv[3:6])
    units = numbers_units(log, range(0, 10 * num_units, 10), shift=shift, pause_seconds=float(sys.argv[6]))
    runner = Runner(reporter=TerminalReporter(), workers=workers)
    entries = runner.do(NUMBERS, units, output)
    print(runner.publish(NUMBERS, output, entries, {"shift": shift}, {}).digest)


def _hazards(output: Path, log: Path, hazards: list[str]) -> None:
    runner = Runner(reporter=TerminalReporter(), workers=1, limits=Limits(cpu_seconds=600, wait_seconds=600))
    entries = runner.do(STAGE, [hazard_unit(log, "a", hazards)], output)
    print(runner.publish(STAGE, output, entries, {}, {}).digest)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
