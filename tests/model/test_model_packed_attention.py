from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_builder import FAMILIES, Rows, make_batch, make_family

from carnac.core.batch import Batch
from carnac.model import packed_attention
from carnac.model.multimodal import MultimodalModel
from carnac.model.packed_attention import NAME, find_blocks, use_packed_attention
from carnac.model.tensors import to_tensors
from carnac.model.weights import CONFIG_FILE, save_model

ROWS: Rows = [[(23, 2), (9, 0), (131, 3), (90, 1), (47, 0)], [(240, 1), (12, 1)], [(18, 0)]]
# Gemma 2 caps its logits, which torch's attention cannot: it stays with its own.
CUT = sorted(set(FAMILIES) - {"gemma2"})


def gradients(model: MultimodalModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (losses of the tokens, all gradients in one vector)."""
    model.zero_grad()
    total, per_token = model.loss(batch, batch.label_tokens)
    torch.autograd.backward(total)
    found = [each.grad.flatten() for each in model.parameters() if each.grad is not None]
    return per_token, torch.cat(found)


def attend_whole_rows(model: MultimodalModel) -> None:
    model.language.set_attn_implementation("sdpa")


def blocks_made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Keep what `find_blocks` returns."""
    found: list[Any] = []

    def kept(mask: torch.Tensor) -> Any:
        found.append(find_blocks(mask))
        return found[-1]

    monkeypatch.setattr(packed_attention, "find_blocks", kept)
    return found


@pytest.mark.parametrize("kind", CUT)
def test_losses_and_gradients_are_those_of_whole_rows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks_made(monkeypatch)
    model, batch = make_family(kind), make_batch(ROWS)
    assert model.language.config._attn_implementation == NAME
    losses, slopes = gradients(model, batch)
    assert {blocks.lengths for blocks in found} == {(23, 9, 131, 90, 47, 240, 12, 48, 18, 282)}
    attend_whole_rows(model)
    wanted, wanted_slopes = gradients(model, batch)
    assert (losses - wanted).abs().max() <= 1e-5
    assert (slopes - wanted_slopes).norm() <= 1e-5 * wanted_slopes.norm()


@given(
    st.sampled_from(CUT),
    st.lists(st.lists(st.tuples(st.integers(2, 40), st.just(0)), min_size=1, max_size=12), min_size=1, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_any_layout_of_pieces_is_that_of_whole_rows(kind: str, rows: Rows) -> None:
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(packed_attention, "MIN_TOKENS", 1)
        model, batch = make_family(kind), make_batch(rows)
        logits = model(to_tensors(batch, model.tokens_per_image, model.device))
        attend_whole_rows(model)
        wanted = model(to_tensors(batch, model.tokens_per_image, model.device))
    assert (logits - wanted).abs().max() <= 1e-5


def test_checkpointed_layers_give_the_same_gradients_to_the_bit() -> None:
    model, batch = make_family("llama").train(), make_batch(ROWS)
    losses, slopes = gradients(model, batch)
    model.language.activation_checkpointing_enable()
    again, slopes_again = gradients(model, batch)
    assert torch.equal(losses, again)
    assert torch.equal(slopes, slopes_again)


def test_what_is_not_finite_in_a_piece_stays_in_it() -> None:
    model, batch = make_family("llama"), make_batch(ROWS)
    poisoned = dataclasses.replace(batch, pixels=np.where(np.arange(8)[:, None, None, None] == 3, np.nan, batch.pixels))
    _, losses = model.loss(poisoned, poisoned.label_tokens)
    struck = batch.segment[batch.image_slots[3, 0], batch.image_slots[3, 1]]
    bad = ~np.isfinite(losses.numpy())
    assert set(np.unique(batch.segment[bad])) == {struck}


def test_rows_that_hold_one_piece_need_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks_made(monkeypatch)
    gradients(make_family("llama"), make_batch([[(280, 1)], [(280, 0)]]))
    assert found == []


def test_short_rows_are_left_to_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks_made(monkeypatch)
    gradients(make_family("llama"), make_batch([[(100, 1), (40, 0)]]))
    assert found == []


def causal(*lengths: int, window: int = 9) -> torch.Tensor:
    """Return a packed mask of one row; a token sees `window` tokens, itself included."""
    pieces = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    places = torch.arange(len(pieces))
    distance = places[:, None] - places[None]
    return (pieces[:, None] == pieces[None]) & (distance >= 0) & (distance < window)


def test_blocks_are_found_row_after_row_and_whole_ones_need_no_mask() -> None:
    mask = torch.stack([causal(3, 1, 2), causal(5, 1, window=2)])[:, None]
    blocks = find_blocks(mask)
    assert blocks is not None
    assert blocks.lengths == (3, 1, 2, 5, 1)
    assert [each is None for each in blocks.masks] == [True, True, True, False, True]
    assert blocks.masks[3] is not None
    assert torch.equal(blocks.masks[3], causal(5, window=2))


def test_a_mask_that_sees_beyond_its_blocks_is_not_cut() -> None:
    mask = causal(3, 3)
    mask[4, 0] = True
    assert find_blocks(mask[None, None]) is None
    assert find_blocks(causal(6)[None, None, :, :4]) is None
    assert find_blocks(causal(6)[None, None].expand(1, 2, 6, 6)) is None


@pytest.mark.parametrize("kind", ["gemma2", "falcon"])
def test_families_with_an_attention_of_their_own_keep_it(kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": 64}
    language = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, intermediate_size=32))  # type: ignore[no-untyped-call]
    before = language.config._attn_implementation
    use_packed_attention(language)
    assert language.config._attn_implementation == before != NAME


def test_the_way_of_attending_is_not_part_of_a_saved_model(tmp_path: Path) -> None:
    save_model(make_family("llama"), tmp_path)
    assert NAME not in (tmp_path / CONFIG_FILE).read_text()
