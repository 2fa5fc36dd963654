"""Shards to a model, stage after stage: tokenizer, plan, then the loop, from whichever checkpoint is there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carnac.core.errors import InputError
from carnac.engine.manifest import Manifest, PartEntry, collect_parts, read_manifest, write_manifest
from carnac.engine.run import Runner
from carnac.engine.unit import outside_digests
from carnac.jobs.models import backbone_files, fitted_pictures
from carnac.jobs.plan import Plan, PlanSettings, PlanSource, make_plan_folder, make_tokenizer
from carnac.jobs.recipes import keep_recipe
from carnac.jobs.train_check import check
from carnac.jobs.train_model import Given
from carnac.jobs.train_recipe import TrainRecipe, TrainStage, fit_tokens, stages_of
from carnac.jobs.train_run import MODEL, STAGE, Training, holds_model
from carnac.jobs.train_start import Start, read_start
from carnac.model.settings import ModelSettings
from carnac.sequence.marks import mark_names
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import load_tokenizer

__all__ = ["MODEL", "RECIPE", "STAGE", "TrainRecipe", "check", "run"]

RECIPE = TrainRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The model that a stage starts from: its folder (None for a new model) and the digests of what it depends on."""

    folder: Path | None
    digests: tuple[str, ...]


def run(recipe: TrainRecipe, runner: Runner) -> None:
    """Write the plan and the model of each stage in turn; the last one's model is the output."""
    manifests = {source.name: read_manifest(source.shards, "shards") for source in recipe.mixed}
    heldout = None if recipe.heldout is None else read_manifest(recipe.heldout, "shards")
    start = None if recipe.init_from is None else read_start(recipe.init_from)
    origin, model, pictures = _beginning(recipe, start)
    stages = _stages(recipe, pictures, model)
    tokenizer_file = _tokenizer(recipe, stages, manifests, start, runner)
    for stage in stages:
        plan = _plan(recipe, stage, manifests, tokenizer_file, runner)
        given = Given(
            recipe=recipe,
            stage=stage,
            plan=plan,
            shards={source.name: manifests[source.name] for source in stage.sources},
            heldout=heldout,
            origin=origin.folder,
        )
        entry = _train(given, origin, runner)
        origin = Origin(folder=stage.output, digests=(entry.digest,))
    if not runner.changes_nothing:
        keep_recipe(recipe.model_copy(update={"pictures": pictures}) if start else recipe, recipe.output)


def _beginning(recipe: TrainRecipe, start: Start | None) -> tuple[Origin, ModelSettings, PictureSettings]:
    """Return where the first stage starts, the model there, and the pictures that it is shown."""
    if start is not None:
        try:
            pictures = fit_tokens(start.shown(recipe.pictures), start.settings)
        except ValueError as error:
            raise InputError(f"{start.folder}: {error}") from error
        return Origin(folder=start.folder, digests=tuple(outside_digests(start.files()))), start.settings, pictures
    assert recipe.model is not None
    digests = outside_digests(backbone_files(recipe.model))
    return Origin(folder=None, digests=tuple(digests)), recipe.model, fitted_pictures(recipe.pictures, recipe.model)


def _stages(recipe: TrainRecipe, pictures: PictureSettings, model: ModelSettings) -> list[TrainStage]:
    try:
        return stages_of(recipe, pictures, model)
    except ValueError as error:  # what check could not see: the folder to start from was not there yet
        raise InputError(f"a stage's squares: {error}") from error


def _tokenizer(
    recipe: TrainRecipe,
    stages: Sequence[TrainStage],
    manifests: Mapping[str, Manifest],
    start: Start | None,
    runner: Runner,
) -> Path | None:
    """Return the tokenizer that all stages share, with the marks of the most tiles; None where the plan makes it.

    It is that of the model to start from, or made over all sources, also those of later stages.
    """
    most = max((stage.pictures for stage in stages), key=lambda pictures: pictures.max_tiles)
    marks = mark_names(most)
    if start is not None and start.tokenizer_file is not None:
        missing = sorted(set(marks) - set(load_tokenizer(start.tokenizer_file).marks))
        if missing:
            raise InputError(
                f"{start.tokenizer_file}: lacks {len(missing)} marks of pictures of {most.max_tiles} x "
                f"{most.max_tiles} tiles, first {missing[0]}; the model knows no others. Set max_tiles lower."
            )
        return start.tokenizer_file
    if start is None and not recipe.stages:
        return None
    settings = recipe.tokenizer if start is None else TokenizerSettings(folder=start.folder)
    sources = [PlanSource(settings=source, manifest=manifests[source.name]) for source in recipe.mixed]
    file, manifest = make_tokenizer(sources, recipe.plan / "tokenizer", settings, most, runner)
    if not runner.changes_nothing:
        write_manifest(manifest)
    return file


def _plan(
    recipe: TrainRecipe,
    stage: TrainStage,
    manifests: Mapping[str, Manifest],
    tokenizer_file: Path | None,
    runner: Runner,
) -> Plan:
    """Make the plan of a stage and say what it holds."""
    settings = PlanSettings(
        tokenizer=recipe.tokenizer,
        pictures=stage.pictures,
        mix=stage.mix,
        steps=stage.training.steps,
        first_row=stage.first_row,
    )
    sources = [PlanSource(settings=source, manifest=manifests[source.name]) for source in stage.sources]
    plan = make_plan_folder(sources, stage.plan, settings, runner, tokenizer_file)
    for line in plan.lines():
        runner.reporter.say(line)
    return plan


def _train(given: Given, origin: Origin, runner: Runner) -> PartEntry:
    """Train a stage unless its model is there; return the part that vouches for it."""
    output = given.stage.output
    inputs = [given.plan.digest, *(manifest.digest for manifest in given.shards.values()), *origin.digests]
    unit = STAGE.unit("training", None, settings=given.affecting, inputs=inputs)
    if runner.changes_nothing:
        return runner.do(STAGE, [unit], output)[0]
    runner.prepare(output)
    began, done = time.perf_counter(), holds_model(output, unit)
    if done:
        given.plan.publish()
    else:
        # All of it: a second run would truncate metrics and sweep checkpoints before its first step.
        with runner.working(STAGE, output, 1, 0) as pulse:
            Training(given, unit, runner, pulse).run()
    entries = collect_parts(output, [unit])
    runner.tell(STAGE, entries, int(not done), time.perf_counter() - began)
    names = {name: str(manifest.folder) for name, manifest in given.shards.items()}
    runner.publish(STAGE, output, entries, given.affecting, names)
    return entries[0]
