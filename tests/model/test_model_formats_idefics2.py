"""Idefics2 both ways: our model in transformers' class, and theirs in ours, pictures of any shape and squares."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from model_idefics2 import (
    IMAGE,
    PATCH_PX,
    PERCEIVER,
    ROWS,
    SIDE_PX,
    SQUARES,
    VOCABULARY,
    describe,
    enlarge,
    make_native,
    read_theirs,
    settings_of,
    worst,
)

from carnac.core.errors import InputError
from carnac.core.seeds import generator
from carnac.model.formats import idefics2
from carnac.model.formats.folders import SpecialIds, read_folder, write_folder
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ConnectorSettings, MlpSettings, VisionSettings

IDS = SpecialIds(image=IMAGE, begin=None, end=1, pad=0)
TOLERANCE = 1e-5
INSIDE, BEYOND = (IMAGE, 90, 91), (IMAGE, 95, 96, 97)
OURS: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied": {"fields": {"tie_word_embeddings": True}},
    "all heads of their own": {"fields": {"num_key_value_heads": 4}},
    "one key-value head": {"fields": {"num_key_value_heads": 1}},
    "mistral, window 9": {"language": "mistral", "fields": {"sliding_window": 9}},
    "qwen2": {"language": "qwen2"},
    "qwen3": {"language": "qwen3", "fields": {"head_dim": 16}},
    "olmo2": {"language": "olmo2"},
    "phi3": {"language": "phi3"},
    "smollm3": {"language": "smollm3"},
    "one kv head in the perceiver": {"connector": {"kv_heads": 1}},
    "as many kv heads in the perceiver": {"connector": {"kv_heads": 4, "depth": 1}},
    "another epsilon": {"connector": {"norm_epsilon": 1e-2}},
    "narrow": {"connector": {"hidden_size": 20}},
    "as wide as the language model's": {"connector": {"hidden_size": 96}},
    "added tokens inside": {"added": INSIDE},
    "added tokens beyond": {"added": BEYOND},
    "added tokens beyond, tied": {"added": BEYOND, "fields": {"tie_word_embeddings": True}},
}


def make(told: dict[str, Any], *, native: bool) -> MultimodalModel:
    connector = PERCEIVER.model_copy(update=told.get("connector", {}))
    settings = settings_of(connector, told.get("language", "llama"), told.get("fields"))
    return make_native(settings, native=native, added_ids=told.get("added", ()))


def export(model: MultimodalModel, folder: Path, *, native: bool = True) -> Any:
    write_folder(model, describe(model, native=native), "idefics2", IDS, folder)
    return read_theirs(folder)


@pytest.mark.parametrize("label", OURS)
def test_transformers_computes_what_our_model_computes_of_any_shape(label: str, tmp_path: Path) -> None:
    model = make(OURS[label], native=True)
    found = worst(model, export(model, tmp_path), ROWS)
    print(f"{label}: worst {found:.1e}")
    assert found <= TOLERANCE


@pytest.mark.parametrize("label", ["llama", "tied", "mistral, window 9", "added tokens beyond"])
def test_transformers_computes_what_our_model_computes_of_squares(label: str, tmp_path: Path) -> None:
    model = make(OURS[label], native=False)
    assert model.vision.config.model_type == "siglip_vision_model"
    found = worst(model, export(model, tmp_path, native=False), SQUARES)
    print(f"squares, {label}: worst {found:.1e}")
    assert found <= TOLERANCE


CHOICES: dict[str, tuple[Any, ...]] = {
    "language": ("llama", "mistral", "qwen2", "qwen3", "phi3", "olmo2"),
    "num_key_value_heads": (1, 2, 4),
    "tie_word_embeddings": (True, False),
    "added": ((), INSIDE, BEYOND),
    "kv_heads": (1, 2, 4),
    "hidden_size": (20, None, 96),
    "norm_epsilon": (1e-6, 1e-5),
    "native": (True, False),
}


def drawn(seed: int) -> tuple[dict[str, Any], bool]:
    """Return one of the 3,888 combinations, and whether pictures have any shape in it."""
    draws = generator(seed, "idefics2 combinations")
    told = {name: options[draws.integers(len(options))] for name, options in CHOICES.items()}
    fields = {name: told[name] for name in ("num_key_value_heads", "tie_word_embeddings")}
    connector = {name: told[name] for name in ("kv_heads", "hidden_size", "norm_epsilon")}
    print(told)
    return {**told, "fields": fields, "connector": connector}, told["native"]


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_combined_the_two_compute_the_same(seed: int, tmp_path: Path) -> None:
    told, native = drawn(seed)
    model = make(told, native=native)
    theirs = export(model, tmp_path, native=native)
    rows = ROWS if native else SQUARES
    found = worst(model, theirs, rows)
    again = worst(read_folder(tmp_path)[0], theirs, rows)  # and read back
    print(f"worst {max(found, again):.1e}")
    assert max(found, again) <= TOLERANCE


@pytest.mark.parametrize("part", ["vision", "connector", "language"])
def test_a_weight_that_differs_is_seen(part: str, tmp_path: Path) -> None:
    model = make_native()
    theirs = export(model, tmp_path)
    with torch.no_grad():
        next(getattr(model, part).parameters()).mul_(1.001)
    assert worst(model, theirs, ROWS) > TOLERANCE


def test_an_epsilon_that_is_not_carried_over_is_seen(tmp_path: Path) -> None:
    theirs = export(make(OURS["another epsilon"], native=True), tmp_path)
    assert worst(make_native(), theirs, ROWS) > TOLERANCE


LANGUAGES: dict[str, dict[str, Any]] = {
    "mistral": {"model_type": "mistral", "sliding_window": 9},
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2"},
}
THEIRS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "tied": {"tie_word_embeddings": True},
    "another epsilon": {"perceiver": {"rms_norm_eps": 1e-2}},
    "one key-value head": {"perceiver": {"num_key_value_heads": 1}},
    "a rest that no patch sees": {"vision": {"image_size": SIDE_PX + 5}},
    # transformers gives two of 19 patches in a row the same position; ours is the same class.
    "19 x 19 patches": {"vision": {"image_size": 19 * PATCH_PX}},
}


def make_theirs(told: dict[str, Any], language: dict[str, Any]) -> Any:
    from transformers import AutoModelForImageTextToText, Idefics2Config

    vision: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "patch_size": PATCH_PX, "image_size": SIDE_PX, **told.get("vision", {})}
    perceiver: dict[str, Any] = {"hidden_size": 48, "resampler_n_latents": 5, "resampler_depth": 2}
    perceiver |= {"resampler_n_heads": 4, "resampler_head_dim": 12, "num_key_value_heads": 2}
    text: dict[str, Any] = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCABULARY, "pad_token_id": 0}
    tied = {"tie_word_embeddings": told.get("tie_word_embeddings", False)}
    config = Idefics2Config(
        vision_config=vision,
        perceiver_config=perceiver | told.get("perceiver", {}),
        text_config={**text, **language, **tied},
        image_token_id=IMAGE,
        **tied,
    )
    auto: Any = AutoModelForImageTextToText
    theirs = auto.from_config(config).eval()
    enlarge(theirs)
    return theirs


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("label", THEIRS)
def test_our_model_computes_what_transformers_computes(label: str, language: str, tmp_path: Path) -> None:
    theirs = make_theirs(THEIRS[label], LANGUAGES[language])
    theirs.save_pretrained(tmp_path)
    model, _ = read_folder(tmp_path)
    assert model.native_aspect
    found = worst(model, theirs, ROWS)
    print(f"{language}, {label}: worst {found:.1e}")
    assert found <= TOLERANCE


@pytest.mark.parametrize("label", ["llama", "narrow", "another epsilon", "added tokens beyond, tied"])
def test_an_export_read_and_written_again_is_the_same_file(label: str, tmp_path: Path) -> None:
    model = make(OURS[label], native=True)
    export(model, tmp_path / "first")
    again, _ = read_folder(tmp_path / "first")
    export(again, tmp_path / "second")
    for path in sorted((tmp_path / "first").iterdir()):
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes(), path.name


def test_what_idefics2_8b_says_of_itself_is_read_to_the_digit() -> None:
    from transformers import Idefics2Config

    text = {"model_type": "mistral", "vocab_size": 32003, "rms_norm_eps": 1e-5}
    told: dict[str, Any] = {"hidden_size": 4096, "rms_norm_eps": 1e-5}
    sizes = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    vision = {**sizes, "image_size": 980, "patch_size": 14}
    config = Idefics2Config(vision_config=vision, perceiver_config=told, text_config=text)
    settings, connector = idefics2.our_settings(config)
    assert settings == VisionSettings(type="siglip_vision_model")
    assert connector == PERCEIVER.model_copy(
        update={
            "hidden_size": 14336, "latents": 64, "depth": 3, "heads": 16, "head_size": 96, "kv_heads": 4,
            "norm_epsilon": 1e-5,
        }
    )  # fmt: skip
    tower = idefics2.our_vision(config)
    assert (tower.model_type, tower.image_size, tower.patch_size) == ("idefics2_vision", 980, 14)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"connector": MlpSettings()}, "its connector is a gated MLP and a perceiver, and this one is of type mlp"),
        (
            {"connector": PERCEIVER.model_copy(update={"hidden_size": 97})},
            "the language model, 96, and this one has 97",
        ),
        ({"language": "gemma", "fields": {"head_dim": 12}}, "wanted silu, and this gemma has gelu"),
    ],
)
def test_what_the_format_has_no_place_for_is_said_in_a_sentence(told: dict[str, Any], words: str) -> None:
    connector: ConnectorSettings = told.get("connector", PERCEIVER)
    model = make_native(settings_of(connector, told.get("language", "llama"), told.get("fields")), native=False)
    (reason,) = idefics2.reasons(describe(model, native=False))
    assert words in reason[1]


def test_squares_whose_patches_transformers_would_misplace_are_refused_but_not_those_of_any_shape() -> None:
    model = make_native()
    described = describe(model)
    odd = described.pictures.model_copy(update={"size_px": 19 * PATCH_PX})
    assert not list(idefics2.reasons(replace(described, pictures=odd)))
    square = describe(make_native(native=False), native=False)
    ((place, sentence),) = idefics2.reasons(replace(square, pictures=odd.model_copy(update={"aspect": "square"})))
    assert place == ("pictures", "size_px")
    assert "19 x 19 patches wrongly" in sentence


@pytest.mark.parametrize(
    ("part", "fields", "words"),
    [
        ("perceiver_config", {"hidden_act": "gelu"}, r"perceiver_config\.hidden_act: 'gelu'; wanted 'silu'"),
        ("text_config", {"hidden_act": "gelu"}, r"text_config\.hidden_act: 'gelu'; wanted 'silu'"),
        ("perceiver_config", {"num_key_value_heads": 3}, r"num_key_value_heads: 3; wanted a divisor of the 4 heads"),
    ],
)
def test_a_folder_that_ours_cannot_be_is_refused(part: str, fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    make_theirs({}, LANGUAGES["llama"]).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    content[part] |= fields
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        read_folder(tmp_path)


def test_a_picture_of_middle_grey_is_one_for_us_and_none_for_transformers(tmp_path: Path) -> None:
    """Pixels that are all zero are padding to transformers' class; ours reads places, not pixels."""
    model = make_native()
    theirs = export(model, tmp_path)
    pixels = torch.zeros(1, 2, 3, SIDE_PX, SIDE_PX)
    pixels[0, 1] = 1.0
    ids = torch.tensor([[10, *[IMAGE] * 5, 11, *[IMAGE] * 5]])
    with pytest.raises((RuntimeError, ValueError), match="Image features and image tokens do not match"):
        theirs(input_ids=ids, pixel_values=pixels)
    assert model.see(pixels[0]).isfinite().all()
