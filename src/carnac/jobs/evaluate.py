"""A model and held-out shards to losses with the right images, with other ones, with none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from carnac.core.batch import Batch
from carnac.core.errors import InputError, RecordError
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.storage import write_file
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit
from carnac.evaluate.grounding import DocumentLosses, HeldOut, pool_of, score_documents, summarise
from carnac.evaluate.settings import GroundingSettings
from carnac.jobs.models import OpenModel, open_same_model
from carnac.jobs.recipes import keep_recipe
from carnac.mix.assemble import batch_of_samples
from carnac.recipe.settings import ModelFolder, Recipe, ShardsFolder, Writes
from carnac.sequence.layout import sample_from_row
from carnac.sequence.pixels import grey_pixels
from carnac.train.rows import micro_batches

EVALUATION = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.int32()),
        ("tokens", pa.int64()),
        ("right", pa.float64()),
        ("shuffled", pa.float64()),
        ("none", pa.float64()),
        ("all_tokens", pa.int64()),
        ("all_loss", pa.float64()),
    ]
)
ROWS_AT_ONCE = 8  # windows of a long document scored together


class EvaluateRecipe(Recipe):
    """Settings of the job `evaluate`."""

    job: Literal["evaluate"] = Field(description="the job that this recipe describes")
    model: ModelFolder = Field(description="folder of the model")
    shards: ShardsFolder = Field(description="folder of held-out shards")
    output: Annotated[Path, Writes("evaluation")] = Field(description="folder for the losses and evaluation.json")
    grounding: GroundingSettings = Field(default=GroundingSettings(), description="how the images are exchanged")


RECIPE = EvaluateRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateTask:
    """What a worker needs: model and shards are those that the key was made from."""

    recipe: EvaluateRecipe
    model_digest: str
    shards: Manifest


def run(recipe: EvaluateRecipe, runner: Runner) -> None:
    """Write a row per held-out document with an image, and `evaluation.json`."""
    model = read_manifest(recipe.model, "model")
    shards = read_manifest(recipe.shards, "shards")
    settings = {"seed": recipe.grounding.seed, "limit": recipe.limit}
    inputs = [model.digest, shards.digest]
    task = EvaluateTask(recipe=recipe, model_digest=model.digest, shards=shards)
    unit = STAGE.unit("grounding", task, settings=settings, inputs=inputs)
    entries = runner.do(STAGE, [unit], recipe.output)
    manifest = runner.publish(STAGE, recipe.output, entries, settings, {"model": str(recipe.model)})
    if runner.changes_nothing:
        return
    summary = summary_of(manifest, recipe.grounding)
    write_file(recipe.output / "evaluation.json", (json.dumps(summary, indent=1) + "\n").encode())
    keep_recipe(recipe, recipe.output)
    runner.reporter.say(summary["verdict"])


def summary_of(manifest: Manifest, settings: GroundingSettings) -> dict[str, Any]:
    """Return the content of `evaluation.json` from the rows of all documents."""
    documents = [_losses(row) for entry in manifest.parts for row in read_rows(entry.path)]
    found = summarise(documents, settings)
    if found is None:
        sentence = "Not measured: fewer than two held-out documents have text after an image; the interval needs two."
        return {"documents": sum(document.tokens > 0 for document in documents), "losses": None, "verdict": sentence}
    return {**asdict(found), "verdict": found.verdict()}


def evaluate_unit(unit: Unit, part: Part) -> None:
    """Score every held-out document that has an image."""
    import torch

    task: EvaluateTask = unit.task
    recipe = task.recipe
    opened = open_same_model(recipe.model, task.model_digest)

    def score(batch: Batch) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            # The logits of a long document at once took 16 KB per position at 4,096 tokens of vocabulary.
            parts = [opened.model.loss(rows, batch.label_tokens)[1] for rows in micro_batches(batch, ROWS_AT_ONCE)]
        return torch.cat(parts).numpy(force=True)

    pool = pool_of(_held_out(task, opened))
    if len({owner for owner, _ in pool}) < 2:
        part.count("too_few_documents_with_images")
        return
    grey = grey_pixels(opened.inputs.pictures)
    for losses in score_documents(_held_out(task, opened, part), pool, grey, score, recipe.grounding.seed):
        if not np.isfinite([losses.all_loss, *losses.losses.values()]).all():
            raise InputError(
                f"{recipe.model}: its loss on document {losses.id} is not a finite number: the training diverged or "
                "the weights are damaged. Train again with a lower learning rate."
            )
        part.count("documents")
        sums = {str(name): loss for name, loss in losses.losses.items()}
        counts = {"images": losses.images, "tokens": losses.tokens, "all_tokens": losses.all_tokens}
        part.write({"id": losses.id, "all_loss": losses.all_loss, **sums, **counts})


def _held_out(task: EvaluateTask, opened: OpenModel, part: Part | None = None) -> Iterator[HeldOut]:
    """Yield the held-out documents; one that cannot be laid out is quarantined in `part`."""
    number = 0
    for entry in task.shards.parts:
        for row in read_rows(entry.path):
            if task.recipe.limit is not None and number >= task.recipe.limit:
                return
            number += 1
            sample = sample_from_row(row)
            try:
                batch = batch_of_samples([sample], opened.tokenizer, opened.inputs.pictures, opened.inputs.row_tokens)
            except RecordError as error:
                if part is not None:
                    part.quarantine(f"{entry.unit}@{number - 1}", error.reason, error.detail)
                continue
            yield HeldOut(id=sample.id, batch=batch)


def _losses(row: dict[str, Any]) -> DocumentLosses:
    return DocumentLosses(
        id=row["id"],
        images=row["images"],
        tokens=row["tokens"],
        losses={"right": row["right"], "shuffled": row["shuffled"], "none": row["none"]},
        all_tokens=row["all_tokens"],
        all_loss=row["all_loss"],
    )


STAGE = Stage(name="evaluation", version=1, schema=EVALUATION, work=evaluate_unit)
