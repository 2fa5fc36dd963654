"""Find what lies in a folder and below it: the stages, the funnel, the losses, the evaluation, the chat.

Flow in: folders on disk. Flow out: a `Story`; what is missing is None or empty, so a half-finished run can be told too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carnac.core.errors import InputError
from carnac.engine.aligned import read_rows
from carnac.engine.manifest import MANIFEST, Manifest, read_manifest
from carnac.train.metrics import read_metrics

MAX_DEPTH = 5  # folders in a row: out, tiny, curated, masks, <pass>


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """`stages` in the order in which a run makes them; `metrics` one entry per training step.

    Of several runs below `folder` the first one's funnel, metrics, model and evaluation are taken.
    """

    folder: Path
    stages: tuple[Manifest, ...]
    funnel: tuple[dict[str, Any], ...]
    metrics: tuple[dict[str, Any], ...]
    model: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    chats: tuple[dict[str, Any], ...]

    def find(self, stage: str) -> list[Manifest]:
        """Return the folders of a stage."""
        return [manifest for manifest in self.stages if manifest.stage == stage]

    def last_loss(self) -> tuple[float, int]:
        """Return the mean loss of the last tenth of the steps, and their number: one step's loss is mostly chance."""
        tail = self.metrics[-max(1, len(self.metrics) // 10) :]
        return sum(row["loss"] for row in tail) / len(tail), len(tail)

    def rows(self, stage: str, count: int, columns: list[str] | None = None) -> list[dict[str, Any]]:
        """Return the first rows of a stage's first folder."""
        rows: list[dict[str, Any]] = []
        for manifest in self.find(stage)[:1]:
            for part in manifest.parts:
                for row in read_rows(part.path, columns):
                    if len(rows) == count:
                        return rows
                    rows.append(row)
        return rows


ORDER = ("documents", "signals", "repeats", "masks", "images", "shards", "tokenizer", "pieces", "plan", "model",
         "evaluation", "chat")  # fmt: skip


def read_story(folder: Path) -> Story:
    """Read what `folder` holds. Raises InputError when there is nothing of carnac's in it."""
    if not folder.is_dir():
        state = "a file" if folder.is_file() else "no such folder"
        raise InputError(f"{folder}: {state}. Wanted a folder that a run wrote, such as out/tiny.")
    funnel = _first_json(folder, "funnel.json", ("steps",)) or {"steps": ()}
    passes = [step["name"] for step in funnel["steps"]]
    manifests = [read_manifest(path.parent) for path in _files(folder, MANIFEST)]
    stages = sorted(manifests, key=lambda manifest: _place(manifest, passes))
    story = Story(
        folder=folder,
        stages=tuple(stages),
        funnel=tuple(funnel["steps"]),
        metrics=tuple(_metrics(folder)),
        model=_model(folder),
        evaluation=_first_json(folder, "evaluation.json", ("documents", "losses", "verdict")),
        chats=tuple(row for manifest in stages if manifest.stage == "chat" for row in _all_rows(manifest)),
    )
    if not (story.stages or story.metrics or story.funnel or story.evaluation or story.model):
        raise InputError(f"{folder}: holds nothing that carnac wrote. Wanted a stage's folder or a whole run's.")
    return story


def _place(manifest: Manifest, passes: Sequence[str]) -> tuple[int, int, bool, str]:
    name = manifest.folder.name
    stage = ORDER.index(manifest.stage) if manifest.stage in ORDER else len(ORDER)
    # The masks of successive passes have no order of their own on disk; the funnel has that of the recipe.
    number = passes.index(name) if name in passes else -1
    return stage, number, name != "train", str(manifest.folder)  # training shards before held-out ones


def _files(folder: Path, name: str) -> Iterator[Path]:
    for depth in range(MAX_DEPTH):
        yield from sorted(folder.glob("*/" * depth + name))


def _metrics(folder: Path) -> list[dict[str, Any]]:
    for path in _files(folder, "metrics.jsonl"):
        # What a killed run was writing is no whole line, and is left out.
        rows = [row for row in read_metrics(path) if isinstance(row.get("loss"), float)]
        if rows:
            return rows
    return []


def _first_json(folder: Path, name: str, keys: Sequence[str]) -> dict[str, Any] | None:
    for path in _files(folder, name):
        content = _read_json(path)
        missing = [key for key in keys if key not in content]
        if missing:
            raise InputError(f"{path}: damaged (no {missing[0]!r}). Delete it and run its recipe again.")
        return content
    return None


def _model(folder: Path) -> dict[str, Any] | None:
    for path in _files(folder, "config.json"):
        content = _read_json(path)
        if str(content.get("format", "")).startswith("carnac-model"):
            return content
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}). Delete it and run its recipe again.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged (not a JSON object). Delete it and run its recipe again.")
    return content


def _all_rows(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for part in manifest.parts:
        yield from read_rows(part.path)
