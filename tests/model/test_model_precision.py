"""bfloat16 where it is harmless, and activations computed twice: on a CPU, both train and say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_backbones import save_language, save_vision
from model_builder import VOCABULARY, make_batch, make_settings

from carnac.core.errors import InputError
from carnac.model.adapter_files import load_adapters, save_adapters
from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.parts import part_of
from carnac.model.precision import prepare_model
from carnac.model.settings import (
    PARTS,
    AdapterSettings,
    MlpSettings,
    ModelSettings,
    PerceiverSettings,
    TowerSettings,
    VisionSettings,
)
from carnac.model.weights import load_model, save_model
from carnac.train.compute import arithmetic, choose_device
from carnac.train.optimizer import make_optimizer
from carnac.train.settings import ComputeSettings, OptimizerSettings

CPU = torch.device("cpu")
BATCH = make_batch([[(20, 1), (9, 0)], [(12, 1), (21, 2)]])
LORA = AdapterSettings(rank=4, language=("q_proj", "v_proj"))
PERCEIVER = PerceiverSettings(type="perceiver", latents=4, depth=1, heads=2, head_size=8, kv_heads=1)
TOWER: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16}
KINDS = ("siglip_vision_model", "clip_vision_model", "dinov2")
GPT2: dict[str, Any] = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256}


def build(vision: str = KINDS[0], language: str = "llama", **changes: Any) -> MultimodalModel:
    tower = TOWER if vision == "dinov2" else {**TOWER, "intermediate_size": 64}
    dry = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    words = TowerSettings(type="gpt2", config=GPT2 | dry) if language == "gpt2" else make_settings(language).language
    settings = ModelSettings(
        **{
            "vision": VisionSettings(type=vision, config=tower),
            "connector": MlpSettings(hidden_size=48),
            "language": words,
            **changes,
        }
    )
    return build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), 32, seed=0)


def train(model: MultimodalModel, settings: ComputeSettings, steps: int = 12) -> list[float]:
    """Train on one batch and return the losses."""
    optimizer = make_optimizer(model, OptimizerSettings(learning_rate=3e-3), part_of)
    model.train()
    losses = []
    for _ in range(steps):
        with arithmetic(settings, CPU):
            total, _ = model.loss(BATCH, BATCH.label_tokens, 1e-4)
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(total.detach()))
    return losses


PARTLY: dict[str, Any] = {"trained": ("connector",), "adapters": LORA}


@pytest.mark.parametrize("vision", KINDS)
@pytest.mark.parametrize("changes", [{}, PARTLY, {**PARTLY, "connector": PERCEIVER}, {"trained": ("vision",)}])
def test_bf16_trains_nearly_as_fp32_does(vision: str, changes: dict[str, Any]) -> None:
    half, whole = ComputeSettings(precision="bf16"), ComputeSettings()
    model = build(vision, **changes)
    prepare_model(model, device=CPU, bf16=True)
    losses, wanted = train(model, half), train(build(vision, **changes), whole)
    assert losses[-1] < losses[0] - 0.02
    assert losses == pytest.approx(wanted, rel=0.005)


@pytest.mark.parametrize("language", ["qwen2", "gemma2", "gpt2"])
def test_bf16_trains_other_language_models_too(language: str) -> None:
    model = build(language=language, trained=("connector", "vision"))
    prepare_model(model, device=CPU, bf16=True)
    losses = train(model, ComputeSettings(precision="bf16"))
    assert losses[-1] < losses[0] - 0.02


def test_what_is_frozen_is_halved_and_stays_to_the_bit_what_is_trained_keeps_fp32() -> None:
    model = build(trained=("connector",), adapters=LORA)
    wanted = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    prepare_model(model, device=CPU, bf16=True)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name
        assert torch.equal(parameter, wanted[name].to(parameter.dtype))
    assert {buffer.dtype for buffer in model.buffers() if buffer.is_floating_point()} == {torch.float32}
    settings = ComputeSettings(precision="bf16")
    optimizer = make_optimizer(model, OptimizerSettings(learning_rate=1e-3), part_of)
    with arithmetic(settings, CPU):
        total, per_token = model.loss(BATCH, BATCH.label_tokens)
    assert (total.dtype, per_token.dtype) == (torch.float32, torch.float32)
    total.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert {each.dtype for each in moments} == {torch.float32}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, wanted[name].bfloat16())


def test_a_model_with_halved_weights_comes_back_to_the_bit(tmp_path: Any) -> None:
    model = build(trained=("connector",), adapters=LORA)
    prepare_model(model, device=CPU, bf16=True)
    train(model, ComputeSettings(precision="bf16"), 2)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    pairs = zip(model.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(one.float(), two) for one, two in pairs)


def gradients(model: MultimodalModel, bf16: bool) -> dict[str, torch.Tensor]:
    model.train()
    torch.manual_seed(4)
    with arithmetic(ComputeSettings(precision="bf16" if bf16 else "fp32"), CPU):
        total, _ = model.loss(BATCH, BATCH.label_tokens, 1e-4)
    total.backward()  # type: ignore[no-untyped-call]
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("changes", [{}, {"trained": ("connector",), "adapters": LORA}, {"trained": ("language",)}])
def test_activations_computed_twice_give_the_same_gradients(changes: dict[str, Any], bf16: bool) -> None:
    if "adapters" in changes:  # dropout is drawn anew and has to be the same
        changes = {**changes, "adapters": LORA.model_copy(update={"dropout": 0.3, "vision": ("fc1",)})}
    kept, twice = build(**changes), build(**changes)
    prepare_model(kept, device=CPU, bf16=bf16)
    prepare_model(twice, device=CPU, bf16=bf16, activation_checkpointing=True)
    wanted, found = gradients(kept, bf16), gradients(twice, bf16)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def count_layers(model: MultimodalModel) -> int:
    """Return how often layers of the language model are computed in a forward and a backward pass."""
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    for layer in model.language.model.layers:
        layer.mlp.register_forward_pre_hook(count)
    gradients(model, bf16=False)
    return calls


def test_activations_are_computed_twice_indeed() -> None:
    kept, twice = build(), build()
    prepare_model(twice, device=CPU, activation_checkpointing=True)
    assert (count_layers(kept), count_layers(twice)) == (2, 4)


def test_a_tower_in_which_nothing_is_trained_is_left_alone() -> None:
    model = build(trained=("connector",))
    prepare_model(model, device=CPU, activation_checkpointing=True)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.vision.modules())
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.language.modules())
    # Frozen embeddings do not ask for a gradient because of it.
    assert not model.language.get_input_embeddings()(torch.tensor([[1]])).requires_grad


def test_compiling_is_for_a_gpu() -> None:
    with pytest.raises(InputError, match="is for a GPU, and this run computes on cpu"):
        prepare_model(build(), device=CPU, compile_layers=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_a_sentence() -> None:
    assert choose_device(ComputeSettings()) == choose_device(ComputeSettings(device="cpu")) == CPU
    with pytest.raises(InputError, match="torch finds no GPU here"):
        choose_device(ComputeSettings(device="cuda"))


def test_all_parts_are_known() -> None:
    assert {part_of(name) for name, _ in build(trained=PARTS).named_parameters()} == {"vision", "connector", "language"}


def test_adapters_trained_beside_halved_backbones_find_them_again(tmp_path: Path) -> None:
    save_vision(tmp_path / "vision", "siglip")
    save_language(tmp_path / "language")
    towers = {part: {"folder": str(tmp_path / part)} for part in ("vision", "language")}
    content = {**towers, "trained": ["connector"], "adapters": LORA.model_dump(mode="json")}
    settings = ModelSettings.model_validate_json(json.dumps(content))
    model = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), 32, seed=0)
    prepare_model(model, device=CPU, bf16=True)
    model.float()
    save_model(model, tmp_path / "whole")
    save_adapters(load_model(tmp_path / "whole"), tmp_path / "adapters")
    again = load_adapters(tmp_path / "adapters")
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), again.parameters(), strict=True))
