"""What recipes read and write, and whether it fits: the shards that one writes are the shards that the next reads."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence

from carnac.core.errors import InputError
from carnac.core.places import Place, absolute, is_local, read_bytes
from carnac.core.stores import PROTOCOLS
from carnac.recipe.explain import location_of
from carnac.recipe.load import LoadedRecipe
from carnac.recipe.mistakes import Mistake, did_you_mean


def check_folders(recipes: Sequence[LoadedRecipe], *, complete: bool = True) -> list[Mistake]:
    """Return the mistakes between recipes, which run in the order given.

    `complete` is False when some recipe of the run could not be loaded: what is read may be what that one writes.

    A mistake is: a folder to read that no recipe before writes and that does not lie there finished; a folder that
    holds another stage than the reader wants; a store where a disk is needed; two recipes, or two keys of one, that
    write one folder; an output that is an input or that holds another stage already. Raises InputError where a store
    does not tell.
    """
    mistakes: list[Mistake] = []
    written: dict[str, tuple[str, Place]] = {}
    roots: list[str] = []
    for recipe in recipes:
        mistakes += _misplaced(recipe)
        inputs = set()
        for name, stage, folder in recipe.settings.folders_read():
            inputs.add(place := absolute(folder))
            if place in written:
                if written[place][0] != stage:
                    message = f"{folder} holds {written[place][0]}; wanted {stage}."
                    mistakes.append(recipe.mistake(location_of(name), message))
            # Below an output of this run only what the run writes counts: the rest is of earlier recipes.
            elif any(place.startswith(f"{root}/") for root in roots) or (complete and _stage_in(folder) != stage):
                candidates = [str(path) for kind, path in written.values() if kind == stage]
                hint = did_you_mean(str(folder), candidates)
                message = f"{folder}: no recipe before this one writes {stage} there and none lie there.{hint}"
                mistakes.append(recipe.mistake(location_of(name), message))
        mistakes += _twice(recipe)
        outputs = {absolute(folder): (name, stage, folder) for name, stage, folder in recipe.settings.folders_written()}
        for place, (name, _, folder) in outputs.items():
            if place in written:
                mistakes.append(recipe.mistake((name,), f"{folder}: an earlier recipe of this run writes there too."))
        written |= {place: (stage, folder) for place, (_, stage, folder) in outputs.items()}
        if isinstance(root := getattr(recipe.settings, "output", None), Place):
            roots.append(absolute(root))
            outputs.setdefault(absolute(root), ("output", "", root))
        mistakes += _taken(recipe, outputs, inputs)
    return mistakes


def _twice(recipe: LoadedRecipe) -> Iterator[Mistake]:
    """Yield the outputs of a recipe that are another output of it."""
    names: dict[str, str] = {}
    for name, _, folder in recipe.settings.folders_written():
        other = names.setdefault(absolute(folder), name)
        if other != name:
            yield recipe.mistake((name,), f"{folder}: {other} is this folder too. Give each a folder of its own.")


def _taken(
    recipe: LoadedRecipe, outputs: Mapping[str, tuple[str, str, Place]], inputs: Collection[str]
) -> Iterator[Mistake]:
    """Yield the outputs that would replace something else: an input of the recipe, or another stage's folder."""
    for place, (name, stage, folder) in outputs.items():
        there = _stage_in(folder)
        if place in inputs:
            yield recipe.mistake((name,), f"{folder}: the recipe reads this folder. Choose another output.")
        elif there is not None and there != stage:
            yield recipe.mistake((name,), f"{folder}: holds stage {there!r} already. Choose another output.")


def _misplaced(recipe: LoadedRecipe) -> Iterator[Mistake]:
    """Yield the folders that must lie on a disk and were given a store's URL: as a path it means a folder `s3:`."""
    for name, _, folder in (*recipe.settings.folders_read(), *recipe.settings.folders_written()):
        protocol, colon, rest = str(folder).partition(":/")
        if is_local(folder) and colon and protocol in PROTOCOLS:
            message = f"{protocol}://{rest}: must lie on a disk, not in a store. Choose a local folder."
            yield recipe.mistake(location_of(name), message)


def _stage_in(folder: Place) -> str | None:
    """Return the stage whose finished folder this is, or None. Raises InputError where a store does not tell."""
    try:
        return str(json.loads(read_bytes(folder / "manifest.json"))["stage"])
    except FileNotFoundError:
        return None
    except OSError as error:
        if not is_local(folder):
            raise InputError(f"{folder}: {error.strerror}.") from None
        return None
    except (ValueError, KeyError, TypeError):
        return None
