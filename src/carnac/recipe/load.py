"""Recipes to settings: validation that finds every mistake at once (`explain` says where it is).

Which job takes which settings is told by the caller (`models`): this floor knows no stage.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from carnac.core.errors import RecipeError
from carnac.recipe.explain import dotted, explain, location_of, mistake_at, models_at, names_at
from carnac.recipe.mistakes import Mistake, did_you_mean, shown
from carnac.recipe.settings import Recipe
from carnac.recipe.source import Location, Source, read_source

Overrides = Mapping[Location, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRecipe:
    """A recipe that holds no mistake of its own."""

    source: Source
    settings: Recipe
    overridden: frozenset[Location]

    def mistake(self, location: Location, message: str) -> Mistake:
        """Return a mistake at `location` of this recipe."""
        return mistake_at(self.source, location, message, self.overridden)


def parse_overrides(pairs: Sequence[str]) -> dict[Location, Any]:
    """Read `key=value` pairs of the command line; a value is TOML, or else a bare string. Raises RecipeError."""
    overrides: dict[Location, Any] = {}
    mistakes = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            message = f"got {shown(pair)}, wanted key=value, such as training.steps=20."
            mistakes.append(Mistake(where="--set", line=None, key="", message=message))
            continue
        try:
            read = tomllib.loads(f"value = {text}")
            value = read["value"] if len(read) == 1 else text
        except (tomllib.TOMLDecodeError, KeyError, RecursionError):
            value = text
        overrides[location_of(key.strip())] = value
    if mistakes:
        raise RecipeError(mistakes)
    return overrides


def load_recipes(
    paths: Sequence[Path], models: Mapping[str, type[Recipe]], overrides: Overrides
) -> tuple[list[LoadedRecipe], list[Mistake]]:
    """Load recipes; return the good ones and the mistakes of all.

    An override is applied to every recipe whose settings know its key; one that none knows is a mistake.
    """
    loaded: list[LoadedRecipe] = []
    mistakes: list[Mistake] = []
    met: dict[str, type[Recipe]] = {}
    unread = False
    for path in paths:
        try:
            source = read_source(path)
            model = _model_of(source, models)
        except RecipeError as error:
            mistakes += [mistake for mistake in error.mistakes if isinstance(mistake, Mistake)]
            unread = True
            continue
        met[source.data["job"]] = model
        mine = {location: value for location, value in overrides.items() if _knows(model, location)}
        data = _beside_recipe(source.data, path.parent)
        for location, value in mine.items():
            if not _put(data, location, _beside_recipe(value, path.parent)):
                mistakes.append(_override_mistake(location, f"{path} has no such entry to override."))
        try:
            settings = model.model_validate_json(json.dumps(data), by_alias=True, by_name=False)  # one spelling per key
        except ValidationError as error:
            mistakes += explain(source, data, model, error, frozenset(mine))
            continue
        loaded.append(LoadedRecipe(source=source, settings=settings, overridden=frozenset(mine)))
    for location in overrides:
        # A recipe that could not be read may know the key.
        if not unread and not any(_knows(model, location) for model in met.values()):
            mistakes.append(_override_mistake(location, f"no recipe of this run has this key.{_hint(met, location)}"))
    return loaded, mistakes


def _model_of(source: Source, models: Mapping[str, type[Recipe]]) -> type[Recipe]:
    job = source.data.get("job")
    if isinstance(job, str) and job in models:
        return models[job]
    if job is None:
        message = f"missing; every recipe names its job, one of: {', '.join(models)}."
    else:
        message = f"got {shown(job)}, wanted the name of a job.{did_you_mean(str(job), models)}"
    raise RecipeError([Mistake(where=str(source.path), line=source.line(("job",)), key="job", message=message)])


def _override_mistake(location: Location, message: str) -> Mistake:
    return Mistake(where="--set", line=None, key=dotted(location), message=message)


def _hint(models: Mapping[str, type[Recipe]], location: Location) -> str:
    """Return the word that was meant by the first part of an override's key that no recipe knows."""
    for depth, part in enumerate(location):
        known = {name for model in models.values() for name in names_at(model, location[:depth])}
        if isinstance(part, str) and part not in known:
            return did_you_mean(part, known)
    return ""


def _knows(model: type[BaseModel], location: Location) -> bool:
    owners = models_at(model, location[:-1])
    if any(location[-1] in (name, field.alias) for table in owners for name, field in table.model_fields.items()):
        return True
    parents = models_at(model, location[:-2]) if len(location) > 1 else []
    # A free table (such as a tower's config) takes any key; whoever owns it checks the key.
    return any(
        location[-2] in (name, field.alias) and get_origin(field.annotation) is dict
        for table in parents
        for name, field in table.model_fields.items()
    )


def _beside_recipe(value: Any, folder: Path) -> Any:
    """Resolve `recipe://x` to x in the recipe's folder; other relative paths mean the working folder."""
    if isinstance(value, dict):
        return {key: _beside_recipe(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_beside_recipe(item, folder) for item in value]
    if isinstance(value, str):
        return str(folder / value.removeprefix("recipe://")) if value.startswith("recipe://") else value
    # Dates are the one kind of TOML value that no setting takes: as text they meet the message of the field's type.
    return value if isinstance(value, bool | int | float) else str(value)


def _put(data: Any, location: Location, value: Any) -> bool:
    """Put `value` at `location`, opening tables on the way; return False where a list has no such entry."""
    for part, following in itertools.pairwise(location):
        if isinstance(data, dict) and (str(part) in data or isinstance(following, str)):
            data = data.setdefault(str(part), {})
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return False
    last = location[-1]
    if isinstance(data, dict):
        data[str(last)] = value
        return True
    return False
