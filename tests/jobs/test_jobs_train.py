"""Training on trained backbones: what a recipe's check says, what a run leaves, and when it is done again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs_model import MODEL_SETTINGS, WORDS, DoneHere, document, runner, write_shards
from model_backbones import save_language, save_vision
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from carnac.core.errors import RunError
from carnac.jobs.models import fitted_pictures, open_model
from carnac.jobs.train import TrainRecipe, check, run
from carnac.model.added_tokens import added_ids_of
from carnac.sequence.normalisation import CLIP, HALF, Normalisation
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder
from carnac.sequence.settings import PictureSettings

TRAINING = {"steps": 3, "threads": 1, "optimizer": {"learning_rate": 3e-3}, "schedule": {"warmup_steps": 1}}
PICTURES = {"size_px": 32, "patch_px": 8, "max_tiles": 2, "marks": "idefics3"}


def save_tokenizer(folder: Path) -> int:
    """Write another model's tokenizer into `folder` and return its number of tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([WORDS], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    return int(tokenizer.get_vocab_size())


def trained_settings(tmp_path: Path) -> dict[str, Any]:
    return {
        "vision": {"folder": tmp_path / "vision"},
        "connector": {"type": "pixel_shuffle", "factor": 2},
        "language": {"folder": tmp_path / "language"},
        "trained": ("connector", "added_tokens"),
    }


def make_recipe(tmp_path: Path, **fields: Any) -> TrainRecipe:
    told = {
        "job": "train",
        "shards": tmp_path / "shards",
        "plan": tmp_path / "plan",
        "output": tmp_path / "model",
        "pictures": PICTURES,
        "mix": {"row_tokens": 128, "row_images": 10, "rows_per_batch": 2},
        "training": TRAINING,
        "tokenizer": {"folder": tmp_path / "language"},
        "model": trained_settings(tmp_path),
        **fields,
    }
    return TrainRecipe.model_validate(told)


@pytest.fixture
def backbones(tmp_path: Path) -> Path:
    """Return a folder with a trained tower, a trained language model with its tokenizer, and shards."""
    save_vision(tmp_path / "vision", "siglip")
    (tmp_path / "language").mkdir()
    rows = save_tokenizer(tmp_path / "language") + 2  # a table padded by two rows
    save_language(tmp_path / "language", vocab_size=rows, tie_word_embeddings=True)
    write_shards(tmp_path / "shards", [document(number) for number in range(6)])
    return tmp_path


@pytest.mark.usefixtures("done")
def test_a_model_of_trained_backbones_leaves_them_as_they_were(backbones: Path) -> None:
    recipe = make_recipe(backbones)
    assert check(recipe) == []
    run(recipe, runner()[0])
    opened = open_model(backbones / "model")
    assert opened.inputs.pictures == PictureSettings.model_validate({**PICTURES, "tokens": 4})
    words = read_tokenizer_folder(backbones / "language", recipe.pictures)
    assert added_ids_of(opened.model.language) == words.added_ids == opened.tokenizer.added_ids
    assert len(words.added_ids) == 9  # image, padding, three marks and four places of tiles


@pytest.mark.usefixtures("done")
def test_frozen_backbones_are_the_folders_to_the_bit_and_the_rest_is_trained(backbones: Path) -> None:
    from transformers import AutoModelForCausalLM, SiglipVisionModel

    recipe = make_recipe(backbones)
    run(recipe, runner()[0])
    model = open_model(backbones / "model").model
    language: Any = AutoModelForCausalLM.from_pretrained(backbones / "language")
    vision: Any = SiglipVisionModel.from_pretrained(backbones / "vision")
    ours = {name.replace(".base.", "."): each for name, each in model.language.named_parameters()}
    assert all(torch.equal(ours[name], each) for name, each in language.named_parameters())
    assert all(torch.equal(vision.state_dict()[name], each) for name, each in model.vision.state_dict().items())


def test_a_finished_run_stays_and_another_backbone_is_another_run(backbones: Path, done: DoneHere) -> None:
    recipe = make_recipe(backbones)
    run(recipe, runner()[0])
    first = (backbones / "model" / "model.safetensors").read_bytes()
    done.units.clear()
    run(recipe, runner()[0])
    assert done.units == []
    assert (backbones / "model" / "model.safetensors").read_bytes() == first
    save_vision(backbones / "vision", "siglip", layer_norm_eps=1e-5)
    with pytest.raises(RunError, match="made by another run"):
        run(recipe, runner()[0])
    shutil.rmtree(backbones / "vision")
    shutil.rmtree(backbones / "language")
    assert open_model(backbones / "model").model.tokens_per_image == 4


@pytest.mark.usefixtures("done")
def test_an_own_tokenizer_adds_no_rows_and_no_settings(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", [document(number) for number in range(6)])
    pictures = {"size_px": 32, "patch_px": 16}
    model = MODEL_SETTINGS.model_dump()
    recipe = make_recipe(tmp_path, pictures=pictures, model=model, tokenizer={"vocabulary_size": 320})
    assert check(recipe) == []
    run(recipe, runner()[0])
    opened = open_model(tmp_path / "model")
    assert added_ids_of(opened.model.language) == ()
    assert opened.inputs.pictures.tokens is None


def sizes(**fields: Any) -> dict[str, Any]:
    return {"pictures": {**PICTURES, **fields}}


CASES: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "another patch": (
        sizes(patch_px=16),
        ("model", "vision", "folder"),
        "patch_size is 8, but pictures.patch_px is 16",
    ),
    "counted by hand": (sizes(tokens=16), ("pictures", "tokens"), "the connector makes 4 tokens of a square, not 16"),
    "short rows": ({"mix": {"row_tokens": 30}}, ("mix", "row_tokens"), "a row has 30 positions, but a picture takes 3"),
    "few squares": ({"mix": {"row_images": 4}}, ("mix", "row_images"), "a row has 4 images, but a picture is up to 5"),
    "long rows": ({"mix": {"row_tokens": 512}}, ("model", "language", "folder"), "256 positions, but a row has 512"),
    "no tokenizer": ({"tokenizer": {}}, ("model", "language", "folder"), "set tokenizer.folder"),
    "llava of tiles": ({"export": "llava"}, ("pictures", "max_tiles"), "the llava format cannot express this model"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_said_before_training(backbones: Path, case: str) -> None:
    fields, place, words = CASES[case]
    found = check(make_recipe(backbones, **fields))
    assert [(place, words in sentence) for place, sentence in found if place == CASES[case][1]] == [(place, True)]


def test_a_format_that_can_express_the_model_says_nothing(backbones: Path) -> None:
    assert check(make_recipe(backbones, export="idefics3")) == []


@pytest.mark.usefixtures("done")
def test_pictures_are_normalised_as_the_tower_was_trained(backbones: Path) -> None:
    shutil.rmtree(backbones / "vision")
    save_vision(backbones / "vision", "clip")
    (backbones / "vision" / "preprocessor_config.json").write_text(
        '{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2}'
    )
    settings = {**trained_settings(backbones), "connector": {"type": "mlp"}}
    recipe = make_recipe(backbones, model=settings)
    run(recipe, runner()[0])
    pictures = open_model(recipe.output).inputs.pictures
    assert (pictures.mean, pictures.std, pictures.resample) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")


@pytest.mark.parametrize(("kind", "normalisation"), [("clip_vision_model", CLIP), ("siglip_vision_model", HALF)])
def test_pictures_of_random_towers_are_normalised_as_their_family(kind: str, normalisation: Normalisation) -> None:
    model = MODEL_SETTINGS.model_copy(update={"vision": MODEL_SETTINGS.vision.model_copy(update={"type": kind})})
    pictures = fitted_pictures(PictureSettings(size_px=32, patch_px=16), model)
    assert (pictures.mean, pictures.std) == (normalisation.mean, normalisation.std)
