"""What a sweep recipe says, and the train recipes that it comes to. Read by `carnac check`: no torch here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from carnac.core.places import Folder
from carnac.jobs.train_recipe import TrainRecipe
from carnac.mix.settings import MixSettings, SourceSettings
from carnac.model.settings import ModelSettings
from carnac.recipe.explain import location_of
from carnac.recipe.settings import Reads, Recipe, Settings, ShardsFolder, Writes
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.train.settings import TrainSettings

Measure = Literal["loss", "heldout_loss", "image_gain", "earlier_change", "earlier_gain", "packed_change"]
# The tables of a train recipe that a sweep has too, and those that a variant may change.
SHARED = (
    "shards",
    "sources",
    "heldout",
    "plan",
    "output",
    "tokenizer",
    "pictures",
    "mix",
    "model",
    "training",
    "limit",
)
CHANGED = ("tokenizer", "pictures", "mix", "model", "training")
SEED = "training.seed"


class VariantSettings(Settings):
    """One of the things that are compared: the recipe's tables with some settings changed."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9_-]*$", description="what its runs are called")
    changes: dict[str, JsonValue] = Field(
        default_factory=dict,
        description='settings that are otherwise than in the tables, by dotted keys in quotes: "model.family" = ...; a '
        "table replaces the whole table",
    )


class AxisSettings(Settings):
    """A number that is tried at several values, for every variant."""

    key: str = Field(description="dotted key of the setting, such as training.optimizer.learning_rate")
    values: tuple[float, ...] = Field(strict=False, min_length=1, description="its values, rising")
    label: str | None = Field(default=None, description="what figure and sentences call it; left out, its key")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if sorted(set(self.values)) != list(self.values):
            raise ValueError("its values do not rise; write each once, the least first.")
        return self


class SweepRecipe(Recipe):
    """Settings of the job `sweep`."""

    job: Literal["sweep"] = Field(description="the job that this recipe describes")
    shards: Annotated[Folder | None, Reads("shards")] = Field(
        default=None, description="folder of the training shards, where there is one source; else [[source]] tables"
    )
    sources: tuple[SourceSettings, ...] = Field(
        default=(), alias="source", strict=False, description="what is mixed: [[source]] tables"
    )
    heldout: ShardsFolder = Field(description="folder of held-out shards, on which every run is measured at its end")
    plan: Annotated[Path, Writes("plan")] = Field(description="folder for the tokenizer, the pieces and the plan")
    output: Annotated[Path, Writes("sweep")] = Field(
        description="folder for the runs, sweep.json, sweep.png and index.html"
    )
    tokenizer: TokenizerSettings = Field(default=TokenizerSettings(), description="the tokenizer")
    pictures: PictureSettings = Field(default=PictureSettings(), description="what the vision tower is shown")
    mix: MixSettings = Field(default=MixSettings(), description="rows and batches")
    model: ModelSettings = Field(description="the model, which the variants change")
    training: TrainSettings = Field(description="each of the training runs")
    variants: tuple[VariantSettings, ...] = Field(
        alias="variant", strict=False, min_length=1, description="what is compared, with the first: [[variant]] tables"
    )
    axis: AxisSettings | None = Field(default=None, description="a number that is tried at several values")
    num_seeds: int = Field(default=5, ge=1, description="runs of each kind, with seeds from training.seed on")
    broken_above: float | None = Field(
        default=None,
        gt=0,
        description="a run whose loss over its last tenth is above this (nats per token) counts as broken, as does one "
        "whose loss is not finite",
    )
    measures: tuple[Measure, ...] = Field(
        default=("heldout_loss",), strict=False, min_length=1, description="what is drawn and said, in this order"
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError(f"two variants are called {max(names, key=names.count)}; give each a name of its own.")
        if (self.shards is None) == (not self.sources):
            raise ValueError("wanted either shards (one folder) or [[source]] tables; got both or neither.")
        return self

    @property
    def values(self) -> tuple[float | None, ...]:
        """The values of the axis, (None,) without one."""
        return (None,) if self.axis is None else self.axis.values


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Runs that differ in their seeds alone."""

    variant: str
    value: float | None
    recipe: TrainRecipe

    @property
    def name(self) -> str:
        """What its runs are called, without their seed."""
        if self.value is None:
            return self.variant
        short = f"{self.value:g}"
        return f"{self.variant}-{short if float(short) == self.value else repr(self.value)}".replace("+", "")


def kinds_of(sweep: SweepRecipe) -> Iterator[Kind]:
    """Yield every variant at every value of the axis. Raises pydantic's ValidationError where one is no recipe."""
    for variant in sweep.variants:
        for value in sweep.values:
            data = data_of(sweep, variant, value)
            recipe = TrainRecipe.model_validate_json(json.dumps(data), by_alias=True, by_name=False)
            yield Kind(variant=variant.name, value=value, recipe=recipe)


def data_of(sweep: SweepRecipe, variant: VariantSettings | None = None, value: float | None = None) -> dict[str, Any]:
    """Return a train recipe's content as JSON: the sweep's tables, changed."""
    data = sweep.model_dump(mode="json", by_alias=True, exclude_unset=True, include=set(SHARED))
    data["job"] = "train"
    for key, changed in ({} if variant is None else variant.changes).items():
        put(data, key, changed)
    if sweep.axis is not None and value is not None:
        put(data, sweep.axis.key, int(value) if value.is_integer() else value)
    training = data["training"]
    if isinstance(training, dict):
        monitor = training.get("monitor") or {}
        # Every run is measured at its end; what else is looked at meanwhile costs a third of a small run.
        every = monitor.get("evaluation_every_steps") or training.get("steps")
        training["monitor"] = {**monitor, "evaluation_every_steps": every, "grounding_every_steps": None}
    return data


def put(data: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key, opening tables on the way; what is no table there is replaced."""
    *way, last = map(str, location_of(key))
    for part in way:
        inside = data.get(part)
        if not isinstance(inside, dict):
            inside = data[part] = {}
        data = inside
    data[last] = value


def changed_keys(sweep: SweepRecipe, variant: VariantSettings) -> Mapping[str, tuple[str | int, ...]]:
    """Return what a variant and the axis change, by dotted key, with the place in the sweep recipe that says so."""
    number = sweep.variants.index(variant)
    found: dict[str, tuple[str | int, ...]] = {key: ("variant", number, "changes", key) for key in variant.changes}
    if sweep.axis is not None:
        found[sweep.axis.key] = ("axis", "values" if len(sweep.axis.values) > 1 else "key")
    return found
