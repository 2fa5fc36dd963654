"""The search for near-duplicates: what it finds of what is there, and what it costs as documents grow.

    scripts/bench near            quality, and the slope of 0.1 and 1 M signatures
    python bench/near.py slope --millions 0.1 1 10 --rounds 3 --plot near-slope.svg

Quality: pages of the tiny recipe, their paragraphs, and paragraphs of documentation that is installed here, with
planted edits; against the Jaccard similarity of all pairs, counted by brute force. Slope: CPU seconds of all steps
after the sketches, for synthetic signatures of which a fifth are edited copies.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
import math
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jobs_near import Page, near
from numba import njit
from turns import machine

from carnac.core.places import Place
from carnac.core.seeds import generator
from carnac.curate.near.kernels import band_keys
from carnac.curate.near.numbers import BANDS
from carnac.curate.near.sketch import SKETCHES, permutations
from carnac.curate.repeats.settings import RepeatsPass
from carnac.curate.texts.split import split_words
from carnac.engine.buckets import mix
from carnac.engine.manifest import PartEntry, collect_parts
from carnac.engine.part import Part
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.tables import read_batches
from carnac.engine.unit import Stage, Unit
from carnac.jobs import crawl
from carnac.jobs.repeats_near import search_sketches
from carnac.jobs.repeats_near_sketches import SKETCHES_STAGE
from carnac.jobs.repeats_sources import SearchLimits

DATA = Path(__file__).parents[1] / "recipes" / "tiny" / "data"
PROSE = (Path(sys.prefix), Path(sys.base_prefix) / "lib" / "python3", Path("/usr/share/doc"), Path("/usr/lib/python3"))
SUFFIXES = {".rst", ".md", ".txt", "METADATA", ".py"}
NUM_DOCUMENTS = 20_000
PLANTED = 7_000
UNITS = 4
MIN_WORDS = 20  # of a paragraph: of shorter ones a single edit leaves less than 0.7
SHINGLES = 64  # of a synthetic document
PER_PART = 100_000
COPY_EVERY = 5
MAX_REPLACED = 12  # of 64 shingles: similarities from 1 down to 0.68
CAP_MB = 1000
NEAR = RepeatsPass(name="repeats", kind="repeats", by=("near",))


@dataclasses.dataclass(frozen=True)
class Measured:
    """The work of a stage; CPU milliseconds and the peak of its process are noted in the ledger."""

    work: Callable[[Unit, Part], None]

    def __call__(self, unit: Unit, part: Part) -> None:
        """Do the work; then ask what this process has taken."""
        self.work(unit, part)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        part.count("cpu_ms", int(1000 * (usage.ru_utime + usage.ru_stime)))
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        part.count("peak_kb", int(line.split()[1]))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringRunner(Runner):
    """Does every stage as any run does; adds up CPU seconds and keeps the highest peak, by stage."""

    cpu: dict[str, float] = dataclasses.field(default_factory=dict)
    peaks: dict[str, float] = dataclasses.field(default_factory=dict)

    def do(self, stage: Stage, units: Sequence[Unit], folder: Place) -> tuple[PartEntry, ...]:
        """Do the units and look up what they took."""
        assert stage.work is not None
        entries = Runner.do(self, dataclasses.replace(stage, work=Measured(stage.work)), units, folder)
        seconds = sum(entry.counts["cpu_ms"] for entry in entries) / 1000
        peak = max((entry.counts["peak_kb"] for entry in entries), default=0) / 1024
        self.cpu[stage.name] = self.cpu.get(stage.name, 0.0) + seconds
        self.peaks[stage.name] = max(self.peaks.get(stage.name, 0.0), peak)
        return entries


def new_runner() -> MeasuringRunner:
    """Return a runner of two workers that says nothing."""
    modules = ("carnac.jobs.repeats_near", "carnac.curate.near.kernels", "near")
    return MeasuringRunner(reporter=TerminalReporter(io.StringIO()), workers=2, preload=modules)


def real_texts() -> Iterator[list[str]]:
    """Yield the texts of the tiny recipe's pages, then each paragraph, then paragraphs that are installed here."""
    pages = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "documents"
        warcs = tuple(map(str, sorted(DATA.glob("*.warc.gz"))))
        crawl.run(crawl.CrawlRecipe(job="crawl", warcs=warcs, output=folder), new_runner())
        for part in sorted(folder.glob("*.parquet")):
            for batch in read_batches(part, ["texts"]):
                pages += [[text for text in texts if text] for texts in batch.column("texts").to_pylist()]
    yield from pages
    for text in itertools.chain(*pages):
        yield [text]
    for text in installed_paragraphs():
        yield [text]


def installed_paragraphs() -> Iterator[str]:
    """Yield paragraphs of documentation and of docstrings, file after file."""
    for folder in PROSE:
        for path in sorted(folder.rglob("*")):
            if path.suffix in SUFFIXES or path.name in SUFFIXES:
                try:
                    text = path.read_text("utf-8")
                except (OSError, UnicodeDecodeError):
                    continue
                if path.suffix == ".py":
                    text = "\n\n".join(re.findall(r'"""(.*?)"""', text, re.DOTALL))
                yield from re.split(r"\n\s*\n", text)


def corpus(max_copies: int) -> list[list[str]]:
    """Return documents of different words: real ones, and planted edits, of one document `max_copies` at most."""
    texts: dict[tuple[str, ...], list[str]] = {}
    for each in real_texts():
        words = tuple(word for text in each for word in split_words(text))
        if len(words) >= MIN_WORDS:
            texts.setdefault(words, each)
        if len(texts) == NUM_DOCUMENTS - PLANTED:
            break
    random, originals = generator(0, "bench near"), list(texts.values())
    if not max_copies:
        return originals
    of_one = np.tile(np.arange(len(originals)), max_copies)
    for original in random.permutation(of_one):
        made = edited(originals[int(original)], random)
        texts.setdefault(tuple(word for text in made for word in split_words(text)), made)
        if len(texts) == NUM_DOCUMENTS:
            break
    documents = list(texts.values())
    return [documents[place] for place in random.permutation(len(documents))]


def edited(texts: Sequence[str], random: np.random.Generator) -> list[str]:
    """Return texts with some words replaced, removed or put in, sometimes cut short or turned round."""
    words, share = [text.split() for text in texts], random.uniform(0, 0.12)
    for block in words:
        for place in range(len(block) - 1, -1, -1):
            if random.random() < share / 3:
                draw = random.integers(3)
                new = str(random.choice(["edited", "changed", "another", "new", "old", "this"]))
                block[place : place + 1] = [[new], [], [block[place], new]][draw]
    if random.random() < 0.2:
        words[-1] = words[-1][: int(len(words[-1]) * random.uniform(0.7, 1))]
    if random.random() < 0.2 and len(words) > 2:
        words = [*words[1:], words[0]]
    if random.random() < 0.3:
        place = int(random.integers(len(words)))
        words[place] = [*words[place], "read", "more", "about", "it", "here"][: len(words[place]) + 5]
    return [" ".join(block) for block in words]


@njit(cache=True)
def count_pairs(
    tokens: np.ndarray, starts: np.ndarray, postings: np.ndarray, posted: np.ndarray, least: float
) -> list[tuple[int, int, float]]:
    """Return (i, j, Jaccard similarity) of all pairs j < i of at least `least`, from an inverted index."""
    found = [(0, 0, 0.0)]
    common = np.zeros(len(starts), np.int32)
    for one in range(len(starts) - 1):
        common[:one] = 0
        size = starts[one + 1] - starts[one]
        for token in tokens[starts[one] : starts[one + 1]]:
            for other in postings[posted[token] : posted[token + 1]]:
                if other >= one:
                    break
                common[other] += 1
        for other in range(one):
            if common[other]:
                similarity = common[other] / (size + starts[other + 1] - starts[other] - common[other])
                if similarity >= least:
                    found.append((one, other, similarity))
    return found[1:]


def brute_force(documents: Sequence[Sequence[str]], least: float) -> dict[tuple[int, int], float]:
    """Return the exact Jaccard similarity of word 3-shingles of all pairs (i < j) of at least `least`."""
    numbers: dict[tuple[str, str, str], int] = {}
    sets = []
    for texts in documents:
        words = [word for text in texts for word in split_words(text)]
        shingles = set(zip(words, words[1:], words[2:], strict=False))
        sets.append(sorted(numbers.setdefault(shingle, len(numbers)) for shingle in shingles))
    starts = np.concatenate([[0], np.cumsum([len(each) for each in sets])])
    tokens = np.array(list(itertools.chain(*sets)))
    owners = np.repeat(np.arange(len(sets)), np.diff(starts))
    postings = owners[np.argsort(tokens, kind="stable")]
    posted = np.concatenate([[0], np.cumsum(np.bincount(tokens))])
    return {(other, one): found for one, other, found in count_pairs(tokens, starts, postings, posted, least)}


def measure_quality(max_copies: int) -> dict[str, float]:
    """Search the corpus and return figures."""
    documents = corpus(max_copies)
    pairs = brute_force(documents, 0.5)
    crawl_of = {f"part-{number}": [Page(texts=each) for each in documents[number::UNITS]] for number in range(UNITS)}
    with tempfile.TemporaryDirectory() as scratch:
        rows = near(Path(scratch), crawl_of, runner=new_runner(), masked=False, rows_per_bucket=20_000)

    alike = [pair for pair, similarity in pairs.items() if similarity >= 0.8]
    figures: dict[str, float] = {"documents": len(documents), "dropped": len(rows), "pairs of 0.8 or more": len(alike)}
    for name, together in {"set": pairs_by(rows, "key"), "root": pairs_by(rows, "root")}.items():
        figures[f"pairs of one {name}"] = len(together)
        figures[f"recall by {name}"] = sum(pair in together for pair in alike) / len(alike)
        figures[f"precision by {name}"] = sum(pairs.get(pair, 0.0) >= 0.7 for pair in together) / len(together)
    return figures


def pairs_by(rows: Sequence[Mapping[str, object]], column: str) -> set[tuple[int, int]]:
    """Return the pairs of documents that one set, or one root, holds: numbers in the corpus, the lesser first."""
    members: dict[object, set[int]] = {}
    for row in rows:
        unit, number = re.split("[:@~]", str(row[column]))[:2]  # a root's id is UNIT:ROW, a set's key UNIT@ROW~ROUND
        first = _number(unit, number)
        members.setdefault(row[column], {first}).add(_number(row["unit"], row["row"]))
    return {pair for each in members.values() for pair in itertools.combinations(sorted(each), 2)}


def _number(unit: object, row: object) -> int:
    return int(str(row)) * UNITS + int(str(unit).removeprefix("part-"))


@njit(cache=True)
def many_bands(shingles: np.ndarray, factors: np.ndarray, addends: np.ndarray) -> np.ndarray:
    """Return the band keys of many documents of as many shingles each."""
    keys = np.empty((len(shingles), BANDS), np.uint64)
    for place in range(len(shingles)):
        keys[place] = band_keys(shingles[place], factors, addends)
    return keys


def write_synthetic(folder: Path, num_documents: int) -> tuple[tuple[PartEntry, ...], int]:
    """Write sketches of so many documents; return their parts and how many are copies of 0.8 or more."""
    folder.mkdir(parents=True)
    units = [SKETCHES_STAGE.unit(f"{n:05d}", n, settings={}, inputs=[]) for n in range(num_documents // PER_PART)]
    alike = 0
    for unit in units:
        numbers = np.arange(unit.task * PER_PART, (unit.task + 1) * PER_PART)
        random = generator(0, f"bench near {unit.name} of {num_documents}")
        is_copy = numbers % COPY_EVERY == COPY_EVERY - 1
        # A copy's source is any document that is none; it may lie in a later part.
        sources = random.integers(num_documents // COPY_EVERY, size=PER_PART) * COPY_EVERY
        replaced = np.where(is_copy, random.integers(MAX_REPLACED + 1, size=PER_PART), 0)
        alike += int((is_copy & ((SHINGLES - replaced) / (SHINGLES + replaced) >= 0.8)).sum())
        taken = np.where(is_copy, sources, numbers)
        places = np.arange(SHINGLES)
        own = np.where(places < replaced[:, None], numbers[:, None], taken[:, None])
        shingles = mix(own * SHINGLES + places)
        bands = many_bands(shingles, *permutations())
        hashes = np.sort((shingles >> np.uint64(32)).astype("<u4"), axis=1)
        columns = [
            pa.array(numbers - numbers[0]),
            pa.array([f"{number:032x}" for number in numbers]),
            pa.array(np.full(PER_PART, SHINGLES + 2)),
            pa.array(numbers),
            pa.array(np.full(PER_PART, SHINGLES)),
            pa.array([row.tobytes() for row in bands], pa.binary(8 * BANDS)),
            pa.array([row.tobytes() for row in hashes], pa.binary()),
        ]
        with Part(SKETCHES_STAGE, unit, folder) as part:
            part.write_table(pa.Table.from_arrays(columns, schema=SKETCHES))
    return collect_parts(folder, units), alike


def measure_slope(millions: Sequence[float], rounds: int) -> dict[int, list[float]]:
    """Return the CPU seconds of every round by number of signatures, the sizes in turns."""
    seconds: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for million in millions:
            number = int(million * 1_000_000)
            sketches, alike = write_synthetic(Path(scratch) / f"{number}", number)
            for turn in range(rounds):
                runner, began, cpu = new_runner(), time.monotonic(), time.process_time()
                limits = SearchLimits(max_memory_mb=CAP_MB, rows_per_bucket=1_000_000)
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    (found,) = search_sketches(runner, NEAR, sketches, Path(folder) / "repeats", limits)
                    num_rows = found.rows
                total = sum(runner.cpu.values()) + time.process_time() - cpu
                seconds.setdefault(number, []).append(total)
                peak = max(runner.peaks.values())
                steps = ", ".join(f"{name.removeprefix('near_')} {took:.0f}" for name, took in runner.cpu.items())
                print(
                    f"{number:>10,} round {turn + 1}: {total:.1f} s of CPU ({steps}), "
                    f"{time.monotonic() - began:.0f} s; peak {peak:.0f} MB (wanted <= {CAP_MB + 512}); "
                    f"{num_rows:,} dropped, {alike:,} copies of 0.8 or more; load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
    return seconds


def slope_of(seconds: Mapping[int, Sequence[float]]) -> float:
    """Return the slope of the line through the medians on logarithmic axes, by least squares."""
    points = [(math.log(number), math.log(statistics.median(times))) for number, times in seconds.items()]
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def plot(seconds: Mapping[int, Sequence[float]], path: Path) -> None:
    """Draw CPU seconds against signatures, with the line of slope 1.1 through the first point."""
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot as plt

    numbers = sorted(seconds)
    medians = [statistics.median(seconds[number]) for number in numbers]
    figure, axes = plt.subplots(figsize=(5.2, 3.4))
    for number in numbers:
        axes.plot([number] * len(seconds[number]), seconds[number], "o", color="0.6", markersize=4)
    axes.loglog(numbers, medians, "o-", color="C0", label=f"measured: slope {slope_of(seconds):.2f}")
    allowed = [medians[0] * (number / numbers[0]) ** 1.1 for number in numbers]
    axes.loglog(numbers, allowed, "--", color="C3", label="slope 1.1")
    axes.set(xlabel="documents (20 x 6 MinHash signatures)", ylabel="seconds of CPU, all steps")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["quality", "slope", "all"], nargs="?", default="all")
    parser.add_argument("--millions", type=float, nargs="+", default=[0.1, 1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}")
    if asked.what != "slope":
        for max_copies in (1, 3, 0):
            print(f"planted edits of a document: {max_copies} at most")
            for name, figure in measure_quality(max_copies).items():
                print(f"    {name:22} {figure:8,.4f}" if figure <= 1 else f"    {name:22} {figure:8,.0f}")
    if asked.what != "quality":
        seconds = measure_slope(asked.millions, asked.rounds)
        if len(seconds) > 1:
            print(f"slope of the medians {slope_of(seconds):.2f} (wanted <= 1.1)")
        if asked.plot is not None:
            plot(seconds, asked.plot)


if __name__ == "__main__":
    main()
