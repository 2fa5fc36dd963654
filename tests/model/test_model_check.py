from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from model_backbones import save_language, save_vision
from model_builder import make_settings

from carnac.model.check import check_model, num_features_of
from carnac.model.settings import ModelSettings, TowerSettings, VisionSettings
from carnac.model.towers import max_positions, patch_px


def change(**changes: Any) -> ModelSettings:
    """Return sound settings with tables merged into them."""
    told = make_settings().model_dump()
    for name, value in changes.items():
        told[name] = {**told[name], **value} if isinstance(told[name], dict) and isinstance(value, dict) else value
    return ModelSettings.model_validate(told)


def replace(**changes: Any) -> ModelSettings:
    return ModelSettings.model_validate({**make_settings().model_dump(), **changes})


SHUFFLE = {"type": "pixel_shuffle", "factor": 2}
PERCEIVER = {"type": "perceiver", "heads": 16, "kv_heads": 5}


def test_sound_settings_have_no_mistakes() -> None:
    assert check_model(make_settings(), 32) == []
    assert check_model(replace(connector=SHUFFLE), 32) == []
    assert check_model(replace(trained=("connector",), adapters={"rank": 4}), 32) == []


@pytest.mark.parametrize(
    ("settings", "size_px", "place", "words"),
    [
        (replace(connector={**SHUFFLE, "factor": 3}), 32, ("connector", "factor"), "3 does not divide .* 2 x 2"),
        (replace(connector=PERCEIVER), 32, ("connector", "kv_heads"), "5 does not divide heads = 16"),
        (change(vision={"class_token": True}), 32, ("vision", "class_token"), "has no class token"),
        (change(vision={"feature_layer": 3}), 32, ("vision", "feature_layer"), "got 3, but .* has 2 layers"),
        (change(vision={"feature_layer": -4}), 32, ("vision", "feature_layer"), "got -4, but .* has 2 layers"),
        (replace(trained=()), 32, ("trained",), "nothing would be trained"),
        (replace(adapters={}), 32, ("adapters", "language"), "take language out of trained"),
        (replace(adapters={"language": ()}), 32, ("adapters",), "no layers are named"),
        (replace(trained=("vision",), adapters={"vision": ("q_proj",)}), 32, ("adapters", "vision"), "out of trained"),
        (replace(connector=SHUFFLE), 40, ("vision", "config", "patch_size"), "image_size 40 is not a multiple"),
    ],
)
def test_each_mistake_is_one_sentence_with_its_place(
    settings: ModelSettings, size_px: int, place: tuple[str, ...], words: str
) -> None:
    ((found, sentence),) = check_model(settings, size_px)
    assert found == place
    assert re.search(words, sentence)


CROSSING = {"family": "cross_attention", "connector": {"type": "resampler", "heads": 2, "head_size": 8}}


@pytest.mark.parametrize(
    ("settings", "tiles", "place", "words"),
    [
        (replace(connector=CROSSING["connector"]), 1, ("connector", "type"), "which only cross-attention can read"),
        (replace(**CROSSING), 2, ("cross_attention", "attend"), r"attend = previous a token reads one .*max_tiles = 2"),
        (replace(**CROSSING, cross_attention={"attend": "next"}), 3, ("cross_attention", "attend"), "attend = next"),
        (
            replace(**CROSSING, cross_attention={"attend": "earlier", "p_next": 0.5}),
            2,
            ("cross_attention", "p_next"),
            "p_next = 0.5 a token reads one",
        ),
        (replace(**CROSSING, cross_attention={"heads": 5}), 1, ("cross_attention", "heads"), "5 does not divide .* 48"),
    ],
)
def test_what_does_not_fit_the_family_is_one_sentence(
    settings: ModelSettings, tiles: int, place: tuple[str, ...], words: str
) -> None:
    ((found, sentence),) = check_model(settings, 32, max_tiles=tiles)
    assert found == place
    assert re.search(words, sentence)


def test_sound_settings_of_the_cross_attention_family_have_no_mistakes() -> None:
    assert check_model(replace(**CROSSING), 32) == []
    assert check_model(replace(**CROSSING, cross_attention={"attend": "earlier"}), 32, max_tiles=4) == []
    assert check_model(replace(family="cross_attention"), 32) == []


def test_a_class_token_makes_no_square() -> None:
    settings = replace(
        vision={"type": "clip_vision_model", "class_token": True, "config": {"patch_size": 16}}, connector=SHUFFLE
    )
    ((place, sentence),) = check_model(settings, 32)
    assert place == ("connector", "factor")
    assert "5 features are no square grid" in sentence


def test_trained_folders_are_checked_like_tables(tmp_path: Path) -> None:
    save_vision(tmp_path / "vision", "clip")
    save_language(tmp_path / "language", max_position_embeddings=77)
    vision, language = VisionSettings(folder=tmp_path / "vision"), TowerSettings(folder=tmp_path / "language")
    assert check_model(ModelSettings(vision=vision, language=language), 48) == []
    assert (patch_px(vision), num_features_of(vision, 48), max_positions(language)) == (8, 36, 77)
    ((place, sentence),) = check_model(ModelSettings(vision=vision, language=language), 50)
    assert place == ("vision", "folder")
    assert "50 is not a multiple of its patch_size 8" in sentence
    swapped = ModelSettings(vision=VisionSettings(folder=language.folder), language=TowerSettings(folder=vision.folder))
    found = check_model(swapped, 48)
    assert [place for place, _ in found] == [("vision", "folder"), ("language", "folder")]
    assert "square patches" in found[0][1]
    assert "no language model 'clip'" in found[1][1]


def test_a_folder_that_lacks_something_is_found_before_training(tmp_path: Path) -> None:
    save_vision(tmp_path / "vision", "siglip")
    (tmp_path / "vision" / "model.safetensors").rename(tmp_path / "vision" / "pytorch_model.bin")
    settings = ModelSettings(
        vision=VisionSettings(folder=tmp_path / "vision"), language=TowerSettings(folder=tmp_path / "nowhere")
    )
    (first, second) = check_model(settings, 32)
    assert (first[0], second[0]) == (("vision", "folder"), ("language", "folder"))
    assert "no weights in safetensors" in first[1]
    assert f"{tmp_path / 'nowhere'}: no config.json there" in second[1]


def test_layers_that_leak_are_found_in_a_folder(tmp_path: Path) -> None:
    save_language(tmp_path, "llama")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "qwen3_next"}))
    settings = ModelSettings(vision=make_settings().vision, language=TowerSettings(folder=tmp_path))
    ((place, sentence),) = check_model(settings, 32)
    assert place == ("language", "folder")
    assert "linear_attention" in sentence


def test_the_hub_is_never_asked_by_a_check() -> None:
    settings = ModelSettings(vision=VisionSettings(hub="no/such"), language=TowerSettings(hub="no/such"))
    assert check_model(settings, 32) == []
    assert num_features_of(settings.vision, 32) is None
    assert max_positions(settings.language) is None
