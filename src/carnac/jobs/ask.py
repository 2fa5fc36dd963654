"""A model and held-out conversations to the share of questions that it answers rightly, by kind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field

from carnac.core.errors import InputError
from carnac.core.places import Folder
from carnac.engine.manifest import Manifest, PartEntry, read_manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner, available_workers
from carnac.engine.storage import write_file
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit
from carnac.evaluate.confusion import draw_confusions
from carnac.evaluate.grounding import CONDITIONS
from carnac.evaluate.questions import Asked, summarise_questions
from carnac.evaluate.settings import QuestionSettings
from carnac.jobs.ask_prompts import Pool, Question, questions_of, rows_between
from carnac.jobs.models import OpenModel, open_same_model
from carnac.jobs.recipes import keep_recipe
from carnac.recipe.settings import ModelFolder, Reads, Recipe, ShardsFolder, Writes
from carnac.sequence.layout import sample_from_row

ANSWERS = pa.schema(
    [
        ("id", pa.string()),
        ("number", pa.int32()),
        ("picture", pa.string()),
        ("question", pa.string()),
        ("reference", pa.string()),
        *((name, pa.string()) for name in CONDITIONS),
    ]
)
# A unit's process opens the model anew, in some seconds: 250 conversations of ten questions keep it busy for longer.
CONVERSATIONS_PER_UNIT = 250
MAX_POOL = 512  # pictures to draw other pictures from: 50 MB as files
SAID_KINDS = 6  # rows of the table that are printed


class AskRecipe(Recipe):
    """Settings of the job `ask`."""

    job: Literal["ask"] = Field(description="the job that this recipe describes")
    model: ModelFolder = Field(description="folder of the model")
    shards: ShardsFolder = Field(description="folder of held-out conversations")
    training: Annotated[Folder | None, Reads("shards")] = Field(
        default=None, description="folder of the training conversations, for the best answers without looking"
    )
    output: Annotated[Path, Writes("questions")] = Field(
        description="folder for the answers, questions.json and confusion.png"
    )
    questions: QuestionSettings = Field(default=QuestionSettings(), description="how questions are asked and counted")


RECIPE = AskRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class AskTask:
    """What a worker needs for rows [first, stop) of a part: model and shards are those that the key was made from."""

    recipe: AskRecipe
    model_digest: str
    shards: Manifest
    part: PartEntry
    first: int
    stop: int
    threads: int


def run(recipe: AskRecipe, runner: Runner) -> None:
    """Write a row per question, `questions.json` and `confusion.png`."""
    model, shards = read_manifest(recipe.model, "model"), read_manifest(recipe.shards, "shards")
    training = None if recipe.training is None else read_manifest(recipe.training, "shards")
    for key, given in {"shards": shards, "training": training}.items():
        if given is not None and _holds_documents(given):
            raise InputError(
                f"{key}: {given.folder} holds documents: its first sample has no roles. Wanted conversations, which "
                "the job conversations writes."
            )
    asked = recipe.questions
    settings = {"max_new_tokens": asked.max_new_tokens, "seed": asked.seed}
    # Each worker computes with its share of the cores: two processes of two threads on two cores crawl.
    threads = max(1, available_workers() // max(1, runner.workers))
    units = []
    for entry, first, stop in _slices(shards, recipe.limit):
        task = AskTask(
            recipe=recipe,
            model_digest=model.digest,
            shards=shards,
            part=entry,
            first=first,
            stop=stop,
            threads=threads,
        )
        name = f"{entry.unit}-{first:08d}"
        units.append(
            STAGE.unit(name, task, settings={**settings, "rows": [first, stop]}, inputs=[model.digest, shards.digest])
        )
    entries = runner.do(STAGE, units, recipe.output)
    manifest = runner.publish(STAGE, recipe.output, entries, settings, {"model": str(recipe.model)})
    if runner.changes_nothing:
        return
    summary = _summary(manifest, asked, training)
    drawn = draw_confusions(summary["confusion"], "What was answered, by kind of question")
    write_file(recipe.output / "questions.json", (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
    write_file(recipe.output / "confusion.png", drawn)
    keep_recipe(recipe, recipe.output)
    for line in lines(summary):
        runner.reporter.say(line)


def lines(summary: dict[str, Any]) -> Iterator[str]:
    """Yield what a run prints of `questions.json`."""
    for row in summary["table"][1 : SAID_KINDS + 1]:
        shares = {name: row[name]["estimate"] for name in (*CONDITIONS, "without_looking") if row[name]}
        said = ", ".join(f"{name.replace('_', ' ')} {share:.3f}" for name, share in shares.items())
        yield f"  {row['kind']} ({row['questions']:,}): {said}"
    yield summary["verdict"]


def ask_unit(unit: Unit, part: Part) -> None:
    """Ask the questions of some conversations; one that cannot be asked is quarantined."""
    import torch

    from carnac.model.generation.decoding import longest_of

    task: AskTask = unit.task
    settings = task.recipe.questions
    torch.set_num_threads(task.threads)
    opened = open_same_model(task.recipe.model, task.model_digest)
    pool, longest = _pool(task.shards), longest_of(opened.model)

    def asked() -> Iterator[Question]:
        for number, row in enumerate(rows_between(task.part.path, task.first, task.stop), task.first):
            sample = sample_from_row(row)
            found = part.attempt(
                f"{task.part.unit}@{number}", questions_of, sample, opened, pool, longest, settings.seed
            )
            if found is not LOST:
                part.count("conversations")
                yield from found

    answers = _Answers(opened, settings)
    waiting = asked()
    while some := list(islice(waiting, max(1, settings.prompts_at_once // len(CONDITIONS)))):
        for row in answers.rows(some):
            part.count("questions")
            part.write(row)


class _Answers:
    """Answers prompts side by side. Prompts that are equal in all, as the grey ones of one question, are asked once."""

    def __init__(self, opened: OpenModel, settings: QuestionSettings) -> None:
        from carnac.model.settings import GenerationSettings
        from carnac.sequence.conversation import stop_ids

        self._opened = opened
        self._settings = GenerationSettings(max_new_tokens=settings.max_new_tokens)  # greedy
        self._stop_ids = stop_ids(opened.tokenizer)
        self._grey: dict[bytes, str] = {}

    def rows(self, questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
        """Yield the rows of `ANSWERS` of some questions."""
        from carnac.model.generation.generate import answer_prompts

        missing = {}
        for number, question in enumerate(questions):
            for condition, prompt in question.prompts.items():
                key = prompt.ids.tobytes() if condition == "none" else (number, condition)
                if key not in self._grey:
                    missing[key] = prompt
        words = self._opened.tokenizer
        found = answer_prompts(
            self._opened.model, list(missing.values()), self._settings, words.decode, stop_ids=self._stop_ids
        )
        said = dict(zip(missing, (answer.text for answer in found), strict=True))
        self._grey |= {key: text for key, text in said.items() if isinstance(key, bytes)}
        for number, question in enumerate(questions):
            answers: dict[str, str] = {
                condition: self._grey[prompt.ids.tobytes()] if condition == "none" else said[number, condition]
                for condition, prompt in question.prompts.items()
            }
            yield {**question.row, **answers}


def _slices(shards: Manifest, limit: int | None) -> Iterator[tuple[PartEntry, int, int]]:
    left = shards.rows if limit is None else min(limit, shards.rows)
    for entry in shards.parts:
        rows = min(left, entry.rows)
        for first in range(0, rows, CONVERSATIONS_PER_UNIT):
            yield entry, first, min(rows, first + CONVERSATIONS_PER_UNIT)
        left -= rows


def _holds_documents(shards: Manifest) -> bool:
    """Say whether the first sample is a document: all samples of a folder are of one kind."""
    rows = (row for entry in shards.parts if entry.rows for row in read_rows(entry.path, ["roles"]))
    first = next(rows, None)
    return first is not None and not any(first["roles"] or ())


def _pool(shards: Manifest) -> Pool:
    """Return pictures to draw from, of the first conversations; at most half are of one."""
    pool: list[tuple[str, bytes]] = []
    for entry in shards.parts:
        for row in read_rows(entry.path, ["id", "images"]):
            own = [image["bytes"] for image in row["images"] if image is not None and image["bytes"]]
            pool += [(row["id"], payload) for payload in own[: MAX_POOL // 2]]
            if len(pool) >= MAX_POOL:
                return pool[:MAX_POOL]
    return pool


def _summary(manifest: Manifest, settings: QuestionSettings, training: Manifest | None) -> dict[str, Any]:
    """Return the content of `questions.json` from the rows of all questions."""
    asked = [
        Asked(
            picture=row["picture"],
            question=row["question"],
            reference=row["reference"],
            answers={name: row[name] for name in CONDITIONS if row[name] is not None},
        )
        for entry in manifest.parts
        for row in read_rows(entry.path)
    ]
    if not asked:
        raise InputError(f"{manifest.folder}: no question was asked. Wanted shards of conversations with answers.")
    return summarise_questions(asked, settings, None if training is None else _pairs(training))


def _pairs(shards: Manifest) -> Iterator[tuple[str, str]]:
    """Yield (question, answer) of all conversations; pictures are not read."""
    for entry in shards.parts:
        for row in read_rows(entry.path, ["texts", "roles"]):
            question = ""
            blocks = zip(row["roles"], row["texts"], strict=True)
            for role, turn in groupby(blocks, key=lambda block: block[0]):
                said = " ".join(text for _, text in turn if text is not None)
                if role == "assistant":
                    yield question, said
                question = said if role == "user" else ""


STAGE = Stage(name="questions", version=1, schema=ANSWERS, work=ask_unit)
