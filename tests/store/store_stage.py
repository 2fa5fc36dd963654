"""A small stage, whose units a test counts requests by."""

from __future__ import annotations

import io

import pyarrow as pa

from carnac.core.places import Place
from carnac.engine.manifest import Manifest
from carnac.engine.part import Part
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit


def write_rows(unit: Unit, part: Part) -> None:
    """Write three rows, and a file beside them if the unit wants one."""
    for number in range(3):
        part.write({"unit": unit.name, "number": number})
    if unit.task is not None:
        part.beside(unit.task / "packs", ".bin").write_bytes(unit.name.encode())


STAGE = Stage(
    name="counted", version=1, schema=pa.schema([("unit", pa.string()), ("number", pa.int64())]), work=write_rows
)


def do_units(folder: Place, count: int, *, beside: bool = False) -> Manifest:
    """Do `count` units in `folder`, in children, and publish them."""
    units = [
        STAGE.unit(f"u{number:05d}", folder if beside else None, settings={}, inputs=[]) for number in range(count)
    ]
    runner = Runner(reporter=TerminalReporter(io.StringIO()), workers=2)
    return runner.publish(STAGE, folder, runner.do(STAGE, units, folder), {}, {})
