"""The leak that transformers' Idefics had until 2023 (issue 26428), brought back on purpose by `mask = "uniform"`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_builder import VOCABULARY
from model_images_read import Layout, Piece, crossing_settings, lay_out, logits_of

from carnac.core.batch import Batch
from carnac.model.build import build_model
from carnac.model.cross_attention.model import CrossAttentionModel
from carnac.model.formats.description import describe_model
from carnac.model.formats.folders import SpecialIds, write_folder
from carnac.model.language import Vocabulary
from carnac.model.settings import VisionSettings
from carnac.model.weights import load_model, save_model
from carnac.sequence.settings import PictureSettings

TOLERANCE = 1e-5  # of the logits' scale, as everywhere between transformers and us
# Rows of as many images each: transformers fills the others up with blank ones, which its leak would average too.
LAYOUT: Layout = [
    [Piece(9), Piece(12, (3, 4)), Piece(6), Piece(14, (0, 13))],
    [Piece(30, (5, 9, 20)), Piece(4, (3,)), Piece(2)],
]
ONE_IMAGE: Layout = [[Piece(10), Piece(20, (6,))], [Piece(8, (2,)), Piece(7)]]
SQUARE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "patch_size": 8, "num_hidden_layers": 2}


def make_pair(folder: Path, blocks: dict[str, Any]) -> tuple[CrossAttentionModel, CrossAttentionModel, Any]:
    """Return an exact model, a leaking one and transformers' Idefics, all of the same weights."""
    from transformers import AutoModelForImageTextToText

    told = {"text_tokens": "mlp", **blocks}
    tower = VisionSettings(type="clip_vision_model", config=SQUARE | {"num_attention_heads": 2}, class_token=True)
    exact, leaking = (
        build_model(
            crossing_settings("llama", told | {"mask": mask}, vision=tower),
            Vocabulary(size=VOCABULARY, pad_id=0, bos_id=3, eos_id=1),
            32,
            seed=0,
        ).eval()
        for mask in ("exact", "uniform")
    )
    leaking.load_state_dict(exact.state_dict())
    described = describe_model(exact, PictureSettings(size_px=32, patch_px=8, tokens=1, marks="idefics"))
    write_folder(exact, described, "idefics", SpecialIds(image=2, begin=3, end=1, pad=0), folder)
    auto: Any = AutoModelForImageTextToText
    assert isinstance(exact, CrossAttentionModel)
    assert isinstance(leaking, CrossAttentionModel)
    return exact, leaking, auto.from_pretrained(folder, local_files_only=True).eval()


def their_inputs(batch: Batch) -> dict[str, torch.Tensor]:
    """Return a packed batch as transformers' Idefics takes it: a 4-D mask of pieces, and which image a token reads."""
    rows, width = batch.segment.shape
    place = np.arange(width)
    pieces = (batch.segment[:, :, None] == batch.segment[:, None, :]) & (place[:, None] >= place)
    images = [np.flatnonzero(batch.image_slots[:, 0] == row) for row in range(rows)]
    reads = np.stack([batch.image_of_token[row][:, None] == images[row] for row in range(rows)])
    pixels = torch.stack([torch.tensor(batch.pixels[each]) for each in images])
    return {
        "input_ids": torch.tensor(batch.input_ids),
        "attention_mask": torch.tensor(pieces)[:, None],
        "position_ids": torch.tensor(batch.positions),
        "pixel_values": pixels,
        "image_attention_mask": torch.tensor(reads).long(),
    }


@contextmanager
def without_the_mend(theirs: Any) -> Iterator[None]:
    """Force the gate that zeroes what a token reads where it reads no image: as before transformers' PR 26839."""

    def force(_layer: Any, args: Any, told: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, told | {"cross_attention_gate": torch.ones_like(told["cross_attention_gate"])}

    hooks = [layer.register_forward_pre_hook(force, with_kwargs=True) for layer in theirs.model.gated_cross_attn_layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def their_logits(theirs: Any, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = theirs(**their_inputs(batch), use_cache=False).logits
    return found


@pytest.mark.parametrize("blocks", [{}, {"gates": "vector", "qk_norms": False}, {"every": 2}])
def test_the_leak_is_transformers_own_before_its_mend(blocks: dict[str, Any], tmp_path: Path) -> None:
    exact, leaking, theirs = make_pair(tmp_path, blocks)
    for layout in (ONE_IMAGE, LAYOUT):
        batch = lay_out(layout)
        mended = their_logits(theirs, batch)
        with without_the_mend(theirs):
            unmended = their_logits(theirs, batch)
        scale = float(mended.abs().max())
        differences = [
            float((logits_of(model, batch) - wanted).abs().max()) / scale
            for model, wanted in ((exact, mended), (leaking, unmended))
        ]
        print(
            f"exact differs from the mended by {differences[0]:.1e}, uniform from the unmended by {differences[1]:.1e}"
        )
        assert max(differences) <= TOLERANCE
        assert (mended - unmended).abs().max() > 1e-2 * scale
        # The first piece has no images, and the leak lets it see all of its row's.
        assert ((mended - unmended)[0, :9].abs().amax(-1) > 1e-3 * scale).all()


def test_a_later_image_reaches_earlier_tokens_through_the_leak_alone(tmp_path: Path) -> None:
    exact, leaking, theirs = make_pair(tmp_path, {})
    batch = lay_out([[Piece(10), Piece(20, (6, 12))]])
    pixels = batch.pixels.copy()
    pixels[1] += 1.0
    other = dataclasses.replace(batch, pixels=pixels)
    moved = [logits_of(model, other) - logits_of(model, batch) for model in (exact, leaking)]
    with without_the_mend(theirs):
        moved.append(their_logits(theirs, other) - their_logits(theirs, batch))
    before = np.s_[0, : 10 + 6]
    assert not moved[0][before].any()
    assert (moved[1][before].abs().amax(-1) > 1e-4).all()
    assert (moved[1] - moved[2]).abs().max() <= TOLERANCE * float(logits_of(leaking, batch).abs().max())


def test_images_of_other_rows_do_not_leak_and_a_row_without_any_reads_nothing() -> None:
    leaking = build_model(
        crossing_settings("llama", {"mask": "uniform"}), Vocabulary(size=VOCABULARY, pad_id=0), 32, seed=0
    ).eval()
    batch = lay_out([[Piece(12, (5,))], [Piece(7), Piece(5, (1,))], [Piece(12)]])
    pixels = batch.pixels.copy()
    pixels[1] += 1.0
    moved = (logits_of(leaking, dataclasses.replace(batch, pixels=pixels)) - logits_of(leaking, batch)).abs().amax(-1)
    assert not moved[0].any()
    assert moved[1].all()
    assert not moved[2].any()


def test_a_leaking_model_trains_and_comes_back(tmp_path: Path) -> None:
    leaking = build_model(
        crossing_settings("llama", {"mask": "uniform", "attend": "earlier"}),
        Vocabulary(size=VOCABULARY, pad_id=0),
        32,
        seed=0,
    )
    batch = lay_out(LAYOUT)
    torch.autograd.backward(leaking.loss(batch, batch.label_tokens)[0])
    assert all(each.grad is not None and torch.isfinite(each.grad).all() for each in leaking.parameters())
    save_model(leaking.eval(), tmp_path)
    assert torch.equal(logits_of(load_model(tmp_path), batch), logits_of(leaking, batch))
