"""pydantic's errors in a recipe's words: where it is written, got, wanted, did you mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from carnac.recipe.mistakes import Mistake, did_you_mean, shown
from carnac.recipe.source import Location, Source

# pydantic speaks of JSON and Python, a recipe of TOML.
WORDS = {
    "an object": "a table",
    "a valid array": "a list",
    "a valid tuple": "a list",
    "a valid dictionary": "a table",
    "a valid boolean": "true or false",
    "a valid string": "a string",
    "a valid integer": "an integer",
    "a valid number": "a number",
}


def dotted(location: Location) -> str:
    """Return a location as it is shown: `pass.1.rules.0.min`."""
    return ".".join(str(part) for part in location)


def location_of(key: str) -> Location:
    """Return the location that `dotted` shows as `key`."""
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def mistake_at(source: Source, location: Location, message: str, overridden: frozenset[Location]) -> Mistake:
    """Return a mistake at the line of `location`, or at `--set` where an override put the value there."""
    if any(location[: len(key)] == key for key in overridden):
        return Mistake(where="--set", line=None, key=dotted(location), message=message)
    return Mistake(where=str(source.path), line=source.line(location), key=dotted(location), message=message)


def explain(
    source: Source, data: Any, model: type[BaseModel], error: ValidationError, overridden: frozenset[Location]
) -> list[Mistake]:
    """Return one mistake per place that `error` complains of, in the order of the file."""
    messages: dict[Location, str] = {}
    for detail in error.errors(include_url=False):
        location = _in_data(data, detail["loc"], detail["type"])
        if detail["type"].startswith("union_tag"):
            location = (*location, str(detail["ctx"]["discriminator"]).strip("'"))
        elif detail["type"] == "value_error" and location not in source.lines:
            # A table that only an override opened: the complaint about the whole of it is about the override.
            inside = [key for key in overridden if location and key[: len(location)] == location]
            location = min(inside, key=dotted, default=location)
        message = _sentence(model, location, detail)
        messages[location] = _joined(messages.get(location, message), message)
    mistakes = [mistake_at(source, location, message, overridden) for location, message in messages.items()]
    return sorted(mistakes, key=lambda mistake: (mistake.line or 0, mistake.key))


def _sentence(model: type[BaseModel], location: Location, detail: Mapping[str, Any]) -> str:
    kind, text = detail["type"], str(detail["msg"])
    got = shown(detail["input"])
    if kind == "missing":
        return f"missing. Wanted: {_description(model, location)}"
    if kind == "extra_forbidden":
        return f"unknown key.{did_you_mean(str(location[-1]), names_at(model, location[:-1]))}"
    if kind.startswith("union_tag"):
        tag = detail["ctx"].get("tag")
        start = "missing" if tag is None else f"got {shown(tag)}"
        return f"{start}, wanted one of: {', '.join(_tags_at(model, location))}."
    if text.startswith("Input should be "):
        wanted = text.removeprefix("Input should be ")
        if kind == "literal_error":
            wanted = "one of: " + wanted.replace(" or ", ", ").replace("'", "")
        return f"got {got}, wanted {WORDS.get(wanted, wanted)}."
    if found := re.fullmatch(r"\w+ should (have|match) (.+?)( after validation, not .*)?", text):
        return f"got {got}, wanted something {'with' if found[1] == 'have' else 'that matches'} {found[2]}."
    return text.removeprefix("Value error, ")


def _joined(one: str, other: str) -> str:
    """Join what the branches of a union want: the same place, the same value."""
    start, wanted, more = other.partition(", wanted ")
    if one == other or not wanted or not one.startswith(start + wanted):
        return one
    return f"{one.removesuffix('.')} or {more}"


def _description(model: type[BaseModel], location: Location) -> str:
    for table in models_at(model, location[:-1]):
        for name, field in table.model_fields.items():
            if location[-1] in (field.alias, name):
                return f"{(field.description or name).removesuffix('.')}."
    return f"a value for {location[-1]}."


def _in_data(data: Any, location: Sequence[str | int], kind: str) -> Location:
    """Drop from pydantic's location the tags of unions, which no recipe spells."""
    found: list[str | int] = []
    for position, part in enumerate(location):
        is_missing = kind == "missing" and position == len(location) - 1
        if isinstance(data, dict) and (part in data or is_missing):
            data = data.get(str(part))
        elif isinstance(data, list) and isinstance(part, int) and (part < len(data) or is_missing):
            data = data[part] if part < len(data) else None
        else:
            continue
        found.append(part)
    return tuple(found)


def names_at(model: type[BaseModel], location: Location) -> set[str]:
    """Return the keys that a recipe may write in the table at `location`."""
    return {field.alias or name for table in models_at(model, location) for name, field in table.model_fields.items()}


def _tags_at(model: type[BaseModel], location: Location) -> list[str]:
    """Return what the tag of a union may be: the literals of that field in each of its tables."""
    fields = [table.model_fields.get(str(location[-1])) for table in models_at(model, location[:-1])]
    return [str(choice) for field in fields if field is not None for choice in get_args(field.annotation)]


def models_at(model: type[BaseModel], location: Location) -> list[type[BaseModel]]:
    """Return the models that may stand at `location` (several where it is a union)."""
    models: list[type[BaseModel]] = [model]
    for part in location:
        if isinstance(part, int):
            continue
        models = [
            found
            for table in models
            for name, field in table.model_fields.items()
            if part in (name, field.alias)
            for found in _models_in(field.annotation)
        ]
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]
