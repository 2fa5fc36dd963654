"""The sizes of the model that a train recipe describes, before anything of it exists. Behind `carnac show RECIPE`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from carnac.core.errors import InputError, RecipeError
from carnac.jobs import RecipeModels
from carnac.jobs.train import TrainRecipe
from carnac.recipe.load import load_recipes, parse_overrides
from carnac.sequence.marks import mark_names
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder

if TYPE_CHECKING:
    from carnac.model.describe import ModelSize
    from carnac.model.language import Vocabulary


def measure_recipe(path: Path, overrides: Sequence[str] = ()) -> ModelSize:
    """Return the sizes of the model of a train recipe; of trained backbones only the configurations are read.

    A tokenizer that is to be trained counts with the size asked for, which a small corpus may not fill. Raises
    RecipeError with every mistake of the recipe and its model, InputError for a recipe without a model.
    """
    from carnac.model.build import build_skeleton
    from carnac.model.check import check_model
    from carnac.model.describe import measure_model

    loaded, mistakes = load_recipes([path], RecipeModels(), parse_overrides(overrides))
    if mistakes:
        raise RecipeError(mistakes)
    recipe = loaded[0].settings
    if not isinstance(recipe, TrainRecipe):
        raise InputError(f"{path}: a recipe of job {recipe.job!r}; only those of job 'train' describe a model.")
    if recipe.model is None:
        raise InputError(f"{path}: starts from {recipe.init_from}; carnac show of that folder tells its sizes.")
    pictures, is_random = recipe.pictures, recipe.model.language.type is not None
    native = pictures.aspect == "native"
    found = check_model(recipe.model, pictures.size_px, native_aspect=native, max_tiles=pictures.max_tiles)
    if found:
        raise RecipeError([loaded[0].mistake(("model", *place), sentence) for place, sentence in found])
    vocabulary = _vocabulary(recipe, is_random=is_random)
    return measure_model(build_skeleton(recipe.model, vocabulary, pictures.size_px, native_aspect=native))


def _vocabulary(recipe: TrainRecipe, *, is_random: bool) -> Vocabulary:
    from carnac.model.language import Vocabulary

    if recipe.tokenizer.folder is None:
        return Vocabulary(size=recipe.tokenizer.vocabulary_size + len(mark_names(recipe.pictures)), pad_id=0)
    words = read_tokenizer_folder(recipe.tokenizer.folder, recipe.pictures)
    added = () if is_random else words.added_ids
    return Vocabulary(size=words.vocabulary_size, pad_id=words.pad, eos_id=words.end, added_ids=added)
