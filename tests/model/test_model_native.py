"""Pictures of any shape: SigLIP's weights in a class that takes a mask, and nothing read beyond a picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from model_backbones import save_language, save_vision
from model_idefics2 import (
    PATCH_PX,
    ROWS,
    SIDE_PX,
    VOCABULARY,
    Row,
    batch_of,
    describe,
    make_native,
    picture,
    settings_of,
)

from carnac.core.errors import InputError
from carnac.model.adapter_files import load_adapters, save_adapters
from carnac.model.build import build_model, build_skeleton
from carnac.model.check import check_model
from carnac.model.formats.folders import SpecialIds, write_folder
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.precision import prepare_model
from carnac.model.settings import PARTS, AdapterSettings, ModelSettings, ResamplerSettings, VisionSettings
from carnac.model.start import start_from
from carnac.model.vision import at_size, blank_square, build_vision, cut_pictures, features
from carnac.model.weights import load_model, save_model

WORDS = Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1)
RESAMPLER = ResamplerSettings(type="resampler", latents=4, depth=2, heads=2, head_size=8)
LORA = AdapterSettings(rank=2, vision=("q_proj", "fc1"), language=("q_proj",))
SIZES = ((6, 6), (1, 6), (5, 2), (1, 1), (3, 4))


def pixels(side_px: int = SIDE_PX) -> torch.Tensor:
    draws = torch.Generator().manual_seed(1)
    return torch.stack([picture(size, draws, side_px) for size in SIZES])


def whole(side_px: int = SIDE_PX) -> torch.Tensor:
    return torch.randn(2, 3, side_px, side_px, generator=torch.Generator().manual_seed(2))


def crossing(**blocks: Any) -> ModelSettings:
    told = settings_of().model_dump() | {"family": "cross_attention", "connector": RESAMPLER.model_dump()}
    return ModelSettings.model_validate(told | {"cross_attention": {"every": 1, "gate_start": 0.5, **blocks}})


def changed(settings: ModelSettings, **tables: Any) -> ModelSettings:
    return ModelSettings.model_validate_json(json.dumps(settings.model_dump(mode="json") | tables))


@torch.no_grad()
def logits(model: MultimodalModel, rows: tuple[Row, ...] = ROWS, *, packed: bool = False) -> torch.Tensor:
    found: torch.Tensor = model.eval()(batch_of(rows, model, packed=packed))
    return found


@pytest.mark.parametrize("layer", [-1, -2, 0, 2])
def test_a_whole_square_is_seen_to_the_bit_as_siglip_sees_it(layer: int) -> None:
    settings = settings_of().vision.model_copy(update={"feature_layer": layer})
    squares = build_vision(settings, SIDE_PX).eval()
    native = at_size(squares, SIDE_PX, native_aspect=True)
    with torch.no_grad():
        wanted, _ = features(squares, whole(), settings)
        found, mask = features(native, whole(), settings)
    assert native.config.model_type == "idefics2_vision"
    assert torch.equal(found, wanted)
    assert mask is not None
    assert mask.all()


@pytest.mark.parametrize("size_px", [32, 56])
def test_a_trained_siglip_tower_is_taken_with_its_positions_interpolated(tmp_path: Path, size_px: int) -> None:
    save_vision(tmp_path, "siglip")
    settings = VisionSettings(folder=tmp_path)
    squares = build_vision(settings, size_px)
    native = build_vision(settings, size_px, native_aspect=True)
    with torch.no_grad():
        assert torch.equal(
            features(native, whole(size_px), settings)[0], features(squares, whole(size_px), settings)[0]
        )
    back = at_size(native, size_px, native_aspect=False)
    assert back.config.model_type == "siglip_vision_model"
    assert all(torch.equal(each, squares.state_dict()[name]) for name, each in back.state_dict().items())


def test_a_picture_is_cut_to_its_patches_and_zero_beyond_them() -> None:
    values, mask = cut_pictures(pixels()[1:3], PATCH_PX)
    assert values.shape == (2, 3, 5 * PATCH_PX, 6 * PATCH_PX)
    assert [rows.nonzero().max(0).values.tolist() for rows in mask] == [[0, 5], [4, 1]]
    assert mask.flatten(1).sum(1).tolist() == [6, 10]
    assert torch.equal(values[0, :, :PATCH_PX], pixels()[1, :, :PATCH_PX])
    assert not values[0, :, PATCH_PX:].any()


@pytest.mark.parametrize("settings", [settings_of(), crossing()], ids=["perceiver", "resampler"])
def test_a_picture_is_the_same_beside_larger_ones_and_alone(settings: ModelSettings) -> None:
    model = make_native(settings)
    with torch.no_grad():
        together = model.see(pixels())
        alone = torch.cat([model.see(each[None]) for each in pixels()])
    assert together.isfinite().all()
    assert float((together - alone).abs().max() / alone.abs().max()) <= 1e-6


def test_the_shape_of_a_picture_tells_its_positions_not_its_size() -> None:
    """A picture of 3 x 3 patches has every other position of 6 x 6, as Idefics2 places them."""
    model = make_native()
    tower = model.vision
    with torch.no_grad():
        tower.embeddings.patch_embedding.weight.zero_()
        tower.embeddings.patch_embedding.bias.zero_()
        small, mask = cut_pictures(pixels()[:1], PATCH_PX)
        few = tower.embeddings(pixel_values=small[..., :24, :24], patch_attention_mask=mask[:, :3, :3].contiguous())
    table = tower.embeddings.position_embedding.weight.view(6, 6, -1)
    assert torch.equal(few[0], table[::2, ::2].reshape(9, -1))


@pytest.mark.parametrize("settings", [settings_of(), crossing()], ids=["autoregressive", "cross_attention"])
def test_rows_side_by_side_and_packed_into_one_are_the_same(settings: ModelSettings) -> None:
    model = make_native(settings)
    padded, packed = logits(model), logits(model, packed=True)[0]
    assert padded.isfinite().all()
    joined = torch.cat([padded[number, : row.tokens] for number, row in enumerate(ROWS)])
    assert float((joined - packed).abs().max() / packed.abs().max()) <= 1e-6


@pytest.mark.parametrize("settings", [settings_of(), crossing()], ids=["autoregressive", "cross_attention"])
def test_gradients_are_finite_and_reach_the_tower(settings: ModelSettings) -> None:
    model = make_native(settings).train()
    model(batch_of(ROWS, model)).logsumexp(-1).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.vision.embeddings.patch_embedding.weight.grad.abs().sum() > 0


def test_a_batch_without_pictures_runs_one_patch_and_gives_zero_gradients() -> None:
    model = make_native()
    blank = blank_square(model.vision.config)
    assert blank.shape == (1, 3, SIDE_PX, SIDE_PX)
    assert cut_pictures(blank, PATCH_PX)[0].shape == (1, 3, PATCH_PX, PATCH_PX)
    assert not blank_square(make_native(native=False).vision.config).isnan().any()
    model(batch_of((Row(tokens=5),), model)).sum().backward()
    grads = [parameter.grad for parameter in model.vision.parameters()]
    assert all(grad is not None and not grad.any() for grad in grads)


def test_a_model_is_saved_and_loaded_with_its_tower(tmp_path: Path) -> None:
    model = make_native()
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.native_aspect
    assert torch.equal(logits(again), logits(model))


def test_a_skeleton_has_the_names_and_shapes_of_the_model() -> None:
    skeleton = build_skeleton(settings_of(), WORDS, SIDE_PX, native_aspect=True)
    wanted = {name: each.shape for name, each in make_native().state_dict().items()}
    assert {name: each.shape for name, each in skeleton.state_dict().items()} == wanted
    assert skeleton.native_aspect


def adapted(folder: Path) -> ModelSettings:
    """Return settings over trained backbones, of which the connector and adapters are trained."""
    save_vision(folder / "vision", "siglip")
    save_language(folder / "language")
    towers = {part: {"folder": str(folder / part)} for part in ("vision", "language")}
    return changed(settings_of(), **towers, trained=["connector"], adapters=LORA.model_dump(mode="json"))


def test_adapters_over_a_trained_tower_come_back_with_its_aspect(tmp_path: Path) -> None:
    model = build_model(adapted(tmp_path), Vocabulary(size=128, pad_id=0, eos_id=1), 32, seed=0, native_aspect=True)
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape) if ".lora_" in name else 0.0)
    save_adapters(model, tmp_path / "adapters")
    again = load_adapters(tmp_path / "adapters")
    assert again.native_aspect
    with torch.no_grad():
        assert torch.equal(again.see(whole(32)), model.see(whole(32)))
    # Written before pictures could have any shape: a folder without the word is one of squares.
    content = json.loads((tmp_path / "adapters" / "config.json").read_text())
    del content["native_aspect"]
    (tmp_path / "adapters" / "config.json").write_text(json.dumps(content))
    assert not load_adapters(tmp_path / "adapters").native_aspect


def start(folder: Path, **changes: Any) -> MultimodalModel:
    given: dict[str, Any] = {"trained": PARTS, "adapters": None, "merge": False, "image_size_px": None, "seed": 0}
    return start_from(folder, **(given | changes))


@pytest.mark.parametrize("settings", [settings_of(), crossing()], ids=["autoregressive", "cross_attention"])
def test_a_run_goes_on_at_a_higher_resolution(settings: ModelSettings, tmp_path: Path) -> None:
    model = make_native(settings)
    save_model(model, tmp_path / "first")
    same = start(tmp_path / "first")
    assert torch.equal(logits(same), logits(model))
    larger = start(tmp_path / "first", image_size_px=2 * SIDE_PX)
    assert larger.native_aspect
    assert larger.image_size_px == 2 * SIDE_PX
    assert larger.vision.embeddings.position_embedding.weight.shape[0] == 144
    kept = dict(model.state_dict())
    for name, tensor in larger.state_dict().items():
        assert "position_embedding" in name or torch.equal(tensor, kept[name]), name
    assert logits(larger).isfinite().all()
    save_model(larger, tmp_path / "second")
    assert torch.equal(logits(start(tmp_path / "second")), logits(larger))


def test_merged_adapters_leave_a_tower_that_settings_can_name(tmp_path: Path) -> None:
    model = build_model(adapted(tmp_path), Vocabulary(size=128, pad_id=0, eos_id=1), 32, seed=0, native_aspect=True)
    save_model(model, tmp_path / "model")
    kept = start(tmp_path / "model", trained=("connector",), image_size_px=64)
    assert any(".lora_" in name for name in kept.vision.state_dict())
    merged = start(tmp_path / "model", trained=("connector",), merge=True)
    assert (merged.settings.vision.type, merged.settings.vision.folder) == ("siglip_vision_model", None)
    assert merged.native_aspect
    assert not any(".lora_" in name for name in merged.vision.state_dict())


def test_an_exported_idefics2_folder_is_a_start(tmp_path: Path) -> None:
    model = make_native()
    write_folder(model, describe(model), "idefics2", SpecialIds(image=7, begin=None, end=1, pad=0), tmp_path)
    found = start(tmp_path, trained=("connector",), adapters=LORA)
    assert found.native_aspect
    difference = (logits(found) - logits(model)).abs().max() / logits(model).abs().max()
    assert float(difference) <= 1e-5
    assert found.settings.adapters == LORA


@pytest.mark.parametrize(
    ("tables", "place", "words"),
    [
        ({"connector": {"type": "mlp"}}, ("connector", "type"), "mlp joins the patches of a whole square"),
        ({"connector": {"type": "pixel_shuffle"}}, ("connector", "type"), "wanted perceiver or resampler"),
        ({"vision": {"type": "clip_vision_model"}}, ("vision", "type"), "need a tower of SigLIP's kind"),
        ({"vision": {"type": "siglip2_vision_model"}}, ("vision", "type"), "siglip2_vision_model has no such class"),
    ],
)
def test_what_cannot_be_shown_any_shape_is_found_before_training(
    tables: dict[str, Any], place: tuple[str, ...], words: str
) -> None:
    settings = changed(settings_of(), **tables)
    ((found, sentence),) = check_model(settings, SIDE_PX * 2, native_aspect=True)
    assert found == place
    assert words in sentence
    assert check_model(settings_of(), SIDE_PX, native_aspect=True) == []
    assert check_model(crossing(), SIDE_PX, native_aspect=True) == []


def test_a_folder_of_another_tower_is_refused_in_a_sentence(tmp_path: Path) -> None:
    save_vision(tmp_path, "clip")
    with pytest.raises(InputError, match=r"need a tower of SigLIP's kind .* clip_vision_model has no such class"):
        build_vision(VisionSettings(folder=tmp_path), 32, native_aspect=True)
    settings = changed(settings_of(), vision={"folder": str(tmp_path)})
    ((place, sentence),) = check_model(settings, 32, native_aspect=True)
    assert place == ("vision", "folder")
    assert "clip_vision_model has no such class" in sentence


def test_the_tower_inside_an_idefics2_is_no_backbone_of_its_own(tmp_path: Path) -> None:
    model = make_native()
    write_folder(model, describe(model), "idefics2", SpecialIds(image=7, begin=None, end=1, pad=0), tmp_path)
    for vision in ({"type": "idefics2_vision"}, {"folder": str(tmp_path)}):
        ((place, sentence),) = check_model(changed(settings_of(), vision=vision), SIDE_PX, native_aspect=True)
        assert place == ("vision", next(iter(vision)))
        assert "wanted SigLIP (siglip_vision_model), with pictures.aspect = native" in sentence


@pytest.mark.parametrize("settings", [settings_of(), crossing()], ids=["autoregressive", "cross_attention"])
def test_recomputed_activations_give_the_same_gradients(settings: ModelSettings) -> None:
    gradients = []
    for recompute in (False, True):
        model = make_native(settings)
        prepare_model(model, device=model.device, bf16=False, activation_checkpointing=recompute, compile_layers=False)
        model.train()(batch_of(ROWS, model)).logsumexp(-1).mean().backward()
        gradients.append({name: each.grad for name, each in model.named_parameters()})
    for name, wanted in gradients[0].items():
        found = gradients[1][name]
        assert wanted is not None, name
        assert found is not None, name
        assert torch.equal(found, wanted), name


def test_half_precision_reads_no_nan() -> None:
    model = make_native(settings_of().model_copy(update={"trained": ("connector",)}))
    prepare_model(model, device=model.device, bf16=True, activation_checkpointing=False, compile_layers=False)
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(batch_of(ROWS, model)).float().logsumexp(-1).mean().backward()
    grads = [parameter.grad for parameter in model.connector.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in grads)


def test_nothing_but_nan_is_taken_for_what_lies_beyond_a_picture() -> None:
    values = whole()
    values[0, :, 0, 0] = -math.pi
    assert torch.equal(cut_pictures(values, PATCH_PX)[0], values)
