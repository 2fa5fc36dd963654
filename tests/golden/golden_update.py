"""Bring the golden file up to date, or say why not.

    python tests/golden/golden_update.py             what the test says
    python tests/golden/golden_update.py --update    write what is said by a version, refuse the rest

It refuses a stage whose output changed without its version: that is what the golden file is there to hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import cast

# Run as a script, only this folder is on the path; pytest has both from pyproject.
sys.path.append(str(Path(__file__).parents[1] / "story"))

from golden_chain import run_chain
from golden_measure import Golden, made_with, measure
from golden_sources import ROOT, golden_stages, hints, installed_libraries
from golden_verdict import judge, report

GOLDEN_FILE = Path(__file__).with_name("golden_stages.json")
NOTHING: Golden = {"made_with": {}, "given": {}, "folders": {}}


def read_golden(path: Path = GOLDEN_FILE) -> Golden:
    """Return the golden facts; those of no stage where there is no file yet."""
    return cast("Golden", json.loads(path.read_bytes())) if path.is_file() else NOTHING


def explain(golden: Golden, now: Golden, stage: str | None = None) -> str:
    """Return what is to be said about one stage or all; an empty text where all is as it was."""
    verdicts = [verdict for verdict in judge(golden, now) if stage in (None, verdict.stage)]
    constraints = (ROOT / "constraints.txt").read_text()
    return report(
        verdicts, golden_stages(), hints(installed_libraries(), constraints, golden["made_with"], made_with())
    )


def update(now: Golden, path: Path = GOLDEN_FILE) -> tuple[bool, str]:
    """Write `now` as golden unless a version is missing; return whether it stands there, and what changed."""
    golden = read_golden(path)
    text = explain(golden, now)
    if any(verdict.state in ("raise", "lowered") for verdict in judge(golden, now)):
        return False, text
    if text:
        path.write_text(json.dumps(now, indent=1) + "\n")
    return True, text


def main(arguments: list[str]) -> int:
    """Run the chain, compare, and update if asked to; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the golden file where versions say why")
    parser.add_argument("--golden", type=Path, default=GOLDEN_FILE, help="another golden file")
    parser.add_argument("--chain", type=Path, help="a folder in which the chain was run already")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.chain or Path(scratch)
        if options.chain is None:
            run_chain(folder)
        now = measure(folder)
    if not options.update:
        text = explain(read_golden(options.golden), now)
        print(text or f"{options.golden.name}: every stage writes what it wrote.")
        return int(bool(text))
    written, text = update(now, options.golden)
    print(text or "nothing to update: every stage writes what it wrote.")
    if text:
        print(f"\n{options.golden.name}: {'written' if written else 'REFUSED, nothing written'}.")
    return int(not written)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
