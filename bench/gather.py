"""From packs to shards: what is read of the packs, how long it takes beside random reads, and what memory it needs.

The kernel is asked, by strace: each read of a pack, where it begins and how long it is. Wanted: no read that does not
begin where the one before ended, and <= 1.05 of the packs' bytes. Both ways make the same samples, in turns, with the
packs out of the page cache and in it. Memory: highest peak of a worker at 1x and 10x the images, wanted <= 1.15.

Run with PYTHONPATH=bench:tests/jobs, as scripts/bench does.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

from jobs_shards_inputs import Size, write_inputs
from memory import Measured

from carnac.core.places import Place
from carnac.engine.manifest import PartEntry, read_manifest
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit
from carnac.jobs import shards

PACK_BYTES = 50_000_000  # of 1,000 URLs
IMAGE_BYTES = 40_000
DOCUMENTS = 1000  # of a part, with five images each
_CALL = re.compile(r"(openat|read|pread64|readv|preadv|lseek|mmap)\(.*\)\s+= (-?\w+)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringRunner(Runner):
    """Keeps the highest peak of the workers of each stage, in MB."""

    peaks: dict[str, float] = dataclasses.field(default_factory=dict)

    def do(self, stage: Stage, units: Sequence[Unit], folder: Place) -> tuple[PartEntry, ...]:
        """Do the units and look up their peaks."""
        assert stage.work is not None
        entries = Runner.do(self, dataclasses.replace(stage, work=Measured(stage.work)), units, folder)
        peak = max(entry.counts["peak_kb"] for entry in entries) / 1024
        self.peaks[stage.name] = max(peak, self.peaks.get(stage.name, 0.0))
        return entries


def size_of(megabytes: int) -> Size:
    """Return what has about so many megabytes of packs."""
    images = megabytes * 1_000_000 // IMAGE_BYTES
    packs = max(2, megabytes * 1_000_000 // PACK_BYTES)
    return Size(
        parts=max(1, round(images / 0.81 / 5 / DOCUMENTS)), documents=DOCUMENTS, packs=packs, image_bytes=IMAGE_BYTES
    )


def reader() -> Runner:
    """Return a runner of two workers that says nothing."""
    return Runner(reporter=TerminalReporter(io.StringIO()), workers=2, preload=("carnac.jobs.shards",))


def recipe_of(folder: Path, output: Path) -> shards.ShardsRecipe:
    """Return the recipe of a run."""
    documents, images, masks = (folder / name for name in ("documents", "images", "masks"))
    return shards.ShardsRecipe(job="shards", documents=documents, images=images, masks=masks, output=output)


def packs_of(folder: Path) -> list[Path]:
    """Return the packs."""
    return sorted((folder / "images" / "packs").iterdir())


def forget(folder: Path) -> None:
    """Have the system drop the packs from its page cache."""
    for pack in packs_of(folder):
        handle = os.open(pack, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def make_shards(folder: Path, output: Path, *, gathers: bool) -> float:
    """Make the shards anew, by gathering or by a random read for each image; return the seconds."""
    shutil.rmtree(output, ignore_errors=True)
    began = time.perf_counter()
    with contextlib.nullcontext() if gathers else mock.patch.object(shards, "gather", return_value=None):
        shards.run(recipe_of(folder, output), reader())
    return time.perf_counter() - began


def compare(folder: Path, rounds: int) -> None:
    """Print the seconds of both ways, packs on the disk and in the page cache, and whether the samples are equal."""
    ways = {"gathered": True, "random reads": False}
    digests = {}
    make_shards(folder, folder / "gathered", gathers=True)  # starts what all units share, and reads its modules
    for where in ("on the disk", "in the page cache"):
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, gathers in ways.items():
                for pack in packs_of(folder):
                    pack.read_bytes()
                if where == "on the disk":
                    forget(folder)
                output = folder / way.replace(" ", "-")
                seconds[way].append(make_shards(folder, output, gathers=gathers))
                digests[way] = [read_manifest(output / split).digest for split in ("train", "heldout")]
        for way, times in seconds.items():
            middle = statistics.median(times)
            print(f"packs {where:18} {way:13} {middle:7.2f} s ({min(times):.2f} to {max(times):.2f})")
    print(f"samples equal: {digests['gathered'] == digests['random reads']}")


def trace(folder: Path) -> None:
    """Print what a run under strace reads of the packs."""
    output, log = folder / "traced", folder / "strace.txt"
    recipe = folder / "traced.toml"
    recipe.write_text((folder / "shards.toml").read_text().replace('"shards"\nsplit', '"traced"\nsplit'))
    shutil.rmtree(output, ignore_errors=True)
    calls = "trace=openat,read,pread64,readv,preadv,lseek,mmap"
    command = ["strace", "-f", "-ff", "-y", "-e", calls, "-o", str(log), sys.executable, "-m", "carnac", "run"]
    subprocess.run([*command, str(recipe)], cwd=folder, check=True, capture_output=True)
    opened, read, jumps = 0, 0, 0
    for file in folder.glob("strace.txt.*"):
        place = 0
        for call, length in _calls_on_packs(file):
            if call == "openat":
                opened, place = opened + 1, 0
            elif call == "lseek":
                jumps, place = jumps + (length != place), length
            elif call == "read":
                read, place = read + length, place + length
            else:
                jumps += 1  # a read at a place of its own, or a map
    size = sum(pack.stat().st_size for pack in packs_of(folder))
    print(f"packs {len(packs_of(folder))}, opened {opened} times; {read:,} bytes read of {size:,} ({read / size:.4f})")
    print(f"reads that do not go on where the last one ended: {jumps}")


def _calls_on_packs(log: Path) -> Iterator[tuple[str, int]]:
    for line in log.read_text(errors="replace").splitlines():
        found = _CALL.match(line)
        if found is not None and ".tar" in line:
            yield found[1], int(found[2], 0)


def memory(folder: Path, megabytes: Sequence[int]) -> None:
    """Print the highest peak of each stage's workers by the megabytes of packs."""
    peaks = []
    for number in megabytes:
        write_inputs(folder / f"{number}", size_of(number))
        measuring = MeasuringRunner(reporter=reader().reporter, workers=2, preload=("carnac.jobs.shards",))
        shards.run(recipe_of(folder / f"{number}", folder / f"{number}" / "shards"), measuring)
        shutil.rmtree(folder / f"{number}")
        peaks.append(measuring.peaks)
    for stage, first in peaks[0].items():
        print(f"{stage:8} {first:6.0f} MB at {megabytes[0]} MB, {peaks[1][stage]:6.0f} MB at {megabytes[1]} MB", end="")
        print(f" ({peaks[1][stage] / first:.2f}, wanted <= 1.15)")


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000, help="of packs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure; default: a temporary one")
    arguments = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} {platform.machine()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        write_inputs(folder / "inputs", size_of(arguments.megabytes), group_mb=max(1, arguments.megabytes // 4))
        if shutil.which("strace") is None:
            print("strace is not installed: reads are not counted")
        else:
            trace(folder / "inputs")
        compare(folder / "inputs", arguments.rounds)
        shutil.rmtree(folder / "inputs")
        memory(folder, (arguments.megabytes // 5, arguments.megabytes * 2))


if __name__ == "__main__":
    main()
