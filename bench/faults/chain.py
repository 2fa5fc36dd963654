"""The chain under test: the tiny recipes over six archives, so that a moment drawn at random finds a unit half done.

Every trial begins in a copy of the finished chain from which the folders of one stage were removed: its recipe then
does that stage again and nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from fastwarc.warc import ArchiveIterator, WarcRecordType
from story_runs import RECIPES, overrides

from carnac.engine.state import STATE

OUT = Path("out", "tiny")
BENCH = Path(__file__).parents[1]
TRAIN = "05-train.toml"
# Beyond what the story makes smaller: a loop of a few seconds, in which a kill falls between any two checkpoints.
TRAINING = ("--set=training.steps=60", "--set=training.checkpoints.every_steps=10")
RUN_SECONDS = 300.0  # no run of a stage takes a tenth of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A stage that is put to the test: its recipe, and the folders that are removed so that it is done again.

    `keeps` are folders inside that belong to another stage. `after` are folders of later stages that would refuse other
    inputs. With `is_loop` the stage is a loop in the run's own process: it has no workers, and ends when the run does.
    """

    name: str
    recipe: str
    folders: tuple[str, ...]
    keeps: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    is_loop: bool = False


REPEATS = "curated/repeats/repeats"
SUBJECTS = (
    Subject(name="documents", recipe="01-crawl.toml", folders=("documents",)),
    Subject(name="images", recipe="02-images.toml", folders=("images",)),
    Subject(name="signals", recipe="03-curate.toml", folders=("curated/signals",)),
    Subject(name="repeat_keys", recipe="03-curate.toml", folders=(f"{REPEATS}/keys",)),
    Subject(name="repeats", recipe="03-curate.toml", folders=(REPEATS,), keeps=("keys",)),
    Subject(name="masks", recipe="03-curate.toml", folders=("curated/masks",)),
    Subject(name="shards", recipe="04-shards.toml", folders=("shards",)),
    Subject(name="tokenizer", recipe=TRAIN, folders=("plan/tokenizer",)),
    Subject(name="pieces", recipe=TRAIN, folders=("plan/pieces",), after=("model",)),
    Subject(name="plan", recipe=TRAIN, folders=("plan/rows",)),
    Subject(name="model", recipe=TRAIN, folders=("model",), is_loop=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A command on its way. What it prints goes to a file: a pipe would be held open by whatever outlives it."""

    process: subprocess.Popen[bytes]
    printed: Path

    def wait(self, seconds: float = RUN_SECONDS) -> int:
        """Return the exit code. Raises subprocess.TimeoutExpired."""
        return self.process.wait(seconds)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.printed.read_text(errors="replace")

    @property
    def last_line(self) -> str:
        """The last line that it has printed."""
        return (self.output.strip().splitlines() or ["(nothing printed)"])[-1]


class Chain:
    """The finished chain in `root/whole` and trials beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.whole = root / "whole"
        self._numbers = count(1)
        data = root / "data"
        data.mkdir(parents=True)
        warcs = ", ".join(f'"{path}"' for path in write_archives(data))
        self._settings = {
            "01-crawl.toml": [f"--set=warcs=[{warcs}]"],
            "03-curate.toml": ["--set=rows_per_bucket=100"],  # 4 buckets of 297 documents
            TRAIN: [*overrides([TRAIN]), *TRAINING],
        }

    def finish(self, last: str = TRAIN) -> None:
        """Run every recipe up to `last`, uninterrupted."""
        self.whole.mkdir()
        for recipe in dict.fromkeys(subject.recipe for subject in SUBJECTS):
            run = self.start(self.whole, recipe)
            if run.wait() != 0:
                raise RuntimeError(f"the uninterrupted run failed:\n{run.output}")
            if recipe == last:
                return

    def start(
        self,
        folder: Path,
        recipe: str,
        *arguments: str,
        program: str = "carnac",
        environment: dict[str, str] | None = None,
        file_bytes: int = -1,
        rights: Literal["all", "plain"] = "all",
    ) -> Run:
        """Start a recipe in `folder`, in a session of its own so that all it starts can be killed at once.

        `file_bytes` and `rights` are those of `faults.launch`.
        """
        launch = [sys.executable, str(Path(__file__).with_name("launch.py")), str(file_bytes), rights]
        command = [*launch, sys.executable, "-m", program, "run", str(RECIPES / recipe), "--workers=2"]
        command += [*self._settings.get(recipe, ()), *arguments]
        printed = self.root / f"{folder.name}.txt"
        paths = os.pathsep.join([str(BENCH), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)

        with printed.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **(environment or {})},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Run(process=process, printed=printed)

    def trial(self, subject: Subject, folder: Path | None = None, *, removed: tuple[str, ...] = ()) -> Path:
        """Return a folder with the finished chain but for the folders of `subject` (and `removed`)."""
        trial = folder or self.root / f"{subject.name}-{next(self._numbers):04d}"
        shutil.copytree(self.whole, trial, dirs_exist_ok=folder is not None)
        for name in subject.folders:
            remove(trial / OUT / name, subject.keeps)
        for name in removed:
            remove(trial / OUT / name)
        return trial

    def discard(self, trial: Path) -> None:
        """Remove a trial and what its run printed."""
        shutil.rmtree(trial)
        (self.root / f"{trial.name}.txt").unlink(missing_ok=True)


def remove(folder: Path, keeps: tuple[str, ...] = ()) -> None:
    """Remove a folder, or what is in it except for folders that stay."""
    if not keeps:
        shutil.rmtree(folder)
        return
    for path in folder.iterdir():
        if path.name not in keeps:
            path.unlink()


def is_working(trial: Path, subject: Subject) -> bool:
    """Say whether a run says that it works in a folder of the stage."""
    return any(state_files(trial, subject))


def state_files(trial: Path, subject: Subject) -> list[Path]:
    """Return what runs say of themselves in the folders of the stage."""
    found = []
    for name in subject.folders:
        for folder, names, files in os.walk(trial / OUT / name):
            names[:] = [each for each in names if each not in subject.keeps]
            found += [Path(folder, STATE)] * (STATE in files)
    return found


def write_archives(folder: Path) -> tuple[Path, ...]:
    """Write the shipped pages as six archives: each of the two in halves, and the first halves once more."""
    written = []
    for number, path in enumerate(sorted((RECIPES / "data").glob("*.warc.gz"))):
        stored = path.read_bytes()
        with path.open("rb") as stream:
            starts = [record.stream_pos for record in ArchiveIterator(stream, record_types=WarcRecordType.response)]
        middle = starts[len(starts) // 2]
        for half, content in (("a", stored[:middle]), ("b", stored[middle:]), ("z", stored[:middle])):
            written.append(folder / f"pages-{half}{number}.warc.gz")
            written[-1].write_bytes(content)
    return tuple(sorted(written))
