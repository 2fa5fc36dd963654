"""What is wrong with a train recipe beyond its single values: between its tables, its stages, its model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carnac.core.errors import InputError
from carnac.jobs.train_recipe import StageSettings, TrainRecipe, TrainStage, fit_tokens, mixture_mistake, stages_of
from carnac.jobs.train_start import Start, read_start
from carnac.model.settings import ModelSettings, TowerSettings
from carnac.recipe.mistakes import did_you_mean
from carnac.recipe.source import Location
from carnac.sequence.pixels import image_tokens
from carnac.sequence.settings import PictureSettings, TokenizerSettings

if TYPE_CHECKING:
    from carnac.model.formats import FormatName

Found = Iterator[tuple[Location, str]]


def check(recipe: TrainRecipe) -> list[tuple[Location, str]]:
    """Return what only transformers' own configurations can tell, and what does not fit between the tables."""
    mistakes = [*_check_watching(recipe), *_check_names(recipe)]
    start: Start | None = None
    if recipe.model is not None:
        wrong = list(_check_model(recipe, recipe.model))
        mistakes += [*wrong, *_check_tokenizer(recipe, recipe.model)]
        if recipe.export is not None and not wrong:
            mistakes += _check_export(recipe, recipe.model, recipe.export)
    elif recipe.init_from is not None and (recipe.init_from / "config.json").is_file():
        try:
            start = read_start(recipe.init_from)
        except InputError as error:
            mistakes.append((("init_from",), str(error)))
        else:
            mistakes += _check_start(recipe, start)
    model = start.settings if start else recipe.model
    return mistakes if model is None else mistakes + list(_check_stages(recipe, model, start))


def _check_watching(recipe: TrainRecipe) -> Found:
    """Yield what does not fit between what is looked at and what there is to look at."""
    from carnac.train.tensorboard import MISSING, is_installed

    monitor = recipe.training.monitor
    if monitor.evaluation_every_steps is not None and recipe.heldout is None:
        yield ("training", "monitor", "evaluation_every_steps"), "needs held-out samples; set heldout, or leave it out."
    if monitor.evaluation_every_steps is None and recipe.heldout is not None:
        yield ("heldout",), "is never looked at; set training.monitor.evaluation_every_steps, or leave it out."
    if monitor.tensorboard and not is_installed():
        yield ("training", "monitor", "tensorboard"), MISSING


def _check_names(recipe: TrainRecipe) -> Found:
    """Yield stages of one name and weights of no source; the paths that a stage's output would replace."""
    sources = [source.name for source in recipe.mixed]
    names = [stage.name for stage in recipe.stages]
    for number, stage in enumerate(recipe.stages):
        if stage.name in names[:number]:
            yield ("stage", number, "name"), f"an earlier stage is called {stage.name} too."
        for name in stage.weights or {}:
            if name not in sources:
                yield ("stage", number, "weights", name), f"no source of this recipe.{did_you_mean(name, sources)}"
    start = recipe.init_from
    if start is not None:
        for name in ("plan", "output"):
            folder = getattr(recipe, name)
            if start.absolute().is_relative_to(folder.absolute()):
                message = f"lies in {name} ({folder}), which this run replaces; choose another {name}."
                yield ("init_from",), message


def _check_model(recipe: TrainRecipe, model: ModelSettings) -> Found:
    from carnac.model.check import check_model
    from carnac.model.towers import known_config

    pictures = recipe.pictures
    native = pictures.aspect == "native"
    wrong = check_model(model, pictures.size_px, native_aspect=native, max_tiles=_most_tiles(recipe, pictures))
    for place, sentence in wrong:
        yield ("model", *place), sentence
    try:
        if not wrong:
            model.over(known_config("language", model.language))
    except InputError as error:
        yield ("model", "connector", "hidden_like_language"), str(error)


def _most_tiles(recipe: TrainRecipe, pictures: PictureSettings) -> int:
    """Return the tiles along a picture's longest side in the stage that has most."""
    return max([pictures.max_tiles, *(stage.max_tiles or 1 for stage in recipe.stages)])


def _check_start(recipe: TrainRecipe, start: Start) -> Found:
    """Yield what a recipe says beside init_from although the model brings it: it would be passed over."""
    from carnac.model.check import check_model

    # A kept recipe spells out every default: those are no contradiction.
    if recipe.tokenizer != TokenizerSettings():
        yield ("tokenizer",), f"the model of init_from ({start.folder}) brings its own; leave [tokenizer] out."
    patch_px = start.pictures.patch_px
    if "patch_px" in recipe.pictures.model_fields_set and recipe.pictures.patch_px != patch_px:
        message = f"the tower of init_from ({start.folder}) has patches of {patch_px} px; leave it out."
        yield ("pictures", "patch_px"), message
    aspect = start.pictures.aspect
    if "aspect" in recipe.pictures.model_fields_set and recipe.pictures.aspect != aspect:
        message = f"the tower of init_from ({start.folder}) was trained with aspect = {aspect}; leave it out."
        yield ("pictures", "aspect"), message
    tiles = _most_tiles(recipe, recipe.pictures if "max_tiles" in recipe.pictures.model_fields_set else start.pictures)
    for place, sentence in check_model(start.settings, max_tiles=tiles):
        if place[0] == "cross_attention":  # what else its settings say, training has proved
            yield ("init_from",), sentence


@dataclass(slots=True)
class _Places:
    """Where a recipe says the value that a stage has: in the last stage so far that says it, else in the tables."""

    said: dict[str, Location] = field(default_factory=dict)

    def enter(self, number: int, stage: StageSettings) -> None:
        self.said |= {name: ("stage", number, name) for name in stage.model_fields_set}

    def of(self, table: str, name: str) -> Location:
        return self.said.get(name, (table, name) if table else (name,))


def _check_stages(recipe: TrainRecipe, model: ModelSettings, start: Start | None) -> Found:
    """Yield what does not fit in each stage: its parts, its sources, its sizes."""
    try:
        pictures = fit_tokens(start.shown(recipe.pictures), model) if start else recipe.pictures
        stages = stages_of(recipe, pictures, model)
    except ValueError as error:
        if start is not None or recipe.stages:  # of [model] alone, its own check says it
            yield (("stage",) if recipe.stages else ("pictures", "size_px")), f"a stage's squares: {error}"
        return
    places, settings = _Places(), model
    for number, stage in enumerate(stages):
        told = recipe.stages[number] if recipe.stages else None
        if told is not None:
            places.enter(number, told)
            yield from _check_parts(number, stage, settings)
            settings = _parts_after(stage, settings)
        if wrong := mixture_mistake(stage.sources):
            yield places.of("", "weights"), wrong
        yield from _check_sizes(recipe, stage, start, places)


def _check_parts(number: int, stage: TrainStage, before: ModelSettings) -> Found:
    """Yield what cannot be trained together."""
    from carnac.model.check import check_trained

    if stage.merge and before.adapters is None:
        yield ("stage", number, "merge_adapters"), "no stage before has adapters; leave it out."
    for place, sentence in check_trained(_parts_after(stage, before)):
        yield ("stage", number, *place), sentence


def _parts_after(stage: TrainStage, before: ModelSettings) -> ModelSettings:
    """Return what a stage makes of the settings before it: what is trained, which adapters there are."""
    merged = stage.merge or stage.adapters is not None
    adapters = stage.adapters if merged else before.adapters
    return before.model_copy(update={"trained": stage.trained, "adapters": adapters})


def _check_sizes(recipe: TrainRecipe, stage: TrainStage, start: Start | None, places: _Places) -> Found:
    """Yield what does not fit between pictures, rows and the two backbones."""
    pictures, longest = stage.pictures, start.longest if start else None
    if recipe.model is not None:
        from carnac.model.check import num_features_of
        from carnac.model.towers import max_positions, patch_px

        vision, language = recipe.model.vision, recipe.model.language
        patch = patch_px(vision)
        if patch is not None and patch != pictures.patch_px:
            message = (
                f"the tower's patch_size is {patch}, but pictures.patch_px is {pictures.patch_px}; make them equal."
            )
            yield ("model", "vision", *_place(vision, "patch_size")), message
        features = num_features_of(vision, pictures.size_px)
        made = None if features is None else _tokens_made(recipe.model, features)
        if None not in (made, pictures.tokens) and made != pictures.tokens:
            message = f"the connector makes {made} tokens of a square, not {pictures.tokens}; leave it out."
            yield ("pictures", "tokens"), message
        pictures = pictures if made is None else pictures.model_copy(update={"tokens": made})
        longest = max_positions(language)
    side_px, mix = pictures.size_px * pictures.max_tiles, stage.mix
    tokens = image_tokens(side_px, side_px, pictures)
    if tokens > mix.row_tokens:
        message = f"a row has {mix.row_tokens} positions, but a picture takes {tokens}; wanted more."
        yield places.of("mix", "row_tokens"), message
    squares = pictures.max_tiles**2 + 1 if pictures.max_tiles > 1 else 1
    if 0 < mix.row_images < squares:
        message = f"a row has {mix.row_images} images, but a picture is up to {squares} squares; wanted as many."
        yield places.of("mix", "row_images"), message
    if longest is not None and longest < mix.row_tokens:
        message = f"{longest} positions, but a row has {mix.row_tokens} (mix.row_tokens); wanted as many."
        yield _longest_place(recipe), message


def _longest_place(recipe: TrainRecipe) -> Location:
    if recipe.model is None:
        return ("init_from",)
    return ("model", "language", *_place(recipe.model.language, "max_position_embeddings"))


def _place(tower: TowerSettings, name: str) -> Location:
    """Return where a recipe says what a field of a backbone's configuration is."""
    return ("config", name) if tower.type is not None else ("folder",)


def _tokens_made(model: ModelSettings, features: int) -> int | None:
    from carnac.model.check import square_places

    try:
        return square_places(model, features)
    except ValueError:
        return None  # a mistake of its own


def _check_tokenizer(recipe: TrainRecipe, model: ModelSettings) -> Found:
    language = model.language
    if language.type is None and recipe.tokenizer.folder is None:
        wanted = language.folder or f"a local folder with that of {language.hub}"
        message = f"a trained language model reads its own tokenizer's ids only; set tokenizer.folder to {wanted}."
        yield ("model", "language", "hub" if language.folder is None else "folder"), message


def _check_export(recipe: TrainRecipe, model: ModelSettings, name: FormatName) -> Found:
    """Yield why the format that the recipe names cannot express its model; a hub is not asked."""
    from carnac.model.formats import refusals
    from carnac.model.formats.description import describe_settings
    from carnac.model.towers import tower_config, trained_config, vision_config

    vision, language = model.vision, model.language
    if vision.hub is not None or language.hub is not None:
        return
    pictures = _last_pictures(recipe, model)
    text = tower_config("language", language, {}) if language.type else trained_config("language", language)
    native = pictures.aspect == "native"
    described = describe_settings(
        model.over(text), vision_config(vision, pictures.size_px, native_aspect=native), text, pictures
    )
    yield from refusals(name, described)


def _last_pictures(recipe: TrainRecipe, model: ModelSettings) -> PictureSettings:
    """Return what the finished model is shown."""
    try:
        return stages_of(recipe, recipe.pictures, model)[-1].pictures
    except ValueError:
        return recipe.pictures  # a mistake of its own
