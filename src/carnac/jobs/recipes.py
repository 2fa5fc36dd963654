"""What all recipes share: finding them, checking them together, running them in order, keeping the resolved text."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import tomli_w

from carnac import __version__
from carnac.core.errors import InputError, RecipeError
from carnac.core.places import Place, library_of, read_bytes
from carnac.engine.run import EarlyEnd, Runner
from carnac.engine.storage import write_file
from carnac.jobs import CheckingJob, PreloadingJob, RecipeModels, load_job
from carnac.recipe.folders import check_folders
from carnac.recipe.load import LoadedRecipe, load_recipes, parse_overrides
from carnac.recipe.mistakes import Mistake
from carnac.recipe.settings import Recipe


def find_recipes(places: Sequence[Path]) -> list[Path]:
    """Return the recipe files of `places`: a folder stands for its `*.toml` in the order of their names."""
    found: list[Path] = []
    for place in places:
        inside = sorted(place.glob("*.toml")) if place.is_dir() else [place]
        if not inside:
            raise RecipeError(
                [Mistake(where=str(place), line=None, key="", message="no *.toml recipe in this folder.")]
            )
        found += inside
    return found


def load_checked(places: Sequence[Path], overrides: Sequence[str]) -> list[LoadedRecipe]:
    """Load and check recipes, alone and together. Raises RecipeError with every mistake."""
    paths = find_recipes(places)
    recipes, mistakes = load_recipes(paths, RecipeModels(), parse_overrides(overrides))
    for recipe in recipes:
        job = load_job(recipe.settings.job)
        if hasattr(job, "check"):
            found = cast("CheckingJob", job).check(recipe.settings)
            mistakes += [recipe.mistake(location, sentence) for location, sentence in found]
    # A recipe that did not load may be the one that writes what another reads: no false accusation then.
    mistakes += check_folders(recipes, complete=len(recipes) == len(paths))
    if mistakes:
        raise RecipeError(mistakes)
    return recipes


def run_recipes(recipes: Sequence[LoadedRecipe], runner: Runner) -> None:
    """Run recipes in order; what is done is skipped by the engine, unit by unit."""
    folders = [
        folder
        for recipe in recipes
        for _, _, folder in (*recipe.settings.folders_read(), *recipe.settings.folders_written())
    ]
    # In the fork server once, not in the child of every unit: with a store, that is half of what a small unit costs.
    libraries = {library for folder in folders if (library := library_of(folder)) is not None}
    for recipe in recipes:
        job = load_job(recipe.settings.job)
        if hasattr(job, "preload"):
            libraries.update(cast("PreloadingJob", job).preload(recipe.settings))
    runner = dataclasses.replace(runner, preload=(*runner.preload, *sorted(libraries)))
    for recipe in recipes:
        runner.reporter.say(f"== {recipe.source.path} ({recipe.settings.job})")
        try:
            load_job(recipe.settings.job).run(
                recipe.settings, dataclasses.replace(runner, limits=recipe.settings.limits)
            )
        except EarlyEnd:
            if runner.dry_run:
                runner.reporter.say("dry run: nothing was done; what follows depends on the output of these units.")
            return
    if runner.record is not None:
        raise InputError(
            f"{runner.record}: no recipe of this run has lost this record. Wanted a record's name as carnac show lists "
            "it under what was lost."
        )


def keep_recipe(recipe: Recipe, folder: Place) -> None:
    """Write the resolved recipe beside an output, every default spelled out: it runs again as it is."""
    content = recipe.model_dump(mode="json", by_alias=True, exclude_none=True)
    text = f"# As run by carnac {__version__}, with every default spelled out.\n{tomli_w.dumps(content)}"
    path = folder / "recipe.toml"
    with contextlib.suppress(OSError):
        if read_bytes(path) == text.encode():
            return
    write_file(path, text.encode())
