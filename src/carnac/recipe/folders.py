"""What recipes read and write, and whether it fits: the shards that one writes are the shards that the next reads."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from carnac.recipe.load import LoadedRecipe
from carnac.recipe.mistakes import Mistake, did_you_mean


def check_folders(recipes: Sequence[LoadedRecipe], *, complete: bool = True) -> list[Mistake]:
    """Return the mistakes between recipes, which run in the order given.

    `complete` is False when some recipe of the run could not be loaded: what is read may be what that one writes.

    A mistake is: a folder to read that no recipe before writes and that does not lie there finished; a folder that
    holds another stage than the reader wants; two recipes that write one folder; an output that is an input or that
    holds another stage already.
    """
    mistakes: list[Mistake] = []
    written: dict[str, tuple[str, Path]] = {}
    roots: list[Path] = []
    for recipe in recipes:
        inputs = set()
        for name, stage, folder in recipe.settings.folders_read():
            inputs.add(place := _place(folder))
            if place in written:
                if written[place][0] != stage:
                    mistakes.append(recipe.mistake((name,), f"{folder} holds {written[place][0]}; wanted {stage}."))
            # Below an output of this run only what the run writes counts: the rest is of earlier recipes.
            elif set(roots) & set(Path(place).parents) or (complete and _stage_in(folder) != stage):
                candidates = [str(path) for kind, path in written.values() if kind == stage]
                hint = did_you_mean(str(folder), candidates)
                message = f"{folder}: no recipe before this one writes {stage} there and none lie there.{hint}"
                mistakes.append(recipe.mistake((name,), message))
        outputs = {_place(folder): (name, stage, folder) for name, stage, folder in recipe.settings.folders_written()}
        for place, (name, _, folder) in outputs.items():
            if place in written:
                mistakes.append(recipe.mistake((name,), f"{folder}: an earlier recipe of this run writes there too."))
        written |= {place: (stage, folder) for place, (_, stage, folder) in outputs.items()}
        if isinstance(root := getattr(recipe.settings, "output", None), Path):
            roots.append(Path(_place(root)))
            outputs.setdefault(_place(root), ("output", "", root))
        mistakes += _taken(recipe, outputs, inputs)
    return mistakes


def _taken(
    recipe: LoadedRecipe, outputs: Mapping[str, tuple[str, str, Path]], inputs: Collection[str]
) -> Iterator[Mistake]:
    """Yield the outputs that would replace something else: an input of the recipe, or another stage's folder."""
    for place, (name, stage, folder) in outputs.items():
        there = _stage_in(folder)
        if place in inputs:
            yield recipe.mistake((name,), f"{folder}: the recipe reads this folder. Choose another output.")
        elif there is not None and there != stage:
            yield recipe.mistake((name,), f"{folder}: holds stage {there!r} already. Choose another output.")


def _place(folder: Path) -> str:
    # Absolute and without "..": recipe://../x and recipes/x may be one folder.
    return os.path.abspath(folder)  # noqa: PTH100 -- Path.absolute keeps ".."


def _stage_in(folder: Path) -> str | None:
    """Return the stage whose finished folder this is, or None."""
    try:
        return str(json.loads((folder / "manifest.json").read_bytes())["stage"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
