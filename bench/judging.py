"""Judge stored signals again: a million documents of 43 blocks, through the real runner on two workers.

    scripts/bench judging                         a million documents; about 4 GB in the scratch folder
    python bench/judging.py --documents 100000    fewer

Numbers are drawn, their schema is that of `signals/` and `image_signals/`; rules are those of `recipes/obelics`: its
passes `blocks` (on text: paragraph rules) and `documents`, one after the other, first as they are and then with every
threshold moved. Wanted again: <= 20 s and <= 3 s. CPU seconds are those of the workers: wall time is more than half of
them where others use the machine too.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import statistics
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from turns import machine

from carnac.core.document import KINDS
from carnac.core.places import Place
from carnac.core.seeds import generator
from carnac.curate.masks import Reasons
from carnac.curate.settings import RulesPass
from carnac.curate.signals.measure import SIGNALS
from carnac.engine.manifest import Manifest, PartEntry, collect_parts, manifest_of
from carnac.engine.part import Part
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit
from carnac.jobs.curate_judge import Sources, judge

RECIPE = Path(__file__).parents[1] / "recipes" / "obelics" / "02-curate.toml"
BLOCKS = 43  # of a document, in the mean: those of the tiny recipe
DOCUMENTS_OF_PART = 50_000  # what an archive of Common Crawl holds
ROWS_OF_GROUP = 1_000  # of a stage
IMAGES = 0.1  # of blocks
STORED = Stage(name="signals", version=1, schema=SIGNALS, work=None, rows_per_group=ROWS_OF_GROUP)
Numbers = np.random.Generator
Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds that a pass took: on the clock, and of the workers' processors."""

    wall: float
    cpu: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """The work of a stage, after which the ledger says what its process took: a unit has its own."""

    work: Callable[[Unit, Part], None]

    def __call__(self, unit: Unit, part: Part) -> None:
        """Do the work, then note the milliseconds."""
        self.work(unit, part)
        part.count("cpu_ms", round(1000 * time.process_time()))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringRunner(Runner):
    """Does every stage as any run does, and keeps the CPU seconds of its workers."""

    cpu_seconds: list[float] = dataclasses.field(default_factory=list)

    def do(self, stage: Stage, units: Sequence[Unit], folder: Place) -> tuple[PartEntry, ...]:
        """Do the units and add up what they took."""
        assert stage.work is not None
        missing = {unit.name for unit in self.missing(units, folder)}
        entries = Runner.do(self, dataclasses.replace(stage, work=Measured(stage.work)), units, folder)
        spent = sum(entry.counts["cpu_ms"] for entry in entries if entry.unit in missing)
        self.cpu_seconds.append(spent / 1000)
        return entries


def passes() -> tuple[RulesPass, RulesPass]:
    """Return the paragraph and the document rules of the recipe."""
    tables = {table["name"]: table for table in tomllib.loads(RECIPE.read_text())["pass"]}
    for name in ("blocks", "documents"):
        tables[name]["rules"] = [rule for rule in tables[name]["rules"] if rule["on"] != "image"]
    blocks, documents = (RulesPass.model_validate(tables[name], strict=False) for name in ("blocks", "documents"))
    return blocks, documents


def signals(numbers: Numbers, num_documents: int) -> pa.Table:
    """Return drawn rows of `signals/`."""
    lengths = np.minimum(1 + numbers.geometric(1 / (BLOCKS - 1), num_documents), 10 * BLOCKS)
    starts = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    num_blocks = int(lengths.sum())
    is_image = numbers.random(num_blocks) < IMAGES
    words = np.exp(numbers.normal(2.7, 1.2, num_blocks))
    columns: list[pa.Array] = []
    for field in SIGNALS:
        if field.name == "block_kind":
            kinds = np.where(is_image, KINDS.index("image"), numbers.integers(0, len(KINDS) - 1, num_blocks))
            columns.append(pa.ListArray.from_arrays(starts, pa.array(kinds, pa.int8())))
        elif pa.types.is_list(field.type):
            values = drawn(field.type.value_type, numbers, words)
            masked = pa.array(values, field.type.value_type, mask=is_image)
            columns.append(pa.ListArray.from_arrays(starts, masked))
        elif field.name == "failed":
            columns.append(pa.nulls(num_documents, pa.string()))
        elif field.name == "language":
            columns.append(pa.array(["en"] * num_documents))
        else:
            columns.append(pa.array(drawn(field.type, numbers, np.full(num_documents, 600.0)), field.type))
    return pa.table(columns, schema=SIGNALS)


def drawn(kind: pa.DataType, numbers: Numbers, size: Array) -> Array | list[str]:
    """Return values of a type: counts are a share of `size` (float64[n]), numbers lie between 0 and 1."""
    if pa.types.is_floating(kind):
        return numbers.beta(1, 12, len(size))
    if kind == pa.uint64():
        return numbers.integers(0, 1 << 63, len(size), np.uint64)
    if pa.types.is_integer(kind):
        counts: Array = (size * numbers.random()).astype(np.int64) % (1 << min(15, kind.bit_width - 1))
        return counts
    if pa.types.is_boolean(kind):
        return numbers.random(len(size)) < 0.5
    return hexes(numbers, len(size))


def hexes(numbers: Numbers, number: int) -> list[str]:
    """Return ids: 32 hex digits."""
    digits = numbers.bytes(16 * number).hex()
    return [digits[start : start + 32] for start in range(0, len(digits), 32)]


def write(folder: Path, num_documents: int) -> Manifest:
    """Write `signals/` as the stage does, in row groups of its size."""
    folder.mkdir(parents=True)
    counts = [min(DOCUMENTS_OF_PART, num_documents - first) for first in range(0, num_documents, DOCUMENTS_OF_PART)]
    units = [STORED.unit(f"{number:05d}", count, settings={}, inputs=[]) for number, count in enumerate(counts)]
    for unit in units:
        with Part(STORED, unit, folder) as part:
            part.write_table(signals(generator(0, f"bench judging {unit.name}"), unit.task))
    return manifest_of(STORED, folder, collect_parts(folder, units), {}, {})


def moved(step: RulesPass, number: int) -> RulesPass:
    """Return a pass with every number of its rules a little higher: what a user does who looks for thresholds."""
    rules = []
    for rule in step.rules:
        sides = {side: getattr(rule, side) for side in ("min", "max", "above", "below")}
        rules.append(rule.model_copy(update={side: low * (1 + number / 1000) for side, low in sides.items() if low}))
    return step.model_copy(update={"rules": tuple(rules)})


def timed(
    runner: MeasuringRunner, folder: Path, sources: Sources, steps: Sequence[RulesPass]
) -> tuple[Manifest, Times]:
    """Judge by the last of `steps`; return the masks and what it took."""
    began = time.perf_counter()
    masks = judge(runner, sources, steps[-1], Reasons.of(steps), folder)
    times = Times(wall=time.perf_counter() - began, cpu=sum(runner.cpu_seconds))
    runner.cpu_seconds.clear()
    return masks, times


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{machine()}, pyarrow {pa.__version__}, load {os.getloadavg()[0]:.1f}")
    blocks, documents = passes()
    runner = MeasuringRunner(reporter=TerminalReporter(io.StringIO()), workers=2, preload=("carnac.jobs.curate",))
    with tempfile.TemporaryDirectory() as scratch:
        masks = Path(scratch) / "masks"
        stored = write(Path(scratch) / "signals", arguments.documents)
        size = sum(part.total_bytes for part in stored.parts)
        print(f"{stored.rows:,} documents, {len(SIGNALS)} columns, {size / 1e9:.2f} GB in {len(stored.parts)} parts")
        on_signals = Sources(signals=stored, images=None, kept=None, last=None, hits=None)
        # The first time starts the processes; the first judging of documents also stores what their signals come to.
        last, first_blocks = timed(runner, masks / "blocks", on_signals, [blocks])
        on_masks = dataclasses.replace(on_signals, last=last)
        _, first_documents = timed(runner, masks / "documents", on_masks, [blocks, documents])
        tell("blocks, first", len(blocks.rules), [first_blocks])
        tell("documents, first", len(documents.rules), [first_documents])
        again: dict[str, list[Times]] = {"blocks": [], "documents": []}
        for number in range(1, arguments.rounds + 1):
            _, times = timed(runner, masks / "blocks", on_signals, [moved(blocks, number)])
            again["blocks"].append(times)
            _, times = timed(runner, masks / "documents", on_masks, [blocks, moved(documents, number)])
            again["documents"].append(times)
        tell("blocks, again", len(blocks.rules), again["blocks"])
        tell("documents, again", len(documents.rules), again["documents"])
    print(f"load {os.getloadavg()[0]:.1f}")


def tell(name: str, num_rules: int, rounds: Sequence[Times]) -> None:
    """Print the median and the spread."""
    walls, cpus = sorted(times.wall for times in rounds), sorted(times.cpu for times in rounds)
    print(
        f"{name:17} {num_rules:3} rules: {statistics.median(walls):6.2f} s wall ({walls[0]:.2f} to {walls[-1]:.2f}), "
        f"{statistics.median(cpus):6.2f} s CPU ({cpus[0]:.2f} to {cpus[-1]:.2f}) of two workers"
    )


if __name__ == "__main__":
    main()
