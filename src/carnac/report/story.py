"""Find what lies in a folder and below it: the stages, the funnel, the losses, the evaluation, the chat.

Flow in: folders on a disk or in a store. Flow out: a `Story`; what is missing is None or empty, so a half-finished run
can be told too. Training leaves its metrics on a disk only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from carnac.core.errors import InputError
from carnac.core.places import Place, is_local, read_bytes
from carnac.engine.manifest import MANIFEST, Manifest
from carnac.engine.tables import read_rows
from carnac.report.curation_steps import STEPS_OF_CURATION
from carnac.report.folders import StageFolder, find_folders, names_below
from carnac.report.images_steps import lost_in_steps
from carnac.report.lost import RECIPE, LostRecords, lost_records
from carnac.report.training import Training, find_trainings
from carnac.report.under_way import UnderWay, under_way


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """`folders` in the order in which a run makes them; `questions` names each folder of answers with what it found.

    Of several runs below `folder` the first one's funnel, model and evaluation are taken.
    """

    folder: Place
    folders: tuple[StageFolder, ...]
    lost: tuple[LostRecords, ...]
    funnel: tuple[dict[str, Any], ...]
    trainings: tuple[Training, ...]
    model: dict[str, Any] | None
    model_folder: Place | None
    evaluation: dict[str, Any] | None
    questions: tuple[tuple[str, dict[str, Any]], ...]
    chats: tuple[dict[str, Any], ...]

    @property
    def stages(self) -> list[Manifest]:
        """What the folders hold: their manifests, or what is committed so far."""
        return [folder.content for folder in self.folders]

    @property
    def under_way(self) -> list[UnderWay]:
        """What is not simply done."""
        return [found for folder in self.folders if (found := under_way(folder)) is not None]

    def find(self, stage: str) -> list[Manifest]:
        """Return the content of the folders of a stage."""
        return [manifest for manifest in self.stages if manifest.stage == stage]

    def is_finished(self, stage: str) -> bool:
        """Say whether a folder of a stage has its manifest."""
        return any(folder.stage == stage and folder.is_finished for folder in self.folders)

    def rows(self, stage: str, count: int, columns: list[str] | None = None) -> list[dict[str, Any]]:
        """Return the first rows of a stage's first folder that has some."""
        rows: list[dict[str, Any]] = []
        for manifest in [manifest for manifest in self.find(stage) if manifest.rows][:1]:
            for part in manifest.parts:
                for row in read_rows(part.path, columns):
                    if len(rows) == count:
                        return rows
                    rows.append(row)
        return rows


# Inner steps of jobs, in the order in which they come: shown by name, or while a run works or has stopped in one.
STEPS_OF_IMAGES = ("wanted", "urls", "archived", "fetch_plan", "fetched", "settled", "scores", "joined", "found")
STEPS_OF_SHARDS = ("routes", "gather", "card_parts", "card")
SEARCHES = ("repeat_keys", "repeats", "listed", "contaminated")
ORDER = ("documents", "signals", "image_signals", *SEARCHES, "masks", *STEPS_OF_CURATION,
         *STEPS_OF_IMAGES, "images", *STEPS_OF_SHARDS,
         "shards", "tokenizer", "pieces", "plan", "model", "sweep", "evaluation", "questions", "chat")  # fmt: skip


def read_story(folder: Place) -> Story:
    """Read what `folder` holds. Raises InputError when there is nothing of carnac's in it."""
    names = names_in(folder)
    funnel = _read_funnel(folder, names)
    passes = [step["name"] for step in funnel["steps"]]
    every = sorted(find_folders(folder, names), key=lambda found: _place(found, passes))
    folders = [found for found in every if not _is_clutter(found)]
    recipes = [folder / name for name in _named(names, RECIPE)]
    model, model_folder = _model(folder, names)
    lost = [records for found in every for records in (*lost_in_steps(found, recipes), lost_records(found, recipes))]
    chats = [found.content for found in folders if found.stage == "chat"]
    story = Story(
        folder=folder,
        folders=tuple(folders),
        lost=tuple(records for records in lost if records is not None),
        funnel=tuple(funnel["steps"]),
        trainings=tuple(find_trainings(folder, names, folders)),
        model=model,
        model_folder=model_folder,
        evaluation=_first_json(folder, _of_stages(names), "evaluation.json", ("documents", "losses", "verdict")),
        questions=tuple(_every_json(folder, _of_stages(names), "questions.json", ("rule", "table", "verdict"))),
        chats=tuple(row for manifest in chats for row in _all_rows(manifest)),
    )
    if not (story.folders or story.trainings or story.funnel or story.evaluation or story.questions or story.model):
        raise InputError(f"{folder}: holds no stage that can be shown. Wanted a stage's folder or a whole run's.")
    return story


def pass_names(folder: Place, names: Sequence[str]) -> list[str]:
    """Return the names of the passes in their order, as the first funnel among `names` tells it."""
    return [step["name"] for step in _read_funnel(folder, names)["steps"]]


def _read_funnel(folder: Place, names: Sequence[str]) -> dict[str, Any]:
    return _first_json(folder, names, "funnel.json", ("steps",)) or {"steps": ()}


def names_in(folder: Place) -> list[str]:
    """Return the files in a run's folder, as `names_below`. Raises InputError where there is no such folder."""
    wanted = "Wanted a folder that a run wrote, such as out/tiny."
    if is_local(folder) and not folder.is_dir():
        raise InputError(f"{folder}: {'a file' if folder.is_file() else 'no such folder'}. {wanted}")
    try:
        names = names_below(folder)
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror or error}.") from None
    # A store has no folders, only names that begin alike.
    if not names and not is_local(folder):
        raise InputError(f"{folder}: no such folder. {wanted}")
    return names


def _place(folder: StageFolder, passes: Sequence[str]) -> tuple[int, int, bool, str]:
    name = folder.content.folder.name
    stage = ORDER.index(folder.stage) if folder.stage in ORDER else len(ORDER)
    # The masks of successive passes have no order of their own on disk; the funnel has that of the recipe.
    number = passes.index(name) if name in passes else -1
    return stage, number, name != "train", folder.name  # training shards before held-out ones


def _is_clutter(folder: StageFolder) -> bool:
    is_step = folder.stage in (*STEPS_OF_IMAGES, *STEPS_OF_SHARDS, *STEPS_OF_CURATION)
    return is_step and folder.name != "." and folder.status == "done"


def _named(names: Sequence[str], file: str) -> list[str]:
    return [name for name in names if name.rpartition("/")[2] == file]


def _of_stages(names: Sequence[str]) -> list[str]:
    """Return the files beside a manifest: data sets too bring a questions.json (easy-VQA's below out/shapes/data)."""
    folders = {name.rpartition("/")[0] for name in _named(names, MANIFEST)}
    return [name for name in names if name.rpartition("/")[0] in folders]


def _first_json(folder: Place, names: Sequence[str], file: str, keys: Sequence[str]) -> dict[str, Any] | None:
    return next((content for _, content in _every_json(folder, names, file, keys)), None)


def _every_json(
    folder: Place, names: Sequence[str], file: str, keys: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the folders that hold a file of that name, with its content."""
    for name in _named(names, file):
        path = folder / name
        content = _read_json(path)
        missing = [key for key in keys if key not in content]
        if missing:
            raise InputError(f"{path}: damaged (no {missing[0]!r}). Delete it and run its recipe again.")
        yield name.rpartition("/")[0] or ".", content


def _model(folder: Place, names: Sequence[str]) -> tuple[dict[str, Any] | None, Place | None]:
    """Return a model's configuration and its folder.

    Of a run under way checkpoints come and go: one that is not whole yet is none, one that has gone since is passed by.
    """
    for name in _named(names, "config.json"):
        path = folder / name
        if any(part.startswith(".") for part in name.split("/")):
            continue
        try:
            content = _read_json(path)
        except InputError:
            if path.parent.exists():
                raise
            continue
        if str(content.get("format", "")).startswith("carnac-model"):
            return content, path.parent
    return None, None


def _read_json(path: Place) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}). Delete it and run its recipe again.") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged (not a JSON object). Delete it and run its recipe again.")
    return content


def _all_rows(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for part in manifest.parts:
        yield from read_rows(part.path)
