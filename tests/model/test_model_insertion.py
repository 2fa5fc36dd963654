"""Blocks between the layers of language models of many families, which somebody else wrote."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from model_images_read import LAYOUT, add_to_gate, bare_logits, crossing_settings, lay_out, logits_of, make_crossing
from test_model_families import ADDED, FAMILIES, SIZES

from carnac.core.errors import InputError
from carnac.model.build import build_model, build_skeleton
from carnac.model.cross_attention.insertion import KEYWORD, ImagesRead, decoder_layers
from carnac.model.cross_attention.model import CrossAttentionModel
from carnac.model.precision import prepare_model
from carnac.model.settings import TowerSettings
from carnac.model.towers import configuration_class, own_fields

BATCH = lay_out(LAYOUT)
REFUSED = ["gptj", "codegen"]  # they hand no keyword down to their layers
# Experts are computed together: how many tokens meet one decides the shape of a product, and so the last bits.
EXPERTS = ["mixtral", "qwen2_moe", "qwen3_moe"]


def make_small(kind: str) -> CrossAttentionModel:
    """Return a small model of a family, its sizes under the family's own names."""
    known = own_fields(kind) - set(configuration_class(kind).attribute_map)
    sizes = {name: size for name, size in SIZES.items() if name in known}
    settings = crossing_settings(language=TowerSettings(type=kind, config=sizes))
    model = build_model(settings, ADDED, 32, seed=0).eval()
    assert isinstance(model, CrossAttentionModel)
    return model


def gradients(model: CrossAttentionModel) -> dict[str, torch.Tensor]:
    model.train().zero_grad()
    torch.manual_seed(4)  # for what drops out
    torch.autograd.backward(model.loss(BATCH, BATCH.label_tokens)[0])
    model.eval()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind not in REFUSED])
def test_a_family_reads_images_in_every_block_and_trains(kind: str) -> None:
    model = make_small(kind)
    found, bare = logits_of(model, BATCH), bare_logits(model, BATCH)
    plain = torch.tensor([not piece.images for piece in BATCH.provenance] + [True])[BATCH.segment]
    if kind in EXPERTS:
        assert (found[plain] - bare[plain]).abs().max() <= 1e-6 * bare.abs().max()
    else:
        assert torch.equal(found[plain], bare[plain])
    assert not (found[~plain] == bare[~plain]).all()
    for block in model.fusion:
        add_to_gate(block)
        before, found = found, logits_of(model, BATCH)
        assert not torch.equal(found, before)
    kept = gradients(model)
    assert kept.keys() == {name for name, _ in model.named_parameters()}
    prepare_model(model, device=torch.device("cpu"), activation_checkpointing=True)
    twice = gradients(model)
    assert all(torch.equal(kept[name], twice[name]) for name in kept)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_family_that_hands_no_images_down_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match=f"{kind} hands images to 0 of its 2 layers; wanted all of them"):
        make_small(kind)


def test_a_model_whose_layers_are_not_to_be_found_is_refused() -> None:
    model = make_crossing()
    model.language.config.num_hidden_layers = 7
    with pytest.raises(InputError, match="llama keeps its layers where no cross-attention can be put between"):
        decoder_layers(model.language)


def test_a_copy_reads_with_its_own_blocks() -> None:
    model = make_crossing()
    other = copy.deepcopy(model)
    before = logits_of(model, BATCH)
    with torch.no_grad():
        for block in model.fusion:
            for name in ("attention_gate", "mlp_gate"):
                block.get_parameter(name).zero_()
    assert torch.equal(logits_of(other, BATCH), before)
    assert torch.equal(logits_of(model, BATCH), bare_logits(model, BATCH))


def test_a_skeleton_has_the_names_shapes_and_trained_parts_of_the_model() -> None:
    changes: dict[str, Any] = {"trained": ("connector",)}
    skeleton = build_skeleton(crossing_settings(**changes), ADDED, 32)
    model = build_model(crossing_settings(**changes), ADDED, 32, seed=0)
    told = [
        {name: (each.shape, each.requires_grad) for name, each in one.named_parameters()} for one in (skeleton, model)
    ]
    assert told[0] == told[1]
    assert {each.device.type for each in skeleton.parameters()} == {"meta"}


def test_a_language_model_called_without_images_is_the_bare_one_and_keeps_nothing() -> None:
    model = make_crossing()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = model.language(input_ids=ids, use_cache=False).logits
        logits_of(model, BATCH)
        assert torch.equal(model.language(input_ids=ids, use_cache=False).logits, before)


def test_keys_and_values_made_beforehand_give_what_the_latents_give() -> None:
    model = make_crossing(blocks={"attend": "earlier"})
    tensors = model.tensors_of(BATCH)
    with torch.no_grad():
        told = model.inputs_of(tensors)
        wanted = model.language(**told, position_ids=tensors.positions, use_cache=False).logits
        read: ImagesRead = told[KEYWORD]
        assert read.memory is not None
        blocks: list[Any] = list(model.fusion)
        made = [block.keys_values(read.memory) for block in blocks]
        told[KEYWORD] = ImagesRead(groups=read.groups, keys_values=made)
        assert torch.equal(model.language(**told, position_ids=tensors.positions, use_cache=False).logits, wanted)


def test_heads_that_do_not_share_the_width_are_refused() -> None:
    with pytest.raises(InputError, match="heads: 5 does not divide the language model's width, 48"):
        make_crossing(blocks={"heads": 5})


def test_proving_the_insertion_leaves_the_model_as_it_was() -> None:
    before = torch.get_rng_state()
    model = make_crossing()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [len(layer._forward_pre_hooks) for layer in decoder_layers(model.language)] == [1, 1]
