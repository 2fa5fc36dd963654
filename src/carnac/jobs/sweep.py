"""One training recipe, many times: variants of it, values of a number, seeds; and what the numbers say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from carnac.core.errors import InputError
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.run import Runner
from carnac.engine.storage import write_file
from carnac.engine.unit import Unit, outside_digests
from carnac.jobs.models import backbone_files, fitted_pictures
from carnac.jobs.plan import Plan, PlanSettings, PlanSource, make_plan_folder
from carnac.jobs.recipes import keep_recipe
from carnac.jobs.sweep_check import check
from carnac.jobs.sweep_drawing import draw_sweep
from carnac.jobs.sweep_outcomes import outcomes_of, summarise
from carnac.jobs.sweep_page import page
from carnac.jobs.sweep_recipe import Kind, SweepRecipe, kinds_of
from carnac.jobs.sweep_run import PRELOAD, STAGE, SweepTask, affecting, digests
from carnac.jobs.train_model import Given
from carnac.jobs.train_recipe import TrainStage, stages_of

__all__ = ["RECIPE", "STAGE", "SweepRecipe", "check", "preload", "run"]

RECIPE = SweepRecipe
SUMMARY_FILE, FIGURE_FILE, PAGE_FILE = "sweep.json", "sweep.png", "index.html"


def preload(recipe: SweepRecipe) -> tuple[str, ...]:  # noqa: ARG001 -- the face of a job
    """Return modules that every run needs: imported once (seconds), not by each child."""
    return PRELOAD


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A kind of run with its stage and the settings of its plan."""

    kind: Kind
    stage: TrainStage
    planned: PlanSettings


def run(recipe: SweepRecipe, runner: Runner) -> None:
    """Write a part per run, then what they come to: `sweep.json`, `sweep.png`, `index.html`."""
    heldout = read_manifest(recipe.heldout, "shards")
    made = [_made(kind) for kind in _kinds(recipe)]
    manifests = {source.name: read_manifest(source.shards, "shards") for source in made[0].stage.sources}
    plans = _plans(recipe, made, manifests, runner)
    units = [
        _unit(each, plan, manifests, heldout, seed)
        for each, plan in zip(made, plans, strict=True)
        for seed in _seeds(recipe)
    ]
    entries = runner.do(STAGE, units, recipe.output)
    settings = recipe.model_dump(mode="json", by_alias=True, include={"variants", "axis", "num_seeds"})
    inputs = {"heldout": str(recipe.heldout), **{name: str(each.folder) for name, each in manifests.items()}}
    manifest = runner.publish(STAGE, recipe.output, entries, settings, inputs)
    if not runner.changes_nothing:
        _conclude(recipe, manifest, runner)
        keep_recipe(recipe, recipe.output)


def _kinds(recipe: SweepRecipe) -> list[Kind]:
    try:
        return list(kinds_of(recipe))
    except ValidationError as error:  # check says it with its place
        raise InputError(f"a variant is no train recipe: {error.errors()[0]['msg']}") from error


def _seeds(recipe: SweepRecipe) -> range:
    return range(recipe.training.seed, recipe.training.seed + recipe.num_seeds)


def _made(kind: Kind) -> _Made:
    model = kind.recipe.model
    assert model is not None
    try:
        (stage,) = stages_of(kind.recipe, fitted_pictures(kind.recipe.pictures, model), model)
    except ValueError as error:
        raise InputError(f"variant {kind.variant}: {error}") from error
    planned = PlanSettings(
        tokenizer=kind.recipe.tokenizer, pictures=stage.pictures, mix=stage.mix, steps=stage.training.steps
    )
    return _Made(kind=kind, stage=stage, planned=planned)


def _plans(recipe: SweepRecipe, made: Sequence[_Made], manifests: dict[str, Manifest], runner: Runner) -> list[Plan]:
    """Return the plan of each kind; kinds that lay out their rows alike share one."""
    different = list({_first(made, each.planned): each for each in reversed(made)}.items())
    sources = [PlanSource(settings=source, manifest=manifests[source.name]) for source in made[0].stage.sources]
    plans: dict[int, Plan] = {}
    for number, each in sorted(different):
        folder = recipe.plan if len(different) == 1 else recipe.plan / each.kind.name
        plans[number] = make_plan_folder(sources, folder, each.planned, runner)
        for line in plans[number].lines():
            runner.reporter.say(line)
        if not runner.changes_nothing:
            plans[number].publish()
    return [plans[_first(made, each.planned)] for each in made]


def _first(made: Sequence[_Made], planned: PlanSettings) -> int:
    return next(number for number, each in enumerate(made) if each.planned == planned)


def _unit(made: _Made, plan: Plan, manifests: dict[str, Manifest], heldout: Manifest, seed: int) -> Unit:
    training = made.stage.training.model_copy(update={"seed": seed})
    given = Given(
        recipe=made.kind.recipe,
        stage=dataclasses.replace(made.stage, training=training),
        plan=plan,
        shards=manifests,
        heldout=heldout,
        origin=None,
    )
    assert made.kind.recipe.model is not None
    inputs = [*digests(given, heldout), *outside_digests(backbone_files(made.kind.recipe.model))]
    return STAGE.unit(f"{made.kind.name}-{seed}", SweepTask(given=given), settings=affecting(given), inputs=inputs)


def _conclude(recipe: SweepRecipe, manifest: Manifest, runner: Runner) -> None:
    """Write what the runs come to, and say it."""
    keys = [(kind.variant, kind.value, seed) for kind in kinds_of(recipe) for seed in _seeds(recipe)]
    outcomes = outcomes_of(manifest.parts, keys, recipe.broken_above)
    summary = summarise(outcomes, recipe)
    figure = draw_sweep(outcomes, recipe)
    write_file(recipe.output / SUMMARY_FILE, (json.dumps(summary, indent=2) + "\n").encode())
    write_file(recipe.output / FIGURE_FILE, figure)
    write_file(recipe.output / PAGE_FILE, page(summary, figure).encode())
    for sentence in summary["verdict"]:
        runner.reporter.say(sentence)
