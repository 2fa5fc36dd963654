"""Find what lies in a folder and below it: the stages, the funnel, the losses, the evaluation, the chat.

Flow in: folders on disk. Flow out: a `Story`; what is missing is None or empty, so a half-finished run can be told too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carnac.core.errors import InputError
from carnac.engine.aligned import read_rows
from carnac.engine.manifest import MANIFEST, Manifest, read_manifest

MAX_DEPTH = 4  # out/tiny/curated/masks/<pass>: four below the run's folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """`stages` in the order in which a run makes them; `metrics` one entry per training step."""

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
        raise InputError(f"{folder}: no such folder. Wanted one that a run wrote, such as out/tiny.")
    stages = sorted((read_manifest(path.parent) for path in _files(folder, MANIFEST)), key=_place)
    metrics = [json.loads(line) for path in _files(folder, "metrics.jsonl") for line in _whole_lines(path)]
    story = Story(
        folder=folder,
        stages=tuple(stages),
        funnel=tuple(_first_json(folder, "funnel.json", {"steps": ()})["steps"]),
        metrics=tuple(metrics),
        model=_model(folder),
        evaluation=_first_json(folder, "evaluation.json", None),
        chats=tuple(row for manifest in stages if manifest.stage == "chat" for row in _all_rows(manifest)),
    )
    if not (story.stages or story.metrics or story.funnel or story.evaluation):
        raise InputError(f"{folder}: holds nothing that carnac wrote. Wanted a stage's folder or a whole run's.")
    return story


def _place(manifest: Manifest) -> tuple[int, float, str]:
    place = ORDER.index(manifest.stage) if manifest.stage in ORDER else len(ORDER)
    # The masks of successive passes have no order of their own on disk: that of the recipe is the order of writing.
    return place, (manifest.folder / MANIFEST).stat().st_mtime, str(manifest.folder)


def _files(folder: Path, name: str) -> Iterator[Path]:
    for depth in range(MAX_DEPTH):
        yield from sorted(folder.glob("*/" * depth + name))


def _whole_lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    # A line without its end is one that a killed run was writing.
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n") and line.strip()]


def _first_json(folder: Path, name: str, otherwise: Any) -> Any:
    for path in _files(folder, name):
        return json.loads(path.read_bytes())
    return otherwise


def _model(folder: Path) -> dict[str, Any] | None:
    for path in _files(folder, "config.json"):
        content = json.loads(path.read_bytes())
        if str(content.get("format", "")).startswith("carnac-model"):
            return {**content, "folder": str(path.parent)}
    return None


def _all_rows(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for part in manifest.parts:
        yield from read_rows(part.path)
