"""A model and the beginnings of held-out documents to continuations; also opens the conversation of `carnac chat`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

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
from carnac.sequence.layout import Layout, Sample, lay_out_prompt, sample_from_row
from carnac.sequence.pixels import Pixels, load_pixels
from carnac.serve.chat import ChatSession, readable

CHAT = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("prompt", pa.string()),
        ("continuation", pa.string()),
        ("reference", pa.string()),
    ]
)


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
    recipe = task.recipe
    opened = open_same_model(recipe.model, task.model_digest)
    left = min(recipe.num_prompts, recipe.limit or recipe.num_prompts)
    for sample, image, prompt, reference in _prompts(task.shards, recipe.prompt_characters):
        if not left:
            break
        try:
            pixels = load_pixels(image, opened.inputs.pictures)[None]
        except RecordError as error:
            part.quarantine(sample.id, error.reason, error.detail)
            continue
        left -= 1
        layout = lay_out_prompt([image, prompt], opened.tokenizer, opened.inputs.pictures)
        said = "".join(readable(reply(opened, recipe.generation, layout, pixels), opened.tokenizer))
        row = {"id": sample.id, "image": image, "prompt": prompt, "continuation": said, "reference": reference}
        part.write(row)
        part.count("prompts")


def reply(opened: OpenModel, settings: GenerationSettings, layout: Layout, pixels: Pixels) -> Iterator[int]:
    """Stream the ids that follow a prompt."""
    from carnac.model.generate import generate

    slots = np.array([(0, start, length) for start, length in layout.slots], dtype=np.int64).reshape(-1, 3)
    return generate(opened.model, layout.ids, slots, pixels, settings, stop_ids=[opened.tokenizer.end])


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


STAGE = Stage(name="chat", version=1, schema=CHAT, work=chat_unit)
