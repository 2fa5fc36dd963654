"""The plan of the tiny training recipe without its training: `python golden_plan.py RECIPE --set=KEY=VALUE ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from carnac.core.errors import RecipeError
from carnac.engine.manifest import read_manifest
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.jobs import RecipeModels
from carnac.jobs.plan import PlanSettings, PlanSource, make_plan_folder
from carnac.jobs.train import TrainRecipe
from carnac.recipe.load import load_recipes, parse_overrides


def main(recipe_file: Path, arguments: Sequence[str]) -> None:
    """Write the folders of tokenizer, pieces and rows, as the job `train` does before its first step."""
    overrides = parse_overrides([argument.removeprefix("--set=") for argument in arguments])
    loaded, mistakes = load_recipes([recipe_file], RecipeModels(), overrides)
    if mistakes:
        raise RecipeError(mistakes)
    recipe = loaded[0].settings
    assert isinstance(recipe, TrainRecipe)
    settings = PlanSettings(
        tokenizer=recipe.tokenizer, pictures=recipe.pictures, mix=recipe.mix, steps=recipe.training.steps
    )
    sources = [PlanSource(settings=each, manifest=read_manifest(each.shards, "shards")) for each in recipe.mixed]
    make_plan_folder(sources, recipe.plan, settings, Runner(reporter=TerminalReporter())).publish()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
