"""Other people's conversations to shards: messages, LLaVA's records, lists of questions about pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import IO, Any, Literal

from pydantic import Field

from carnac.core.errors import InputError, RecordError
from carnac.core.places import Folder, Place, absolute, open_binary
from carnac.core.stores import store_errors
from carnac.core.taken_down import NOTHING, TakenDown
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit
from carnac.images.settings import ImageSettings
from carnac.jobs.conversation_files import ConversationFile, look_through, questions_of
from carnac.jobs.conversation_rows import Format, RowMaker, RowSettings
from carnac.jobs.inputs import find_files
from carnac.jobs.recipes import keep_recipe
from carnac.recipe.settings import Recipe
from carnac.recipe.source import Location
from carnac.shards.conversation_formats import (
    Question,
    llava_conversation,
    messages_conversation,
    picture_conversations,
)
from carnac.shards.features import samples_schema
from carnac.shards.json_records import RawRecord, Slice, form_of, parsed, raw_records
from carnac.shards.settings import QuestionListSettings, SplitSettings
from carnac.shards.split import SPLITS, Split, split_folders

READ = {"messages": messages_conversation, "llava": llava_conversation}


class ConversationsRecipe(Recipe):
    """Settings of the job `conversations`."""

    job: Literal["conversations"] = Field(description="the job that this recipe describes")
    format: Format = Field(
        description="messages: records of transformers' messages; llava: LLaVA's conversations of human and gpt; "
        "questions: a list of [question, answer, picture]"
    )
    train: tuple[str, ...] = Field(
        min_length=1, strict=False, description="JSON or JSONL files; * and ** match as in a shell"
    )
    heldout: tuple[str, ...] = Field(
        default=(), strict=False, description="files that are kept apart; without any, the split decides"
    )
    images: Folder | None = Field(
        default=None, description="folder below which the pictures lie; default: the folder in which each file lies"
    )
    output: Folder = Field(description="folder for the shards: train/ and heldout/")
    source: str = Field(default="conversations", description="name of this source in mixtures and per-source losses")
    split: SplitSettings = Field(default=SplitSettings(), description="the held-out split, where no files are held out")
    questions: QuestionListSettings = Field(
        default=QuestionListSettings(), description="format questions: how single questions become conversations"
    )
    inspect: ImageSettings = Field(default=ImageSettings(), description="which pictures are taken")

    def folders_written(self) -> Iterator[tuple[str, str, Place]]:
        """Yield the two splits."""
        return split_folders(self.output)


RECIPE = ConversationsRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationsTask:
    """What a worker needs for one slice of a file: of its records, or (format questions) of its pictures."""

    file: Place
    slice: Slice
    rows: RowSettings
    limit: int | None
    taken_down: TakenDown = NOTHING


def check(recipe: ConversationsRecipe) -> Sequence[tuple[Location, str]]:
    """Return what is wrong between settings: a table that the format does not know."""
    if recipe.format != "questions" and recipe.questions != QuestionListSettings():
        return [(("questions",), f"is for format = questions; got format = {recipe.format}. Leave the table out.")]
    return []


def run(recipe: ConversationsRecipe, runner: Runner) -> None:
    """Write the shards `train` and `heldout`."""
    if mistakes := check(recipe):
        raise InputError("; ".join(f"{location[-1]}: {sentence}" for location, sentence in mistakes))
    train, heldout = (find_files(patterns, example="*.json*") for patterns in (recipe.train, recipe.heldout))
    both = {absolute(file) for file in train} & {absolute(file) for file in heldout}
    if both:
        raise InputError(f"{min(both)}: given as train and as heldout. Wanted it on one side only.")
    by_picture = recipe.format == "questions"
    trained = look_through(train, recipe.images, recipe.limit, by_picture=by_picture)
    held_out = look_through(heldout, recipe.images, recipe.limit, by_picture=by_picture)
    taken_down = TakenDown.read([recipe.output])
    for split in SPLITS:
        chosen = held_out if split == "heldout" and held_out else trained
        planned = [unit for file in chosen for unit in _units(recipe, split, file)]
        units = [replace(unit, task=replace(unit.task, taken_down=taken_down)) for unit in planned]
        folder = recipe.output / split
        entries = runner.do(STAGE, units, folder)
        inputs = {"files": [absolute(file.place) for file in chosen]}
        runner.publish(STAGE, folder, entries, {"source": recipe.source, "format": recipe.format}, inputs)
    if not runner.changes_nothing:
        keep_recipe(recipe, recipe.output)


def _units(recipe: ConversationsRecipe, split: Split, file: ConversationFile) -> Iterator[Unit]:
    """Yield the units of a file in one split."""
    rows = RowSettings(
        format=recipe.format,
        folder=file.folder,
        source=recipe.source,
        part=split,
        split=None if recipe.heldout else recipe.split,
        questions=recipe.questions,
        inspect=recipe.inspect,
    )
    settings = {
        "format": recipe.format,
        "source": recipe.source,
        "part": split,
        "split": None if recipe.heldout else recipe.split.model_dump(mode="json"),
        "questions": recipe.questions.model_dump(mode="json") if recipe.format == "questions" else None,
        "inspect": recipe.inspect.model_dump(mode="json"),
        "limit": recipe.limit if recipe.format == "questions" else None,
    }
    for piece in file.slices:
        task = ConversationsTask(file=file.place, slice=piece, rows=rows, limit=recipe.limit)
        name = f"{split}-{file.name}-{piece.first:08d}"
        yield STAGE.unit(name, task, settings={**settings, "slice": asdict(piece)}, inputs=file.digests)


def write_conversations(unit: Unit, part: Part) -> None:
    """Write the conversations of one slice; a record that is none is quarantined with its reason."""
    task: ConversationsTask = unit.task
    with open_binary(task.file) as stream, store_errors(task.file):
        for row in (_rows_about_pictures if task.rows.format == "questions" else _rows)(task, part, stream):
            part.count("samples")
            part.count("conversations")  # what training is told by that it has turns to learn
            part.count("answers", sum(role == "assistant" for role in row["roles"]))
            part.count("images", sum(image is not None for image in row["images"]))
            part.count("characters", sum(len(text) for text in row["texts"] if text is not None))
            part.write(row)


def _rows(task: ConversationsTask, part: Part, stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a slice's records."""
    maker = RowMaker(task.rows)

    def made(raw: RawRecord, record: int) -> dict[str, Any] | None:
        try:
            conversation = READ[task.rows.format](parsed(raw))
            if not maker.is_mine(conversation):
                return None
        except RecordError:
            if maker.leaves_losses:
                return None
            raise
        row = maker.row(conversation, _metadata(task, record=record))
        if maker.has_any(task.taken_down):
            part.count("taken_down")
            return None
        if conversation.num_unanswered:
            part.count("unanswered", conversation.num_unanswered)
        return row

    form, _ = form_of(stream)
    numbered = enumerate(raw_records(stream, form, task.slice.start), task.slice.first)
    for number, raw in islice(numbered, task.slice.number):
        row = part.attempt(f"{task.file.name}@{number}", made, raw, number)
        if row is not LOST and row is not None:
            yield row


def _rows_about_pictures(task: ConversationsTask, part: Part, stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a slice's pictures: what is asked about one may stand anywhere in the list."""
    maker = RowMaker(task.rows)
    asked: dict[str, list[Question]] = {}
    for number, found in questions_of(stream, task.limit):
        if not isinstance(found, RecordError):
            question, answer, picture = found
            asked.setdefault(picture, []).append((question, answer))
        elif task.slice.first == 0 and not maker.leaves_losses:
            part.quarantine(f"{task.file.name}@{number}", found.reason, found.detail)

    def made(picture: str) -> list[dict[str, Any]]:
        try:
            conversations = list(picture_conversations(picture, asked[picture], task.rows.questions))
            if not maker.is_mine(conversations[0]):
                return []
        except RecordError:
            if maker.leaves_losses:
                return []
            raise
        rows = [maker.row(conversation, _metadata(task, picture=picture)) for conversation in conversations]
        if maker.has_any(task.taken_down):
            part.count("taken_down", len(rows))
            return []
        return rows

    for picture in islice(asked, task.slice.first, task.slice.first + task.slice.number):
        rows = part.attempt(f"{task.file.name}:{picture}", made, picture)
        yield from () if rows is LOST else rows


def _metadata(task: ConversationsTask, **where: str | int) -> dict[str, Any]:
    """Return what a row says of where it comes from; `title` is what it is called where samples are shown."""
    (place,) = where.values()
    return {"file": task.file.name, **where, "title": f"{task.file.name}@{place}", "url": None}


# Row groups of 64, as of documents: what a training reader fetches at once.
STAGE = Stage(name="shards", version=2, schema=samples_schema(), work=write_conversations, rows_per_group=64)
