"""What is wrong with a sweep: each variant is checked as the train recipe that it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from carnac.jobs import train_check
from carnac.jobs.sweep_recipe import CHANGED, SEED, SweepRecipe, VariantSettings, changed_keys, data_of
from carnac.jobs.train_recipe import TrainRecipe
from carnac.recipe.explain import explain, location_of
from carnac.recipe.mistakes import did_you_mean
from carnac.recipe.source import Location, Source

Places = Mapping[str, Location]
EXAMPLES = {
    "tokenizer": "tokenizer.vocabulary_size",
    "pictures": "pictures.size_px",
    "mix": "mix.row_tokens",
    "model": "model.family",
    "training": "training.optimizer.learning_rate",
}


def check(sweep: SweepRecipe) -> list[tuple[Location, str]]:
    """Return every mistake once, where the sweep's recipe says it: in a variant, at the axis, in a table of all."""
    wrong = list(_keys(sweep))
    if wrong:
        return wrong
    found: dict[tuple[Location, str], None] = {}
    for variant in sweep.variants:
        places = changed_keys(sweep, variant)
        for value in sweep.values:
            for location, sentence in _mistakes(sweep, variant, value):
                place = _place(location, places)
                unknown = place == ("axis", "values") and sentence.startswith("unknown key")
                found.setdefault((("axis", "key") if unknown else place, sentence))
    return list(found)


def _keys(sweep: SweepRecipe) -> Iterator[tuple[Location, str]]:
    """Yield keys that no variant and no axis may change."""
    axis = None if sweep.axis is None else sweep.axis.key
    if axis is not None and (wrong := _not_to_change(axis)):
        yield ("axis", "key"), wrong
    for number, variant in enumerate(sweep.variants):
        for key in variant.changes:
            place = ("variant", number, "changes", key)
            if wrong := _not_to_change(key):
                yield place, wrong
            elif axis is not None and (f"{axis}.".startswith(f"{key}.") or f"{key}.".startswith(f"{axis}.")):
                yield place, f"the axis sets {axis} too; leave one of them out."


def _not_to_change(key: str) -> str | None:
    table, dot, _ = key.partition(".")
    if key == SEED or key.startswith("training.monitor"):
        return "is the same for all that is compared; the seeds are training.seed and those after it (num_seeds)."
    if table not in CHANGED:
        return f"wanted a dotted key in quotes that begins with a table.{did_you_mean(table, CHANGED)}"
    return None if dot else f'the whole table; wanted a dotted key in quotes, such as "{EXAMPLES[table]}".'


def _mistakes(sweep: SweepRecipe, variant: VariantSettings, value: float | None) -> Iterator[tuple[Location, str]]:
    """Yield (location in the train recipe, sentence)."""
    data = data_of(sweep, variant, value)
    try:
        recipe = TrainRecipe.model_validate_json(json.dumps(data), by_alias=True, by_name=False)
    except ValidationError as error:
        source = Source(path=Path("sweep"), data=data)
        for mistake in explain(source, data, TrainRecipe, error, frozenset()):
            yield location_of(mistake.key) if mistake.key else (), mistake.message
        return
    yield from train_check.check(recipe)


def _place(location: Location, places: Places) -> Location:
    """Return where the sweep says what a train recipe has at `location`."""
    for key, place in places.items():
        changed = location_of(key)
        shorter = min(len(changed), len(location))
        if location and changed[:shorter] == location[:shorter]:
            return place
    return location
