"""Shards to a model: tokenizer, plan, then the loop, from whichever checkpoint is there."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field

from carnac.core.batch import Batch
from carnac.core.errors import InputError, OutputError
from carnac.engine.manifest import MANIFEST, Manifest, collect_parts, find_done, read_manifest
from carnac.engine.part import Part
from carnac.engine.progress import Task
from carnac.engine.run import Runner
from carnac.engine.state import Pulse
from carnac.engine.storage import list_files
from carnac.engine.tables import read_table
from carnac.engine.unit import Stage, Unit, outside_digests
from carnac.jobs.models import INPUTS_FILE, InputSettings, backbone_files, fitted_pictures, write_inputs
from carnac.jobs.plan import Plan, PlanSettings, make_plan_folder
from carnac.jobs.recipes import keep_recipe
from carnac.mix.batches import BatchReader, read_ahead
from carnac.mix.settings import MixSettings
from carnac.model.settings import ModelSettings, TowerSettings
from carnac.recipe.settings import Recipe, ShardsFolder, Writes
from carnac.recipe.source import Location
from carnac.sequence.pixels import image_tokens
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import FILE_NAME as TOKENIZER_FILE
from carnac.sequence.tokenizer import load_tokenizer
from carnac.train.metrics import MetricsFile, StepRecord, read_metrics, truncate_metrics
from carnac.train.settings import TrainSettings

if TYPE_CHECKING:
    from carnac.model.autoregressive import AutoregressiveModel
    from carnac.model.formats import FormatName
    from carnac.train.checkpoint import Parts
    from carnac.train.loop import Losses

# One row per step: what must be equal in a run that was killed and resumed. The last row names the weights.
MODEL = pa.schema(
    [
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("learning_rate", pa.float64()),
        ("gradient_norm", pa.float64()),
        ("label_tokens", pa.int64()),
        ("tokens", pa.int64()),
        ("images", pa.int64()),
        ("pieces", pa.int64()),
        ("weights_sha256", pa.string()),
    ]
)


class TrainRecipe(Recipe):
    """Settings of the job `train`."""

    job: Literal["train"] = Field(description="the job that this recipe describes")
    shards: ShardsFolder = Field(description="folder of the training shards")
    plan: Annotated[Path, Writes("plan")] = Field(description="folder for the tokenizer, the pieces and the plan")
    output: Annotated[Path, Writes("model")] = Field(description="folder for the model, its metrics and checkpoints")
    tokenizer: TokenizerSettings = Field(
        default=TokenizerSettings(), description="the tokenizer, trained on the shards"
    )
    pictures: PictureSettings = Field(default=PictureSettings(), description="what the vision tower is shown")
    mix: MixSettings = Field(default=MixSettings(), description="rows and batches")
    model: ModelSettings = Field(description="the model")
    training: TrainSettings = Field(description="the training run")
    export: Literal["idefics3", "llava"] | None = Field(
        default=None, description="a format that the model is to be exported to later: check says what cannot be"
    )


RECIPE = TrainRecipe


def check(recipe: TrainRecipe) -> list[tuple[Location, str]]:
    """Return what only transformers' own configurations can tell, and what does not fit between the tables."""
    from carnac.model.check import check_model

    size_px = recipe.pictures.size_px
    mistakes: list[tuple[Location, str]] = [
        (("model", *place), sentence) for place, sentence in check_model(recipe.model, size_px)
    ]
    found = bool(mistakes)
    mistakes += _check_sizes(recipe)
    mistakes += _check_tokenizer(recipe)
    if recipe.export is not None and not found:
        mistakes += _check_export(recipe, recipe.export)
    return mistakes


def _check_sizes(recipe: TrainRecipe) -> Iterator[tuple[Location, str]]:
    """Yield what does not fit between pictures, rows and the two backbones."""
    from carnac.model.check import num_features_of
    from carnac.model.towers import max_positions, patch_px

    pictures, vision, language = recipe.pictures, recipe.model.vision, recipe.model.language
    patch = patch_px(vision)
    if patch is not None and patch != pictures.patch_px:
        message = f"the tower's patch_size is {patch}, but pictures.patch_px is {pictures.patch_px}; make them equal."
        yield ("model", "vision", *_place(vision, "patch_size")), message
    features = num_features_of(vision, pictures.size_px)
    made = None if features is None else _tokens_made(recipe.model, features)
    if None not in (made, pictures.tokens) and made != pictures.tokens:
        message = f"the connector makes {made} tokens of a square, not {pictures.tokens}; leave it out."
        yield ("pictures", "tokens"), message
    shown = pictures if made is None else pictures.model_copy(update={"tokens": made})
    side_px = shown.size_px * shown.max_tiles
    tokens = image_tokens(side_px, side_px, shown)
    if tokens > recipe.mix.row_tokens:
        message = f"a row has {recipe.mix.row_tokens} positions, but a picture takes {tokens}; wanted more."
        yield ("mix", "row_tokens"), message
    squares = shown.max_tiles**2 + 1 if shown.max_tiles > 1 else 1
    if 0 < recipe.mix.row_images < squares:
        message = f"a row has {recipe.mix.row_images} images, but a picture is up to {squares} squares; wanted as many."
        yield ("mix", "row_images"), message
    longest = max_positions(language)
    if longest is not None and longest < recipe.mix.row_tokens:
        message = f"{longest} positions, but a row has {recipe.mix.row_tokens} (mix.row_tokens); wanted as many."
        yield ("model", "language", *_place(language, "max_position_embeddings")), message


def _place(tower: TowerSettings, field: str) -> Location:
    """Return where a recipe says what a field of a backbone's configuration is."""
    return ("config", field) if tower.type is not None else ("folder",)


def _tokens_made(model: ModelSettings, features: int) -> int | None:
    from carnac.model.check import image_tokens_of

    try:
        return image_tokens_of(model.connector, features)
    except ValueError:
        return None  # a mistake of its own


def _check_tokenizer(recipe: TrainRecipe) -> Iterator[tuple[Location, str]]:
    language = recipe.model.language
    if language.type is None and recipe.tokenizer.folder is None:
        wanted = language.folder or f"a local folder with that of {language.hub}"
        message = f"a trained language model reads its own tokenizer's ids only; set tokenizer.folder to {wanted}."
        yield ("model", "language", "hub" if language.folder is None else "folder"), message


def _check_export(recipe: TrainRecipe, name: FormatName) -> Iterator[tuple[Location, str]]:
    """Yield why the format that the recipe names cannot express its model; a hub is not asked."""
    from carnac.model.formats import refusals
    from carnac.model.formats.description import describe_settings
    from carnac.model.towers import tower_config, trained_config, vision_config

    vision, language = recipe.model.vision, recipe.model.language
    if vision.hub is not None or language.hub is not None:
        return
    text = tower_config("language", language, {}) if language.type else trained_config("language", language)
    described = describe_settings(recipe.model, vision_config(vision, recipe.pictures.size_px), text, recipe.pictures)
    yield from refusals(name, described)


def run(recipe: TrainRecipe, runner: Runner) -> None:
    """Write the plan, then the model."""
    shards = read_manifest(recipe.shards, "shards")
    training = recipe.training.model_copy(update={"steps": min(recipe.training.steps, recipe.limit or 2**62)})
    pictures = fitted_pictures(recipe.pictures, recipe.model)
    inputs = InputSettings(pictures=pictures, row_tokens=recipe.mix.row_tokens)
    settings = PlanSettings(tokenizer=recipe.tokenizer, pictures=pictures, mix=recipe.mix, num_batches=training.steps)
    plan = make_plan_folder(shards, recipe.plan, settings, runner)
    affecting = {
        "model": recipe.model.model_dump(mode="json"),
        # Where checkpoints fall changes no weight.
        "training": training.model_dump(mode="json", exclude={"checkpoints"}),
        "inputs": inputs.model_dump(mode="json"),
    }
    backbones = outside_digests(backbone_files(recipe.model))
    unit = STAGE.unit("training", None, settings=affecting, inputs=[plan.digest, shards.digest, *backbones])
    if runner.changes_nothing:
        runner.do(STAGE, [unit], recipe.output)
        return
    runner.prepare(recipe.output)
    began, done = time.perf_counter(), holds_model(recipe.output, unit)
    if done:
        plan.publish()
    else:
        # All of it: a second run would truncate metrics and sweep checkpoints before its first step.
        with runner.working(STAGE, recipe.output, 1, 0) as pulse:
            _train(_Training(recipe, training, inputs, plan, shards, runner), unit, pulse)
    entries = collect_parts(recipe.output, [unit])
    runner.tell(STAGE, entries, int(not done), time.perf_counter() - began)
    runner.publish(STAGE, recipe.output, entries, affecting, {"shards": str(recipe.shards)})
    keep_recipe(recipe, recipe.output)


def holds_model(folder: Path, unit: Unit) -> bool:
    """Say whether `folder` holds the finished model of `unit`: every file, and the very weights that its part names.

    All runs of a folder give their files the same names, so the part alone would vouch for another run's weights.
    """
    from carnac.model.weights import WEIGHTS_FILE

    if find_done(folder, [unit], list_files(folder))[unit.name] is None:
        return False
    weights = read_table(folder / unit.file_name, columns=["weights_sha256"])["weights_sha256"].to_pylist()[-1]
    with (folder / WEIGHTS_FILE).open("rb") as file:
        return bool(hashlib.file_digest(file, "sha256").hexdigest() == weights)


def _train(training: _Training, unit: Unit, pulse: Pulse) -> None:
    """Train. Raises OutputError where the disk refuses a checkpoint, a metric or the model."""
    from safetensors import SafetensorError

    try:
        training.run(unit, pulse)
    except (OSError, SafetensorError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise OutputError(
            f"{getattr(error, 'filename', None) or training.output}: cannot be written ({said}). Free space, then run "
            "the same command again: it goes on from the last checkpoint."
        ) from error


@dataclass(slots=True)
class _Watch:
    """Writes metrics and checkpoints, and moves the bar."""

    metrics: MetricsFile
    parts: Parts
    task: Task
    pulse: Pulse
    folder: Path
    key: str
    keep_last: int
    rate: float = 0.0

    def on_step(self, record: StepRecord, batch: Batch, per_token: Losses) -> None:  # noqa: ARG002 -- the loop's protocol
        self.metrics.append(record)
        self.rate = record.learning_rate
        self.pulse.beat()
        speed = record.tokens / max(record.seconds, 1e-9)
        self.task.advance(note=f"loss {record.loss:.3f}  {speed:,.0f} tokens/s")

    def save(self, next_step: int) -> None:
        from carnac.train.checkpoint import write_checkpoint

        self.metrics.sync()  # before the checkpoint that goes on from them
        write_checkpoint(
            self.folder, self.parts, next_step, key=self.key, learning_rate=self.rate, keep_last=self.keep_last
        )


class _Training:
    """One run of the loop in this process, from the beginning or the newest checkpoint."""

    def __init__(
        self,
        recipe: TrainRecipe,
        settings: TrainSettings,
        inputs: InputSettings,
        plan: Plan,
        shards: Manifest,
        runner: Runner,
    ) -> None:
        self._recipe, self._settings, self._inputs = recipe, settings, inputs
        self._plan, self._shards, self._runner, self.output = plan, shards, runner, recipe.output
        self._tokenizer = load_tokenizer(plan.tokenizer_file)
        self._checkpoints = recipe.output / "checkpoints"
        self._metrics = recipe.output / "metrics.jsonl"

    def run(self, unit: Unit, pulse: Pulse) -> None:
        """Train to the end and commit the model: its files first, the part that says so last."""
        from carnac.model.weights import CONFIG_FILE, WEIGHTS_FILE, save_model
        from carnac.train.curve import draw_loss

        output = self.output
        model, parts = self._build()
        start = self._resume(parts, unit.key)
        # From here on the folders are this run's: a manifest of an earlier one would vouch for files that are replaced.
        (output / MANIFEST).unlink(missing_ok=True)
        self._plan.publish()
        self._loop(model, parts, start, unit.key, pulse)
        save_model(model, output)
        write_inputs(output, self._plan.tokenizer_file, self._inputs)
        rows = self._whole_metrics(self._settings.steps)
        draw_loss(rows, output / "loss.png")
        weights = hashlib.sha256((output / WEIGHTS_FILE).read_bytes()).hexdigest()
        with Part(STAGE, unit, output) as part:
            for row in rows:
                last = row["step"] == self._settings.steps - 1
                kept = {name: row[name] for name in MODEL.names if name in row}
                part.write({**kept, "weights_sha256": weights if last else None})
            for name in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, INPUTS_FILE, "loss.png"):
                part.needs(output / name)
            part.count("parameters", sum(parameter.numel() for parameter in model.parameters()))
            part.count("tokens", sum(row["tokens"] for row in rows))
            part.count("images", sum(row["images"] for row in rows))

    def _build(self) -> tuple[AutoregressiveModel, Parts]:
        import torch

        from carnac.model.autoregressive import build_model
        from carnac.model.language import Vocabulary
        from carnac.model.weights import load_weights, save_model
        from carnac.train.checkpoint import Parts
        from carnac.train.optimizer import make_optimizer

        torch.set_num_threads(self._settings.threads)
        words = self._tokenizer
        # A random language model has a row for every id; a trained one is left as it is, rows are added beside it.
        added = () if self._recipe.model.language.type is not None else words.added_ids
        vocabulary = Vocabulary(
            size=words.vocabulary_size, pad_id=words.pad, bos_id=words.begin, eos_id=words.end, added_ids=added
        )
        model = build_model(self._recipe.model, vocabulary, self._recipe.pictures.size_px, self._settings.seed)
        parts = Parts(
            model=model,
            optimizer=make_optimizer(model, self._settings.optimizer),
            write_model=lambda folder: save_model(model, folder),
            read_model=lambda folder: load_weights(model, folder),
        )
        return model, parts

    def _resume(self, parts: Parts, key: str) -> int:
        from carnac.train.checkpoint import latest, sweep
        from carnac.train.resume import resume
        from carnac.train.schedule import learning_rate

        sweep(self._checkpoints)
        newest = latest(self._checkpoints)
        start = 0
        if newest is not None:
            resumed = resume(newest, parts, key=key, learning_rate=lambda step: learning_rate(step, self._settings))
            for line in resumed.lines:
                self._runner.reporter.say(line)
            start = resumed.next_step
        if self._metrics.is_file():
            truncate_metrics(self._metrics, start)
        self._whole_metrics(start)
        return start

    def _whole_metrics(self, steps: int) -> list[dict[str, Any]]:
        """Return the records of steps 0 to `steps` - 1, of which the part is made. Raises InputError when one lacks."""
        rows = read_metrics(self._metrics)
        if [row["step"] for row in rows] != list(range(steps)):
            raise InputError(
                f"{self._metrics}: holds {len(rows)} steps, but {self._checkpoints} goes on from step {steps}. "
                f"Put the file back, or remove {self._checkpoints} to train again from the beginning."
            )
        return rows

    def _loop(self, model: AutoregressiveModel, parts: Parts, start: int, key: str, pulse: Pulse) -> None:
        from carnac.train.loop import train

        shards = {entry.unit: entry.path for entry in self._shards.parts}
        reader = BatchReader(self._plan.table(), shards, self._tokenizer, self._inputs.pictures, self._recipe.mix)
        with ExitStack() as stack:
            metrics = stack.enter_context(MetricsFile(self._metrics))
            task = stack.enter_context(self._runner.reporter.task("train", self._settings.steps, start))
            ahead = stack.enter_context(closing(read_ahead(reader, range(start, self._settings.steps))))
            watch = _Watch(metrics, parts, task, pulse, self._checkpoints, key, self._settings.checkpoints.keep_last)
            train(model, parts.optimizer, lambda _: next(ahead), self._settings, watch, start)


STAGE = Stage(name="model", version=1, schema=MODEL, work=None)
