from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from model_builder import make_settings
from pydantic import ValidationError

from carnac.core.errors import InputError
from carnac.model.settings import (
    ConfigValue,
    GenerationSettings,
    ModelSettings,
    PixelShuffleSettings,
    TowerSettings,
    VisionSettings,
)
from carnac.model.towers import check_towers, configuration_class, own_fields, stored_fields, tower_config


def change(part: str, **fields: ConfigValue) -> ModelSettings:
    settings = make_settings()
    tower: TowerSettings = getattr(settings, part)
    return settings.model_copy(update={part: TowerSettings(type=tower.type, config=tower.config | fields)})


def retype(part: str, kind: str) -> ModelSettings:
    return make_settings().model_copy(update={part: TowerSettings(type=kind)})


def test_sound_settings_have_no_mistakes() -> None:
    assert check_towers(make_settings(), image_size_px=32) == []


@pytest.mark.parametrize(
    ("settings", "place", "words"),
    [
        (retype("language", "lama"), ("language", "type"), "did you mean llama?"),
        (retype("vision", "siglip_vision_mode"), ("vision", "type"), "did you mean siglip_vision_model?"),
        (retype("vision", "llama"), ("vision", "type"), "square patches"),
        (retype("language", "lfm2"), ("language", "type"), "convolution or recurrence"),
        (retype("language", "mamba2"), ("language", "type"), "convolution or recurrence"),
        (retype("language", "qwen3_next"), ("language", "type"), "linear_attention"),
        (retype("language", "gemma3"), ("language", "type"), "try gemma3_text"),
        (change("language", hidden_sise=4), ("language", "config", "hidden_sise"), "did you mean hidden_size?"),
        (change("vision", patch=4), ("vision", "config", "patch"), "no field 'patch'"),
        (change("language", vocab_size=9), ("language", "config", "vocab_size"), "filled from the tokenizer"),
        (change("vision", image_size=9), ("vision", "config", "image_size"), "filled from the picture settings"),
        (change("language", hidden_size=47), ("language", "config"), "47"),
        (change("language", hidden_size="wide"), ("language", "config"), "expected int"),
        (change("vision", num_attention_heads=3), ("vision", "config", "hidden_size"), "not a multiple"),
        (change("language", num_key_value_heads=3), ("language", "config", "num_attention_heads"), "not a multiple"),
        (change("vision", patch_size=15), ("vision", "config", "patch_size"), "image_size 32 is not a multiple"),
    ],
)
def test_each_mistake_is_a_sentence_with_its_place(settings: ModelSettings, place: tuple[str, ...], words: str) -> None:
    (found,) = check_towers(settings, image_size_px=32)
    assert found[0] == place
    assert words in found[1]


def test_mistakes_of_both_towers_come_together() -> None:
    settings = change("language", one=1, two=2).model_copy(update={"vision": TowerSettings(type="nothing")})
    assert [place for place, _ in check_towers(settings)] == [
        ("vision", "type"),
        ("language", "config", "one"),
        ("language", "config", "two"),
    ]


def test_building_from_wrong_settings_raises_the_same_sentence() -> None:
    with pytest.raises(InputError, match=r"model\.language\.config\.hidden_sise: llama has no field"):
        tower_config("language", change("language", hidden_sise=4).language, {})


def test_rope_theta_is_taken_though_transformers_keeps_it_elsewhere() -> None:
    settings = change("language", rope_theta=500.0)
    assert check_towers(settings) == []
    assert tower_config("language", settings.language, {}).rope_parameters["rope_theta"] == 500.0


@pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2", "siglip_vision_model", "clip_vision_model"])
def test_stored_fields_build_the_same_configuration(kind: str) -> None:
    config = configuration_class(kind)()
    again = configuration_class(kind)(**stored_fields(config))
    assert again.to_dict() == config.to_dict()
    assert stored_fields(config).keys() <= own_fields(kind)


def test_settings_are_strict_and_frozen() -> None:
    with pytest.raises(ValidationError, match="family"):
        ModelSettings.model_validate({**make_settings().model_dump(), "family": "recurrent"})
    with pytest.raises(ValidationError, match="cross_attention"):  # blocks of another family
        ModelSettings.model_validate({**make_settings().model_dump(), "cross_attention": {"every": 2}})
    with pytest.raises(ValidationError, match="top_p"):
        GenerationSettings(top_p=0.0)
    config = TowerSettings.model_validate({"type": "llama", "config": {"a": 1, "b": 1.5, "c": True}}).config
    assert [type(value) for value in config.values()] == [int, float, bool]


def test_settings_load_no_torch() -> None:
    code = "import sys, carnac.model.settings, carnac.model.towers, carnac.train.settings, carnac.train.schedule;"
    code += "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("tower", "words"),
    [
        ({}, "got none of them"),
        ({"type": "llama", "folder": Path("x")}, "got type and folder"),
        ({"type": "llama", "hub": "x/y"}, "got type and hub"),
        ({"folder": Path("x"), "hub": "x/y"}, "got folder and hub"),
        ({"folder": Path("x"), "config": {"hidden_size": 8}}, "folder brings its own: leave config out"),
    ],
)
def test_a_backbone_has_one_origin(tower: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TowerSettings.model_validate(tower)


@pytest.mark.parametrize(
    ("connector", "place"),
    [
        ({"type": "mlp", "factor": 2}, "connector.mlp.factor"),
        ({"type": "mlp", "layers": 3}, "connector.mlp.layers"),
        ({"type": "pixel_shuffle", "latents": 2}, "connector.pixel_shuffle.latents"),
        ({"type": "perceiver", "depth": 0}, "connector.perceiver.depth"),
    ],
)
def test_each_connector_has_settings_of_its_own(connector: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(place)):
        ModelSettings.model_validate({**make_settings().model_dump(), "connector": connector})


def test_settings_come_back_from_a_file() -> None:
    vision = VisionSettings(folder=Path("a/b"), feature_layer=-2, class_token=True)
    settings = ModelSettings(
        vision=vision,
        connector=PixelShuffleSettings(type="pixel_shuffle", factor=3),
        language=TowerSettings(hub="x/y"),
        trained=("connector", "added_tokens"),
    )
    assert ModelSettings.model_validate_json(settings.model_dump_json()) == settings


def test_everything_is_trained_unless_said_otherwise() -> None:
    assert make_settings().trained == ("vision", "connector", "language", "added_tokens")
