"""A whole run in a process of its own: `engine_script.py OUTPUT LOG UNITS WORKERS SHIFT PAUSE_SECONDS`.

Prints the digest of the manifest. It stands in for `carnac run`, with a stage whose speed the test decides.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine_stages import NUMBERS, numbers_units

from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner


def main() -> None:
    """Run the stage and print the digest."""
    output, log = Path(sys.argv[1]), Path(sys.argv[2])
    num_units, workers, shift = (int(text) for text in sys.argv[3:6])
    units = numbers_units(log, range(0, 10 * num_units, 10), shift=shift, pause_seconds=float(sys.argv[6]))
    runner = Runner(reporter=TerminalReporter(), workers=workers)
    entries = runner.do(NUMBERS, units, output)
    print(runner.publish(NUMBERS, output, entries, {"shift": shift}, {}).digest)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
