"""A real run in a process of its own: `report_script.py OUTPUT UNIT=RECORDS ...`; records are `NAME[:BEHAVIOUR],...`.

A record is sound, or `refused` (RecordError), `abort`s its process, is `slow` or hangs for ever (`waits`); a unit fails
by a record `stray`. Pages go to a stage called documents, counted as the crawl counts them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import carnac.engine.run
from carnac.core.errors import CarnacError, RecordError
from carnac.core.schema import DOCUMENTS
from carnac.engine.child import do_unit
from carnac.engine.manifest import collect_parts, manifest_of, write_manifest
from carnac.engine.part import LOST, Part
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit

SLOW_SECONDS = 0.2


def try_page(record: str, behaviour: str) -> str:
    """Be the work on one record."""
    if behaviour == "refused":
        raise RecordError("page_refused", f"\x1b[31m{record} is not wanted")
    if behaviour == "abort":
        os.abort()
    if behaviour == "slow":
        time.sleep(SLOW_SECONDS)
    while behaviour == "waits":
        time.sleep(0.1)
    return record


def write_pages(unit: Unit, part: Part) -> None:
    """Write the pages of one unit."""
    for entry in unit.task:
        record, _, behaviour = entry.partition(":")
        if behaviour == "stray":
            raise ValueError("something outside any record")
        if part.attempt(record, try_page, record, behaviour) is not LOST:
            part.count("documents")
            part.write({"id": record, "url": record, "texts": [], "images": [], "kinds": [], "image_nodes": []})


PAGES = Stage(name="documents", version=1, schema=DOCUMENTS, work=write_pages)


def page_units(texts: Sequence[str]) -> list[Unit]:
    """Return one unit per `UNIT=RECORDS`. What is sound is no setting: a unit keeps its key when a record is mended."""
    units = []
    for text in texts:
        name, _, records = text.partition("=")
        names = [record.partition(":")[0] for record in records.split(",")]
        units.append(PAGES.unit(name, tuple(records.split(",")), settings={}, inputs=names))
    return units


def commit_pages(folder: Path, *texts: str) -> None:
    """Do the units in this process, and write no manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for unit in page_units(texts):
        do_unit(PAGES, unit, folder)


def finish_pages(folder: Path, *texts: str) -> None:
    """Do the units in this process, and write the manifest."""
    commit_pages(folder, *texts)
    write_manifest(manifest_of(PAGES, folder, collect_parts(folder, page_units(texts)), {}, {}))


def main() -> int:
    """Run the stage, two workers at once; say what it is doing ten times a second."""
    vars(carnac.engine.run)["WRITE_SECONDS"] = 0.1
    output, units = Path(sys.argv[1]), page_units(sys.argv[2:])
    runner = Runner(reporter=TerminalReporter(), workers=2)
    try:
        runner.publish(PAGES, output, runner.do(PAGES, units, output), {}, {})
    except CarnacError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
