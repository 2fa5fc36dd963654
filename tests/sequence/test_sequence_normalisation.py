from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil, ViTImageProcessorPil, image_utils

from carnac.core.errors import InputError
from carnac.sequence.normalisation import CLIP, HALF, IMAGENET, fit_pictures, normalisation_of
from carnac.sequence.settings import PictureSettings


@pytest.mark.parametrize(
    ("model_type", "wanted"),
    [
        ("siglip_vision_model", HALF),
        ("siglip2_vision_model", HALF),
        ("idefics3_vision", HALF),
        ("vit", HALF),
        ("clip_vision_model", CLIP),
        ("dinov2", IMAGENET),
        ("dinov2_with_registers", IMAGENET),
        ("vit_mae", IMAGENET),
    ],
)
def test_families_are_normalised_as_they_were_trained(model_type: str, wanted: object) -> None:
    assert normalisation_of(model_type) is wanted
    fitted = fit_pictures(PictureSettings(), model_type=model_type)
    assert (fitted.mean, fitted.std) == (normalisation_of(model_type).mean, normalisation_of(model_type).std)


def test_the_constants_are_those_of_transformers() -> None:
    theirs = {name: list(value) for name, value in vars(image_utils).items() if name.endswith(("_MEAN", "_STD"))}
    assert list(CLIP.mean) == theirs["OPENAI_CLIP_MEAN"]
    assert list(CLIP.std) == theirs["OPENAI_CLIP_STD"]
    assert list(IMAGENET.mean) == theirs["IMAGENET_DEFAULT_MEAN"]
    assert list(IMAGENET.std) == theirs["IMAGENET_DEFAULT_STD"]


@pytest.mark.parametrize("processor", [CLIPImageProcessorPil, SiglipImageProcessorPil, ViTImageProcessorPil])
def test_a_folder_says_itself_how(processor: type, tmp_path: Path) -> None:
    processor(image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    fitted = fit_pictures(PictureSettings(), folder=tmp_path)
    assert fitted.mean == (0.1, 0.2, 0.3)
    assert list(fitted.std) == list(processor().image_std)
    assert fitted.resample == {2: "bilinear", 3: "bicubic"}[int(processor().resample)]
    assert fit_pictures(PictureSettings(resample="lanczos"), folder=tmp_path).resample == "lanczos"


def test_a_processor_file_of_transformers_5_is_read_too(tmp_path: Path) -> None:
    inner = {"image_mean": [0, 0.5, 1], "image_std": [1, 1, 1]}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inner, "image_seq_len": 4}))
    fitted = fit_pictures(PictureSettings(), model_type="clip_vision_model", folder=tmp_path)
    assert (fitted.mean, fitted.std) == ((0.0, 0.5, 1.0), (1.0, 1.0, 1.0))


def test_without_a_preprocessor_file_the_family_of_the_folder_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    assert fit_pictures(PictureSettings(), folder=tmp_path).mean == IMAGENET.mean


def test_what_the_recipe_says_stays() -> None:
    given = PictureSettings(mean=(0.0, 0.0, 0.0))
    assert given.normalisation == "given"
    assert fit_pictures(given, model_type="clip_vision_model") is given


def test_fitted_pictures_are_not_fitted_again() -> None:
    fitted = fit_pictures(PictureSettings(), model_type="clip_vision_model")
    assert fit_pictures(fitted, model_type="dinov2") == fitted
    assert PictureSettings.model_validate_json(fitted.model_dump_json()) == fitted


def test_a_recipe_with_every_default_spelled_out_still_leaves_it_to_the_tower() -> None:
    kept = PictureSettings.model_validate_json(PictureSettings().model_dump_json(exclude_none=True))
    assert fit_pictures(kept, model_type="clip_vision_model").mean == CLIP.mean


def test_two_normalisations_are_a_contradiction() -> None:
    with pytest.raises(ValueError, match="normalisation = tower takes mean and std from the vision tower, but std is"):
        PictureSettings(normalisation="tower", std=(1.0, 1.0, 1.0))


def test_without_any_tower_pictures_are_normalised_by_halves() -> None:
    assert fit_pictures(PictureSettings()).mean == HALF.mean


@pytest.mark.parametrize(
    "content",
    ["{", '{"image_mean": [1, 2], "image_std": [1, 1, 1]}', '{"image_mean": [0, 0, 0], "image_std": ["a", 1, 1]}'],
)
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(content)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"preprocessor_config\.json: (cannot be read|image_mean and image_std)"):
        fit_pictures(PictureSettings(), folder=tmp_path)
    with pytest.raises(InputError, match=r"config\.json: cannot be read \(No such file or directory\)"):
        fit_pictures(PictureSettings(), folder=tmp_path / "nothing")
