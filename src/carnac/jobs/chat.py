"""A model and the beginnings of held-out documents to continuations; also opens the conversation of `carnac chat`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

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
from carnac.sequence.layout import Layout, Sample, lay_out_prompt, sample_from_row
from carnac.sequence.pixels import Pixels, load_pixels
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
    shards: ShardsFolder = Field(description="folder of held-out shards to take beginnings of documents from")
    output: Annotated[Path, Writes("chat")] = Field(description="folder for the continuations")
    num_prompts: int = Field(default=3, ge=1, description="documents to go on from: the first ones with an image")
    prompt_characters: int = Field(default=160, ge=0, description="characters of text after the image in a prompt")
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
    """Stream the ids that follow a prompt, up to the end of the document or a stop text."""
    from carnac.model.generation.answer_text import ids_until_stop
    from carnac.model.generation.generate import generate

    words = opened.tokenizer
    found = generate(opened.model, layout.ids, layout.image_slots, pixels, settings, stop_ids=[words.end])
    if not settings.stop:
        return found
    encode = partial(words.encode, at_start=False)
    return ids_until_stop(found, words.decode, encode, settings.stop, layout.ids[-1:].tolist())


def _answers(opened: OpenModel, settings: GenerationSettings, held_out: Sequence[HeldOut]) -> list[str]:
    from carnac.model.generation.generate import answer_prompts
    from carnac.model.generation.prompt import Prompt

    words = opened.tokenizer
    prompts = [Prompt(ids=layout.ids, places=layout.image_slots[:, 1], pixels=pixels) for _, layout, pixels in held_out]
    answers = answer_prompts(opened.model, prompts, settings, words.decode, stop_ids=[words.end])
    return [answer.text for answer in answers]


def _readable(task: ChatTask, opened: OpenModel, part: Part) -> Iterator[HeldOut]:
    """Yield as many prompts as are asked for; one whose picture does not decode is quarantined."""
    recipe, pictures = task.recipe, opened.inputs.pictures
    left = min(recipe.num_prompts, recipe.limit or recipe.num_prompts)
    for sample, image, prompt, reference in _prompts(task.shards, recipe.prompt_characters):
        if not left:
            return
        try:
            pixels = load_pixels(image, pictures)
        except RecordError as error:
            part.quarantine(sample.id, error.reason, error.detail)
            continue
        left -= 1
        row = {"id": sample.id, "image": image, "prompt": prompt, "reference": reference}
        yield row, lay_out_prompt([image, prompt], opened.tokenizer, pictures), pixels


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
    )


def _prompts(shards: Manifest, characters: int) -> Iterator[tuple[Sample, bytes, str, str]]:
    """Yield (sample, image, prompt, how the page goes on) of samples with text after an image."""
    for entry in shards.parts:
        for row in read_rows(entry.path):
            sample = sample_from_row(row)
            pairs = zip(sample.images, sample.texts[1:], strict=False)
            for image, text in pairs:
                if image is not None and text is not None and len(text) > characters:
                    cut = text.rfind(" ", 0, characters + 1)
                    cut = cut if cut > 0 else characters
                    yield sample, image, text[:cut], text[cut : cut + 600]
                    break


STAGE = Stage(name="chat", version=2, schema=CHAT, work=chat_unit)
