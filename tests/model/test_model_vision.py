from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_backbones import SMALL, SQUARE, save_vision

from carnac.core.errors import InputError
from carnac.model.settings import VisionSettings
from carnac.model.vision import build_vision, features, num_features, num_patches, square_px

# Tokens that a family puts before the patches: class token and registers.
OTHERS = {"clip_vision_model": 1, "siglip_vision_model": 0, "vit": 1, "dinov2": 1, "dinov2_with_registers": 5}
OTHERS |= {"dinov3_vit": 5, "siglip2_vision_model": 0, "internvl_vision": 1}


def settings_of(kind: str, **fields: Any) -> VisionSettings:
    config = {**SMALL, "patch_size": 8}
    if kind.startswith("dinov2"):
        config.pop("intermediate_size")
    if kind in ("dinov2_with_registers", "dinov3_vit"):
        config["num_register_tokens"] = 4
    return VisionSettings.model_validate({"type": kind, "config": config, **fields})


def pixels(size_px: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))


def cut(squares: torch.Tensor) -> dict[str, torch.Tensor]:
    """Cut squares as transformers' own SigLIP 2 processor does."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

    patches = [convert_image_to_patches(each.numpy(), 8) for each in squares]
    grid = squares.shape[-1] // 8
    return {
        "pixel_values": torch.tensor(np.stack(patches)),
        "pixel_attention_mask": torch.ones(len(squares), grid * grid, dtype=torch.long),
        "spatial_shapes": torch.full((len(squares), 2), grid),
    }


@pytest.mark.parametrize("layer", [-1, -2, 2, 3])
@pytest.mark.parametrize("kind", OTHERS)
def test_features_are_the_towers_own_without_what_stands_before_the_patches(kind: str, layer: int) -> None:
    settings = settings_of(kind, feature_layer=layer)
    tower = build_vision(settings, 32).eval()
    inputs = cut(pixels()) if kind == "siglip2_vision_model" else {"pixel_values": pixels()}
    with torch.no_grad():
        outputs = tower(**inputs, output_hidden_states=True)
        wanted = outputs.last_hidden_state if layer == -1 else outputs.hidden_states[layer]
        found, _ = features(tower, pixels(), settings)
    assert wanted.shape[1] - OTHERS[kind] == num_patches(tower.config) == num_features(tower.config, settings) == 16
    assert torch.equal(found, wanted[:, OTHERS[kind] :])
    assert square_px(tower.config) == 32


@pytest.mark.parametrize("kind", [kind for kind, others in OTHERS.items() if others])
def test_the_class_token_is_kept_before_the_patches(kind: str) -> None:
    settings = settings_of(kind, class_token=True)
    tower = build_vision(settings, 32).eval()
    with torch.no_grad():
        found, wanted = features(tower, pixels(), settings)[0], tower(pixel_values=pixels()).last_hidden_state
    assert found.shape == (2, 17, 32)
    assert torch.equal(found[:, 0], wanted[:, 0])
    assert torch.equal(found[:, 1:], wanted[:, OTHERS[kind] :])


def vision_half(model: Any) -> Any:
    return getattr(model, "vision_model", model)


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "vit", "dinov2", "dinov2_with_registers", "dinov3_vit"])
def test_a_folder_gives_the_trained_tower(tmp_path: Path, kind: str) -> None:
    theirs = vision_half(save_vision(tmp_path, kind))
    settings = VisionSettings(folder=tmp_path)
    tower = build_vision(settings, 32)
    inputs = cut(pixels()) if kind == "siglip2" else {"pixel_values": pixels()}
    with torch.no_grad():
        found, wanted = features(tower, pixels(), settings)[0], theirs(**inputs).last_hidden_state
    assert torch.equal(found, wanted[:, wanted.shape[1] - 16 :])


@pytest.mark.parametrize("size_px", [16, 48, 56])
@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "vit", "dinov2", "dinov2_with_registers", "dinov3_vit"])
def test_another_size_interpolates_positions_as_the_family_would(tmp_path: Path, kind: str, size_px: int) -> None:
    theirs = vision_half(save_vision(tmp_path, kind))
    settings = VisionSettings(folder=tmp_path)
    tower = build_vision(settings, size_px)
    assert square_px(tower.config) == size_px
    inputs = cut(pixels(size_px)) if kind == "siglip2" else {"pixel_values": pixels(size_px)}
    if kind in ("clip", "siglip", "vit"):
        inputs["interpolate_pos_encoding"] = True  # type: ignore[assignment] # an option, not a tensor
    with torch.no_grad():
        found, wanted = features(tower, pixels(size_px), settings)[0], theirs(**inputs).last_hidden_state
    wanted = wanted[:, wanted.shape[1] - (size_px // 8) ** 2 :]
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def drop_tensors(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "layers.1." not in name}
    save_file(kept, path, metadata={"format": "pt"})


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json there"),
        (lambda folder: (folder / "config.json").write_text("{"), "no model that transformers knows"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "qwertz"}'), "no model that transformers"),
        (lambda folder: (folder / "model.safetensors").unlink(), "weights of this siglip_vision_model cannot be read"),
        (truncate, "weights of this siglip_vision_model cannot be read"),
        (drop_tensors, "weights of another model: 16 tensors"),
    ],
)
def test_a_damaged_folder_gives_one_sentence_that_names_it(tmp_path: Path, damage: Any, words: str) -> None:
    save_vision(tmp_path, "siglip")
    damage(tmp_path)
    with pytest.raises(InputError, match=words) as caught:
        build_vision(VisionSettings(folder=tmp_path), 32)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_in_a_folder_is_never_run(tmp_path: Path) -> None:
    save_vision(tmp_path, "vit")
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    text = '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}'
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match="custom code"):
        build_vision(VisionSettings(folder=tmp_path), 32)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (settings_of("siglip_vision_model", class_token=True), "has no class token"),
        (settings_of("siglip_vision_model", feature_layer=4), "feature_layer: 4, but .* has 3 layers"),
        (settings_of("clip_vision_model", feature_layer=-5), "feature_layer: -5, but .* has 3 layers"),
        # It makes one sequence of all pictures.
        (settings_of("pixtral"), r"pixtral gives features of shape \(1, 32, 32\)"),
        # It hides three quarters of the patches, at random.
        (settings_of("vit_mae"), r"vit_mae gives features of shape \(2, 5, 32\)"),
    ],
)
def test_features_that_a_tower_does_not_have_are_refused(settings: VisionSettings, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_vision(settings, 32)


def test_a_language_model_is_no_vision_tower(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="square patches of fixed size"):
        build_vision(VisionSettings(folder=tmp_path), 32)


def test_squares_are_those_of_the_configuration() -> None:
    assert SQUARE["image_size"] == square_px(build_vision(settings_of("siglip2_vision_model"), 32).config)
