"""A model and the beginnings of held-out samples to what it says then; also opens the conversation of `carnac chat`.

A model of documents goes on from the beginning of a page, a model of conversations answers the first question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from carnac.core.errors import RecordError
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit
from carnac.jobs.models import OpenModel, open_model, open_same_model
from carnac.jobs.recipes import keep_recipe
from carnac.model.settings import GenerationSettings
from carnac.recipe.settings import ModelFolder, Recipe, ShardsFolder, Writes
from carnac.sequence.chat_template import Message
from carnac.sequence.conversation import stop_ids
from carnac.sequence.layout import BETWEEN_TEXTS, Layout, Sample, lay_out_messages, lay_out_prompt, sample_from_row
from carnac.sequence.pixels import Pixels, load_pixels
from carnac.sequence.turns import messages_of
from carnac.serve.chat import ChatSession

CHAT = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("prompt", pa.string()),
        ("continuation", pa.string()),
        ("reference", pa.string()),
    ]
)

PROMPTS_AT_ONCE = 8  # prompts that are answered side by side
HeldOut = tuple[dict[str, Any], Layout, Pixels]  # a row without its continuation, and what the model is shown


class ChatRecipe(Recipe):
    """Settings of the job `chat`."""

    job: Literal["chat"] = Field(description="the job that this recipe describes")
    model: ModelFolder = Field(description="folder of the model")
    shards: ShardsFolder = Field(description="folder of held-out shards: beginnings of documents, or questions")
    output: Annotated[Path, Writes("chat")] = Field(description="folder for the continuations")
    num_prompts: int = Field(default=3, ge=1, description="samples to go on from: the first ones with an image")
    prompt_characters: int = Field(
        default=160, ge=0, description="characters of a document's text after the image in a prompt"
    )
    generation: GenerationSettings = Field(default=GenerationSettings(), description="how tokens are chosen")


RECIPE = ChatRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTask:
    """What a worker needs: model and shards are those that the key was made from."""

    recipe: ChatRecipe
    model_digest: str
    shards: Manifest


def run(recipe: ChatRecipe, runner: Runner) -> None:
    """Write a row per prompt."""
    model, shards = read_manifest(recipe.model, "model"), read_manifest(recipe.shards, "shards")
    settings = {
        "generation": recipe.generation.model_dump(mode="json"),
        "num_prompts": min(recipe.num_prompts, recipe.limit or recipe.num_prompts),
        "prompt_characters": recipe.prompt_characters,
    }
    task = ChatTask(recipe=recipe, model_digest=model.digest, shards=shards)
    unit = STAGE.unit("chat", task, settings=settings, inputs=[model.digest, shards.digest])
    entries = runner.do(STAGE, [unit], recipe.output)
    runner.publish(STAGE, recipe.output, entries, settings, {"model": str(recipe.model)})
    if not runner.changes_nothing:
        keep_recipe(recipe, recipe.output)


def chat_unit(unit: Unit, part: Part) -> None:
    """Let the model go on from the beginnings of held-out documents."""
    task: ChatTask = unit.task
    opened = open_same_model(task.recipe.model, task.model_digest)
    for held_out in _batches(_readable(task, opened, part), PROMPTS_AT_ONCE):
        answers = _answers(opened, task.recipe.generation, held_out)
        for (row, _, _), said in zip(held_out, answers, strict=True):
            part.write({**row, "continuation": said})
            part.count("prompts")


def reply(opened: OpenModel, settings: GenerationSettings, layout: Layout, pixels: Pixels) -> Iterator[int]:
    """Stream the ids that follow a prompt, up to the end of the document or of the turn, or a stop text."""
    from carnac.model.generation.answer_text import ids_until_stop
    from carnac.model.generation.generate import generate

    words = opened.tokenizer
    found = generate(opened.model, layout.ids, layout.image_slots, pixels, settings, stop_ids=answer_ends(opened))
    if not settings.stop:
        return found
    encode = partial(words.encode, at_start=False)
    return ids_until_stop(found, words.decode, encode, settings.stop, layout.ids[-1:].tolist())


def answer_ends(opened: OpenModel) -> tuple[int, ...]:
    """Return the ids that end what a model says."""
    return stop_ids(opened.tokenizer) if opened.inputs.conversations else (opened.tokenizer.end,)


def _answers(opened: OpenModel, settings: GenerationSettings, held_out: Sequence[HeldOut]) -> list[str]:
    from carnac.model.generation.generate import answer_prompts
    from carnac.model.generation.prompt import Prompt

    words = opened.tokenizer
    prompts = [Prompt(ids=layout.ids, places=layout.image_slots[:, 1], pixels=pixels) for _, layout, pixels in held_out]
    answers = answer_prompts(opened.model, prompts, settings, words.decode, stop_ids=answer_ends(opened))
    # Spaces at the ends of an answer in turns are the chat template's.
    return [answer.text.strip() if opened.inputs.conversations else answer.text for answer in answers]


def _readable(task: ChatTask, opened: OpenModel, part: Part) -> Iterator[HeldOut]:
    """Yield as many prompts as are asked for; one that cannot be shown to the model is quarantined."""
    recipe = task.recipe
    left = min(recipe.num_prompts, recipe.limit or recipe.num_prompts)
    for row in _samples(task.shards):
        if not left:
            return
        sample = sample_from_row(row)
        try:
            begun = (_question if sample.roles else _beginning)(sample, recipe.prompt_characters)
            if begun is None:
                continue
            shown = _lay_out(begun, opened)
        except RecordError as error:
            part.quarantine(sample.id, error.reason, error.detail)
            continue
        left -= 1
        texts = [part for part in begun.parts if isinstance(part, str)]
        image = next(part for part in begun.parts if isinstance(part, bytes))
        prompt = {"id": sample.id, "image": image, "prompt": BETWEEN_TEXTS.join(texts), "reference": begun.reference}
        yield prompt, *shown


def _batches(prompts: Iterator[HeldOut], size: int) -> Iterator[list[HeldOut]]:
    while batch := list(islice(prompts, size)):
        yield batch


def open_chat(folder: Path, settings: GenerationSettings) -> ChatSession:
    """Load a model for a conversation."""
    opened = open_model(folder)
    return ChatSession(
        reply=lambda layout, pixels: reply(opened, settings, layout, pixels),
        tokenizer=opened.tokenizer,
        pictures=opened.inputs.pictures,
        turns=opened.inputs.conversations,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """The beginning of a sample and how it goes on; `messages` where it is a conversation."""

    parts: tuple[str | bytes, ...]
    reference: str
    messages: tuple[Message, ...] = ()


def _samples(shards: Manifest) -> Iterator[dict[str, Any]]:
    for entry in shards.parts:
        yield from read_rows(entry.path)


def _beginning(sample: Sample, characters: int) -> _Begun | None:
    """Return the first image of a document with text after it, and the beginning of that text."""
    for image, text in zip(sample.images, sample.texts[1:], strict=False):
        if image is not None and text is not None and len(text) > characters:
            cut = text.rfind(" ", 0, characters + 1)
            cut = cut if cut > 0 else characters
            return _Begun(parts=(image, text[:cut]), reference=text[cut : cut + 600])
    return None


def _question(sample: Sample, characters: int) -> _Begun | None:  # noqa: ARG001 -- a question is asked whole
    """Return a conversation up to its first answer, where that is about an image."""
    messages = messages_of(sample.texts, sample.images, sample.roles or ())
    first = next((place for place, message in enumerate(messages) if message.role == "assistant"), 0)
    asked = tuple(messages[:first])
    parts = tuple(part for message in asked for part in message.content)
    if not any(isinstance(part, bytes) for part in parts):
        return None
    answer = "".join(part for part in messages[first].content if isinstance(part, str))
    return _Begun(parts=parts, reference=answer[:600], messages=asked)


def _lay_out(begun: _Begun, opened: OpenModel) -> tuple[Layout, Pixels]:
    """Lay out a beginning as the model was trained: in turns, or as a document."""
    words, pictures = opened.tokenizer, opened.inputs.pictures
    pixels = np.concatenate([load_pixels(part, pictures) for part in begun.parts if isinstance(part, bytes)])
    if not opened.inputs.conversations:
        return lay_out_prompt(begun.parts, words, pictures), pixels
    messages = begun.messages or (Message(role="user", content=begun.parts),)
    return lay_out_messages(messages, words, pictures), pixels


STAGE = Stage(name="chat", version=3, schema=CHAT, work=chat_unit)
