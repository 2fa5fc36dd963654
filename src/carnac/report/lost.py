"""The records that were lost: how many for each reason, some of them, and the command that tries one again."""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from carnac.core.places import Place, is_local, read_bytes
from carnac.engine.ledger import Quarantined, read_ledger
from carnac.engine.manifest import Manifest
from carnac.report.curation_steps import STEPS_OF_CURATION
from carnac.report.folders import StageFolder
from carnac.report.layout import flat, percent, shell_word

NUM_SAMPLES = 3
RECIPE = "recipe.toml"
MAX_ABOVE = 4  # folders from a stage's to its recipe's: <pass>, repeats, keys, <kind>

# Which jobs write a stage, and in which counts the records stand that were not lost: where a stage counts what it
# tried, a loss has a share. A lost page of `signals` keeps its row.
JOBS = {"documents": ("crawl", "adopt"), "images": ("images",), "archived": ("images",), "fetched": ("images",),
        "signals": ("curate",), "image_signals": ("curate",), "masks": ("curate",),
        "listed": ("curate",), "contaminated": ("curate",), **dict.fromkeys(STEPS_OF_CURATION, ("curate",)),
        "card_parts": ("shards",), "card": ("shards",),
        "repeats": ("curate",), "repeat_keys": ("curate",), "shards": ("shards", "conversations"),
        "routes": ("shards",), "gather": ("shards",),
        "tokenizer": ("train",), "pieces": ("train",), "plan": ("train",), "model": ("train",),
        "sweep": ("sweep",), "evaluation": ("evaluate",), "questions": ("ask",), "chat": ("chat",)}  # fmt: skip
SOUND = {"documents": ("documents",), "shards": ("samples", "emptied"), "chat": ("prompts",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LostReason:
    """The records of a stage that one reason took. `share` is of the records tried, None where none are counted.

    `samples` are some of them; `command` tries the first one again. `unit` is set for what is not committed yet.
    """

    reason: str
    number: int
    share: float | None
    samples: tuple[Quarantined, ...]
    command: str
    unit: str | None = None

    @property
    def amount(self) -> str:
        """How many, of how many: for a reader."""
        if self.unit is not None:
            return f"{self.number:,}, not committed yet (unit {self.unit})"
        return f"{self.number:,}" if self.share is None else f"{self.number:,} ({percent(self.share)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LostRecords:
    """What a stage's folder has lost."""

    title: str
    number: int
    tried: int | None
    reasons: tuple[LostReason, ...]

    def lines(self, num_samples: int) -> Iterator[str]:
        """Yield the lines for a reader, with at most `num_samples` records for each reason."""
        if self.number:
            of = "" if self.tried is None else f" of {self.tried:,} tried ({percent(self.number / self.tried)})"
            yield f"{self.title}: {self.number:,} records lost{of}"
        else:
            yield f"{self.title}: records that ended their process"
        for reason in self.reasons:
            yield f"  {reason.reason}: {reason.amount}"
            for sample in reason.samples[:num_samples]:
                yield f"    {flat(sample.record)}  {flat(sample.detail)}".rstrip()
            yield f"    again: {reason.command}"


def lost_records(folder: StageFolder, recipes: Sequence[Place] = ()) -> LostRecords | None:
    """Return what a folder has lost, None for nothing.

    `recipes` are those found near: the one as run is looked for beside the output, then among them.
    """
    content = folder.content
    counts = {name[5:]: number for name, number in content.counts.items() if name.startswith("lost.")}
    if not counts and not folder.culprits:
        return None
    tried = _tried(content, sum(counts.values()))
    recipe = recipe_of(content, recipes) if counts and folder.is_finished else None
    samples = _samples(content, counts)
    reasons = [
        LostReason(
            reason=reason,
            number=number,
            share=number / tried if tried else None,
            samples=tuple(samples[reason]),
            command=command(recipe, samples[reason][0].record) if samples[reason] else "",
        )
        for reason, number in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    ]
    return LostRecords(
        title=folder.title,
        number=sum(counts.values()),
        tried=tried or None,
        reasons=(*reasons, *_not_committed(folder)),
    )


def _not_committed(folder: StageFolder) -> Iterator[LostReason]:
    found: dict[tuple[str, str], list[Quarantined]] = {}
    for culprit in folder.culprits:
        found.setdefault((culprit.unit, culprit.why.reason), []).append(culprit.why)
    for (unit, reason), lost in found.items():
        # A recipe is kept beside its output when it has ended: one that lies there now is of an earlier run.
        again = command(None, lost[0].record)
        samples = tuple(lost[:NUM_SAMPLES])
        yield LostReason(reason=reason, number=len(lost), share=None, samples=samples, command=again, unit=unit)


def _tried(content: Manifest, lost: int) -> int | None:
    """Return how many records a stage has tried, where its counts tell."""
    if content.stage == "signals":
        return content.rows
    if content.stage not in SOUND:
        return None
    return lost + sum(content.counts.get(name, 0) for name in SOUND[content.stage])


def _samples(content: Manifest, counts: dict[str, int]) -> dict[str, list[Quarantined]]:
    """Return the first lost records of each reason, from as few footers as hold them: a stage may have 10,000."""
    found: dict[str, list[Quarantined]] = {reason: [] for reason in counts}
    wanted = Counter({reason: min(NUM_SAMPLES, number) for reason, number in counts.items()})
    for part in content.parts:
        if not +wanted:
            break
        if any(wanted[name[5:]] > 0 for name in part.counts if name.startswith("lost.")):
            for lost in read_ledger(part.path).quarantine:
                if wanted[lost.reason] > 0:
                    wanted[lost.reason] -= 1
                    found[lost.reason].append(lost)
    return found


def command(recipe: Place | None, record: str) -> str:
    """Return the command that tries a record again. A recipe in a store must be fetched first: `run` reads a disk."""
    name = shell_word(str(recipe)) if recipe is not None and is_local(recipe) else "RECIPE"
    fetched = f"    # RECIPE: a copy of {recipe}" if recipe is not None and not is_local(recipe) else ""
    return f"carnac run {name} --record {shell_word(record)}{fetched}"


def recipe_of(content: Manifest, recipes: Iterable[Place] = ()) -> Place | None:
    """Return the recipe, as run, that wrote a folder: beside it or above it, else the only one of its job near."""
    jobs = JOBS.get(content.stage, ())
    folder: Place = content.folder
    for _ in range(1 + MAX_ABOVE):
        if _job_of(folder / RECIPE) in jobs:
            return folder / RECIPE
        # Above the working folder too: the parent of `.` is `..`.
        folder = Path(os.path.normpath(folder / "..")) if is_local(folder) else folder.parent
    near = [place for place in recipes if _job_of(place) in jobs]
    return near[0] if len(near) == 1 else None


def _job_of(recipe: Place) -> str | None:
    try:
        job = tomllib.loads(read_bytes(recipe).decode()).get("job")
    except (OSError, ValueError):
        return None
    return job if isinstance(job, str) else None
