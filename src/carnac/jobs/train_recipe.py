"""What a train recipe says, and the stages that it comes to. Read by `carnac check`: no torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from carnac.core.places import Folder, Place
from carnac.mix.settings import MixSettings, MixtureSettings, RampSettings, SourceSettings
from carnac.model.check import square_places
from carnac.model.settings import AdapterSettings, ModelSettings, Part
from carnac.recipe.settings import Reads, Recipe, Settings, Writes
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.train.run_folder import BEFORE
from carnac.train.settings import OptimizerSettings, ScheduleSettings, TrainSettings

ONLY_SOURCE = "shards"  # what metrics call the source of a recipe that names one folder


class StageSettings(Settings):
    """A stage of training: a run of its own with a fresh optimizer. What is left out is as in the stage before."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9_-]*$", description="what its folders are called")
    steps: int | None = Field(default=None, ge=1, description="number of steps")
    trained: tuple[Part, ...] | None = Field(default=None, strict=False, description="parts whose weights are trained")
    adapters: AdapterSettings | None = Field(
        default=None, description="new adapters; earlier ones are merged into the weights first"
    )
    merge_adapters: bool = Field(
        default=False, description="whether earlier adapters are merged into the weights first"
    )
    size_px: int | None = Field(default=None, ge=1, description="side of a square that the vision tower is shown")
    shortest_px: int | None = Field(
        default=None, ge=1, description="of native pictures: a shorter side is stretched to this"
    )
    max_tiles: int | None = Field(default=None, ge=1, le=6, description="tiles along a picture's longest side")
    row_tokens: int | None = Field(default=None, ge=2, description="positions of a row")
    row_images: int | None = Field(default=None, ge=0, description="images of a row at most")
    rows_per_batch: int | None = Field(default=None, ge=1, description="rows of a global batch")
    ramp: tuple[RampSettings, ...] = Field(
        default=(), strict=False, description="smaller batches at the beginning of the stage, as in [mix]"
    )
    weights: dict[str, float] | None = Field(
        default=None, description="weights by the names of the sources; a source that is left out is not mixed"
    )
    optimizer: OptimizerSettings | None = Field(default=None, description="the optimizer, the whole table")
    schedule: ScheduleSettings | None = Field(default=None, description="the learning rate, the whole table")

    @model_validator(mode="after")
    def _weights(self) -> Self:
        wrong = [name for name, weight in (self.weights or {}).items() if weight <= 0]
        if wrong:
            raise ValueError(f"the weight of {wrong[0]} is not above 0; leave the source out instead.")
        if self.weights == {}:
            raise ValueError("weights names no source; leave it out for those of the stage before.")
        return self


class TrainRecipe(Recipe):
    """Settings of the job `train`."""

    job: Literal["train"] = Field(description="the job that this recipe describes")
    shards: Annotated[Folder | None, Reads("shards")] = Field(
        default=None, description="folder of the training shards, where there is one source; else [[source]] tables"
    )
    sources: tuple[SourceSettings, ...] = Field(
        default=(), alias="source", strict=False, description="what is mixed: [[source]] tables"
    )
    heldout: Annotated[Folder | None, Reads("shards")] = Field(
        default=None, description="folder of held-out shards, looked at meanwhile (monitor.evaluation_every_steps)"
    )
    plan: Annotated[Path, Writes("plan")] = Field(description="folder for the tokenizer, the pieces and the plan")
    output: Annotated[Path, Writes("model")] = Field(description="folder for the model, its metrics and checkpoints")
    tokenizer: TokenizerSettings = Field(
        default=TokenizerSettings(), description="the tokenizer, trained on the shards"
    )
    pictures: PictureSettings = Field(default=PictureSettings(), description="what the vision tower is shown")
    mix: MixSettings = Field(default=MixSettings(), description="rows and batches")
    model: ModelSettings | None = Field(default=None, description="the model; or else init_from")
    init_from: Path | None = Field(
        default=None,
        description="a model to go on from instead of [model]: the output of a train recipe, one of its checkpoints, "
        "or an exported Idefics, Idefics2, Idefics3 or LLaVA folder",
    )
    training: TrainSettings = Field(description="the training run")
    stages: tuple[StageSettings, ...] = Field(
        default=(), alias="stage", strict=False, description="stages of training, one after another: [[stage]] tables"
    )
    export: Literal["idefics", "idefics2", "idefics3", "llava"] | None = Field(
        default=None, description="a format that the model is to be exported to later: check says what cannot be"
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.shards is None) == (not self.sources):
            raise ValueError("wanted either shards (one folder) or [[source]] tables; got both or neither.")
        if (self.model is None) == (self.init_from is None):
            raise ValueError("wanted either [model] or init_from; got both or neither.")
        if wrong := mixture_mistake(self.sources):
            raise ValueError(wrong)
        return self

    def folders_read(self) -> Iterator[tuple[str, str, Place]]:
        """Yield the folders of shards, and the model to start from unless it lies there, whoever made it."""
        yield from super().folders_read()
        if self.init_from is not None and not (self.init_from / "config.json").is_file():
            yield "init_from", "model", self.init_from

    @property
    def mixed(self) -> tuple[SourceSettings, ...]:
        """The sources, also where there is one folder only."""
        if self.shards is None:
            return self.sources
        return (SourceSettings(name=ONLY_SOURCE, shards=self.shards),)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStage:
    """A stage with all that it takes over from the one before; `name` is empty where there are no [[stage]] tables.

    `adapters` are new ones. `first_row` is the row of the plan where its batches begin: a stage whose rows are those of
    the one before goes on where that one ended.
    """

    name: str
    trained: tuple[Part, ...]
    adapters: AdapterSettings | None
    merge: bool
    pictures: PictureSettings
    mix: MixSettings
    sources: tuple[SourceSettings, ...]
    training: TrainSettings
    first_row: int
    plan: Path
    output: Path


def mixture_mistake(sources: tuple[SourceSettings, ...]) -> str | None:
    """Return what is wrong between sources, or None."""
    try:
        if sources:
            MixtureSettings(sources=sources)
    except ValidationError as error:
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    return None


def fit_tokens(pictures: PictureSettings, model: ModelSettings) -> PictureSettings:
    """Return `pictures` with the tokens that the connector makes of one of their squares.

    What the settings come to by themselves is not written. Raises ValueError where the connector cannot join them.
    """
    features = (pictures.size_px // pictures.patch_px) ** 2 + int(model.vision.class_token)
    made, bare = square_places(model, features), pictures.model_copy(update={"tokens": None})
    return bare if made == bare.square_tokens else bare.model_copy(update={"tokens": made})


def stages_of(recipe: TrainRecipe, pictures: PictureSettings, model: ModelSettings) -> list[TrainStage]:
    """Return the stages of a recipe in order; one without a name where it has no [[stage]] tables.

    `pictures` and `model` are what the first stage begins with. `recipe.limit` bounds each stage's steps. Raises
    ValueError where a stage's squares are not whole patches, or the connector cannot join their patches.
    """
    stage = TrainStage(
        name="",
        trained=model.trained,
        adapters=None,
        merge=False,
        pictures=pictures,
        mix=recipe.mix,
        sources=recipe.mixed,
        training=recipe.training,
        first_row=0,
        plan=recipe.plan,
        output=recipe.output,
    )
    if not recipe.stages:
        return [_settled(stage, recipe)]
    found: list[TrainStage] = []
    for number, told in enumerate(recipe.stages):
        before = stage.pictures
        stage = _settled(_changed(stage, told, recipe, last=number + 1 == len(recipe.stages)), recipe)
        if stage.pictures.size_px != before.size_px:
            stage = dataclasses.replace(stage, pictures=fit_tokens(stage.pictures, model))
        if found:
            stage = _continued(stage, found[-1])
        found.append(stage)
    return found


def _settled(stage: TrainStage, recipe: TrainRecipe) -> TrainStage:
    steps = min(stage.training.steps, recipe.limit or stage.training.steps)
    return dataclasses.replace(stage, training=stage.training.model_copy(update={"steps": steps}))


def _changed(before: TrainStage, told: StageSettings, recipe: TrainRecipe, *, last: bool) -> TrainStage:
    """Return the stage that `told` makes of the one before it."""
    shown = ("size_px", "shortest_px", "max_tiles")
    sizes = {name: getattr(told, name) for name in shown if getattr(told, name) is not None}
    names = ("row_tokens", "row_images", "rows_per_batch")
    mix: dict[str, object] = {name: getattr(told, name) for name in names if getattr(told, name) is not None}
    if before.name or told.ramp:
        mix["ramp"] = told.ramp  # that of [mix] is the beginning of the whole training
    training = {name: getattr(told, name) for name in ("optimizer", "schedule") if getattr(told, name) is not None}
    training["steps"] = told.steps or recipe.training.steps
    sources = before.sources
    if told.weights is not None:
        weights = told.weights
        named = (source for source in recipe.mixed if source.name in weights)
        sources = tuple(source.model_copy(update={"weight": weights[source.name]}) for source in named)
    return dataclasses.replace(
        before,
        name=told.name,
        trained=before.trained if told.trained is None else told.trained,
        adapters=told.adapters,
        merge=told.merge_adapters,
        pictures=before.pictures.changed(sizes),
        mix=before.mix.model_copy(update=mix),
        sources=sources,
        training=before.training.model_copy(update=training),
        plan=recipe.plan / told.name,
        output=recipe.output if last else recipe.output / BEFORE / told.name,
    )


def _continued(stage: TrainStage, before: TrainStage) -> TrainStage:
    """Let a stage that packs the same rows as the one before go on where that one ended: no row comes twice."""
    same = (
        stage.pictures == before.pictures
        and stage.sources == before.sources
        and stage.mix.affecting_rows() == before.mix.affecting_rows()
    )
    behind = before.first_row + before.mix.num_rows(before.training.steps)
    return dataclasses.replace(stage, first_row=behind if same else 0)
