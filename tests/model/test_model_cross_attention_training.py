"""Gradients, parts, rates, adapters, precision and micro-batches of the cross-attention family."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_backbones import save_language, save_vision
from model_builder import VOCABULARY
from model_images_read import LAYOUT, Piece, crossing_settings, lay_out, logits_of, make_crossing
from test_model_loss import plain_loss

from carnac.core.batch import IGNORED, Batch
from carnac.core.batch import Piece as BatchPiece
from carnac.model.adapter_files import load_adapters, save_adapters
from carnac.model.adapters import merge_adapters
from carnac.model.build import build_model
from carnac.model.cross_attention.model import CrossAttentionModel
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.parts import part_of
from carnac.model.precision import prepare_model
from carnac.model.settings import AdapterSettings, ModelSettings
from carnac.model.weights import load_model, save_model
from carnac.train.compute import arithmetic
from carnac.train.optimizer import make_optimizer, undecayed_names
from carnac.train.rows import micro_batches
from carnac.train.settings import ComputeSettings, OptimizerSettings

CPU = torch.device("cpu")
BATCH = lay_out(LAYOUT)
LORA = AdapterSettings(rank=4, dropout=0.3, vision=("q_proj",), language=("q_proj", "v_proj"))
ADDED = Vocabulary(size=VOCABULARY + 2, pad_id=0, eos_id=1, added_ids=(2, 128, 129))
PARTLY: dict[str, Any] = {"trained": ("connector", "added_tokens"), "adapters": LORA}
BLOCKS: list[dict[str, Any]] = [
    {},
    {"attend": "earlier", "gates": "vector", "mlp": "gelu"},
    {"text_tokens": "mlp", "qk_norms": False, "p_next": 0.5},
]


def build(blocks: dict[str, Any] | None = None, kind: str = "llama", **changes: Any) -> MultimodalModel:
    return build_model(crossing_settings(kind, blocks, **changes), ADDED, 32, seed=0)


def gradients(model: MultimodalModel, batch: Batch = BATCH, *, bf16: bool = False) -> dict[str, torch.Tensor]:
    model.train().zero_grad()
    torch.manual_seed(4)
    with arithmetic(ComputeSettings(precision="bf16" if bf16 else "fp32"), CPU):
        total, _ = model.loss(batch, batch.label_tokens, 1e-4)
    torch.autograd.backward(total)
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def train(model: MultimodalModel, *, bf16: bool = False, steps: int = 12) -> list[float]:
    optimizer = make_optimizer(model, OptimizerSettings(learning_rate=3e-3, weight_decay=0.1), part_of)
    losses = []
    model.train()
    for _ in range(steps):
        with arithmetic(ComputeSettings(precision="bf16" if bf16 else "fp32"), CPU):
            total, _ = model.loss(BATCH, BATCH.label_tokens, 1e-4)
        torch.autograd.backward(total)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(total.detach()))
    return losses


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_the_loss_is_its_definition(blocks: dict[str, Any], z_loss: float) -> None:
    model = build(blocks).eval()
    total, per_token = model.loss(BATCH, BATCH.label_tokens, z_loss)
    assert total.item() == pytest.approx(plain_loss(model, BATCH, z_loss), rel=1e-6)
    assert (per_token.numpy() != 0).tolist() == (BATCH.labels != IGNORED).tolist()


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("changes", [{}, PARTLY, {"trained": ("connector",)}, {"trained": ("language",)}])
@pytest.mark.parametrize("blocks", BLOCKS)
def test_blocks_and_layers_computed_twice_give_the_same_gradients(
    blocks: dict[str, Any], changes: dict[str, Any], bf16: bool
) -> None:
    kept, twice = build(blocks, **changes), build(blocks, **changes)
    prepare_model(kept, device=CPU, bf16=bf16)
    prepare_model(twice, device=CPU, bf16=bf16, activation_checkpointing=True)
    wanted, found = gradients(kept, bf16=bf16), gradients(twice, bf16=bf16)
    assert found.keys() == wanted.keys() == {name for name, each in kept.named_parameters() if each.requires_grad}
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_blocks_are_computed_twice_indeed_and_layers_not_more_often(checkpointed: bool) -> None:
    model, calls = build(), {"block": 0, "layer": 0}
    prepare_model(model, device=CPU, activation_checkpointing=checkpointed)

    def count(name: str) -> Any:
        def note(*_: object) -> None:
            calls[name] += 1

        return note

    for block, layer in zip(model.get_submodule("fusion").children(), model.language.model.layers, strict=True):
        block.get_submodule("attention_norm").register_forward_pre_hook(count("block"))
        layer.mlp.register_forward_pre_hook(count("layer"))
    gradients(model)
    assert calls == {"block": 2 + 2 * checkpointed, "layer": 2 + 2 * checkpointed}


@pytest.mark.parametrize("blocks", BLOCKS)
def test_rows_without_images_give_zeros_and_not_nothing(blocks: dict[str, Any]) -> None:
    # A process that had no gradient to share would hang the others.
    model = build(blocks)
    found = gradients(model, lay_out([[Piece(20), Piece(5)], [Piece(9)]]))
    assert found.keys() == {name for name, each in model.named_parameters() if each.requires_grad}
    is_mlp = model.settings.blocks.text_tokens == "mlp"
    for name, gradient in found.items():
        if name.startswith(("vision", "connector")) or (name.startswith("fusion") and not (is_mlp and "mlp" in name)):
            assert not gradient.any(), name
        assert torch.isfinite(gradient).all(), name


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("rows", [1, 2])
def test_micro_batches_add_up_to_the_whole(blocks: dict[str, Any], rows: int) -> None:
    model = build(blocks)
    wanted = gradients(model)
    model.zero_grad()
    for part in micro_batches(BATCH, rows):
        torch.autograd.backward(model.loss(part, BATCH.label_tokens, 1e-4)[0])
    for name, parameter in model.named_parameters():
        if name in wanted:
            assert parameter.grad is not None
            assert (parameter.grad - wanted[name]).abs().max() <= 1e-5 * wanted[name].abs().max() + 1e-8, name


def chosen_pieces(model: CrossAttentionModel, batch: Batch) -> set[tuple[str, str, int, int]]:
    """Return which pieces of a batch read the next image."""
    told = model.tensors_of(batch).next_image
    assert told is not None
    segments = set(batch.segment[told.numpy()].tolist())
    for number in segments:
        assert told[torch.tensor(batch.segment == number)].all(), "a piece reads one way or the other"
    assert -1 not in segments
    pieces = [batch.provenance[number] for number in segments]
    return {(piece.source, piece.shard, piece.row, piece.start) for piece in pieces}


def test_a_piece_reads_the_next_image_whatever_the_micro_batches_and_its_company() -> None:
    model = make_crossing(blocks={"p_next": 0.4}).train()
    whole = chosen_pieces(model, BATCH)
    parts = [chosen_pieces(model, part) for part in micro_batches(BATCH, 1)]
    assert set().union(*parts) == whole
    assert whole
    assert len(whole) < len(BATCH.provenance)


def test_the_share_of_pieces_that_read_the_next_image_is_the_settings() -> None:
    pieces = tuple(
        BatchPiece(source="web", shard=f"part-{row % 7}", row=row, start=0, stop=1, images=0) for row in range(4000)
    )
    batch = lay_out([[Piece(1)] * 4000])
    batch = dataclasses.replace(batch, provenance=pieces)
    for share in (0.1, 0.5, 1.0):
        told = make_crossing(blocks={"p_next": share}).train().tensors_of(batch).next_image
        assert told is not None
        assert float(told.float().mean()) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 4000))


def test_the_next_image_is_for_training_alone() -> None:
    model = make_crossing(blocks={"p_next": 1.0})
    plain, ahead = make_crossing(), make_crossing(blocks={"attend": "next"})
    assert torch.equal(logits_of(model, BATCH), logits_of(plain, BATCH))
    assert torch.equal(logits_of(model.train(), BATCH), logits_of(ahead.train(), BATCH))
    assert not torch.equal(logits_of(ahead, BATCH), logits_of(plain, BATCH))


def test_gates_norms_and_latents_are_not_decayed_and_all_is_of_the_connectors_rate() -> None:
    for gates in ("scalar", "vector"):
        model = build({"gates": gates})
        undecayed = undecayed_names(model)
        ours = [name for name, _ in model.named_parameters() if name.startswith(("fusion", "connector"))]
        for name in ours:
            is_matrix = name.endswith(".weight") and "norm" not in name
            assert (name not in undecayed) == is_matrix, name
        assert {name.rpartition(".")[2] for name in ours if name in undecayed} >= {"latents", "mlp_gate", "weight"}
        optimizer = make_optimizer(model, OptimizerSettings(learning_rate=1e-3, rates={"connector": 1e-4}), part_of)
        rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
        for name, parameter in model.named_parameters():
            assert rates[id(parameter)] == (1e-4 if name in ours else 1e-3)


@pytest.mark.parametrize("changes", [PARTLY, {"trained": ("connector",)}, {"trained": ("language",)}])
def test_frozen_parts_keep_every_bit_and_trained_ones_change(changes: dict[str, Any]) -> None:
    model = build({"gates": "vector"}, **changes)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train(model)
    trained = {*changes["trained"], *(("adapters",) if "adapters" in changes else ())}
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}
    wanted = {name for name in before if part_of(name) in trained}
    assert changed == wanted
    assert any(name.startswith("fusion") for name in wanted) == ("connector" in trained)


@pytest.mark.parametrize("changes", [{}, PARTLY, {"trained": ("connector",)}])
@pytest.mark.parametrize("blocks", BLOCKS)
def test_bf16_trains_nearly_as_fp32_does(blocks: dict[str, Any], changes: dict[str, Any]) -> None:
    if "adapters" in changes:
        changes = {**changes, "adapters": LORA.model_copy(update={"dropout": 0.0})}
    model = build(blocks, **changes)
    prepare_model(model, device=CPU, bf16=True)
    frozen = {each.dtype for each in model.parameters() if not each.requires_grad}
    assert frozen == ({torch.bfloat16} if changes else set())
    assert {each.dtype for each in model.parameters() if each.requires_grad} == {torch.float32}
    losses, wanted = train(model, bf16=True), train(build(blocks, **changes))
    assert losses[-1] < losses[0] - 0.02
    assert losses == pytest.approx(wanted, rel=0.005)


def test_bf16_keeps_a_document_without_images_to_the_bit() -> None:
    model = build(trained=("connector",)).eval()
    prepare_model(model, device=CPU, bf16=True)
    ids, positions = (torch.tensor(each) for each in (BATCH.input_ids, BATCH.positions))
    with torch.no_grad(), arithmetic(ComputeSettings(precision="bf16"), CPU):
        found = model(model.tensors_of(BATCH))
        bare = model.language(input_ids=ids, position_ids=positions, use_cache=False).logits
    plain = torch.tensor([not piece.images for piece in BATCH.provenance] + [True])[BATCH.segment]
    assert torch.equal(found[plain], bare[plain])


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_trained_model_is_saved_and_comes_back_to_the_bit(kind: str, blocks: dict[str, Any], tmp_path: Path) -> None:
    changes: dict[str, Any] = {}
    if kind == "gpt2":
        sizes = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256}
        changes["language"] = crossing_settings().language.model_copy(update={"type": "gpt2", "config": sizes})
    model = build(blocks, "llama" if kind == "gpt2" else kind, **changes)
    train(model, steps=2)
    save_model(model.eval(), tmp_path)
    again = load_model(tmp_path)
    assert again.settings == model.settings
    assert isinstance(again, CrossAttentionModel)
    assert torch.equal(logits_of(again, BATCH), logits_of(model, BATCH))


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_beside_blocks_learn_merge_and_come_back(dora: bool, tmp_path: Path) -> None:
    model = build(trained=("connector",), adapters=LORA.model_copy(update={"dora": dora}))
    assert not any("fusion" in name for name, _ in model.named_parameters() if part_of(name) == "adapters")
    train(model, steps=3)
    model.eval()
    save_model(model, tmp_path)
    wanted = logits_of(model, BATCH)
    assert torch.equal(logits_of(load_model(tmp_path), BATCH), wanted)
    merge_adapters(model)
    assert (logits_of(model, BATCH) - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_adapters_on_trained_towers_are_stored_with_the_blocks(tmp_path: Path) -> None:
    save_vision(tmp_path / "vision", "siglip")
    save_language(tmp_path / "language")
    base = crossing_settings()
    towers = {
        "vision": {"folder": str(tmp_path / "vision")},
        "language": {"folder": str(tmp_path / "language")},
        "connector": base.connector.model_dump(mode="json"),
        "cross_attention": base.blocks.model_dump(mode="json"),
        "trained": ["connector"],
        "adapters": LORA.model_dump(mode="json"),
        "family": "cross_attention",
    }
    settings = ModelSettings.model_validate_json(json.dumps(towers))
    model = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), 32, seed=0)
    train(model, steps=2)
    save_adapters(model.eval(), tmp_path / "adapters")
    again = load_adapters(tmp_path / "adapters").eval()
    assert torch.equal(logits_of(again, BATCH), logits_of(model, BATCH))
