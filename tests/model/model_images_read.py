"""Tiny models of the cross-attention family, and batches whose pieces have images wherever they are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from model_builder import FAMILIES, IMAGE_SIZE_PX, VOCABULARY, make_settings

from carnac.core.batch import IGNORED, Batch
from carnac.core.batch import Piece as BatchPiece
from carnac.core.seeds import generator
from carnac.model.build import build_model
from carnac.model.cross_attention.model import CrossAttentionModel
from carnac.model.language import Vocabulary
from carnac.model.settings import CrossAttentionSettings, ModelSettings, ResamplerSettings

IMAGE_ID = 2
RESAMPLER = ResamplerSettings(type="resampler", latents=3, depth=1, heads=2, head_size=8)
OPEN: dict[str, Any] = {"every": 1, "gate_start": 0.7, "gate_spread": 0.4}  # gates wide enough for a leak to show
Images = list[list[bool]]


@dataclass(frozen=True)
class Piece:
    """A piece of so many tokens, and those of them at which an image stands."""

    tokens: int
    images: tuple[int, ...] = ()


Layout = list[list[Piece]]

# Images at the start, the end and side by side, none, all, in rows of unequal lengths.
LAYOUT: Layout = [
    [Piece(23, (0, 9)), Piece(9), Piece(31, (4, 5, 30))],
    [Piece(12), Piece(1, (0,)), Piece(1), Piece(40, (7, 25)), Piece(3, (0, 1, 2))],
    [Piece(18)],
]


def crossing_settings(kind: str = "llama", blocks: dict[str, Any] | None = None, **changes: Any) -> ModelSettings:
    """Return the settings of a tiny model with open gates; `blocks` go over them, `changes` over the model's."""
    told = {
        "family": "cross_attention",
        "connector": RESAMPLER,
        "cross_attention": CrossAttentionSettings(**(OPEN | (blocks or {}))),
    }
    return make_settings(kind, **FAMILIES.get(kind, {})).model_copy(update=told | changes)


def make_crossing(
    kind: str = "llama", blocks: dict[str, Any] | None = None, *, seed: int = 0, **changes: Any
) -> CrossAttentionModel:
    """Return a tiny model of the cross-attention family, in evaluation mode."""
    vocabulary = Vocabulary(size=VOCABULARY, pad_id=0, bos_id=None, eos_id=1)
    model = build_model(crossing_settings(kind, blocks, **changes), vocabulary, IMAGE_SIZE_PX, seed)
    assert isinstance(model, CrossAttentionModel)
    return model.eval()


def lay_out(layout: Layout, *, seed: int = 0) -> Batch:
    """Return a batch of random ids and pictures, its rows padded to the longest."""
    draws = generator(seed, "layout")
    shape = (len(layout), max(sum(piece.tokens for piece in row) for row in layout))
    arrays: dict[str, Any] = {
        "input_ids": np.zeros(shape, np.int64),
        "labels": np.full(shape, IGNORED, np.int64),
        "positions": np.zeros(shape, np.int64),
        "segment": np.full(shape, -1, np.int64),
        "image_of_token": np.full(shape, -1, np.int64),
    }
    slots: list[tuple[int, int, int]] = []
    pieces: list[BatchPiece] = []
    for number, row in enumerate(layout):
        first = 0
        for piece in row:
            _put_piece(piece, arrays, (number, first), len(pieces), slots, draws)
            pieces.append(
                BatchPiece(
                    source="web", shard="part", row=len(pieces), start=0, stop=piece.tokens, images=len(piece.images)
                )
            )
            first += piece.tokens
        arrays["positions"][number, first:] = np.arange(shape[1] - first)
    pixels = draws.standard_normal((len(slots), 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX), dtype=np.float32)
    return Batch(
        **arrays, image_slots=np.array(slots, np.int64).reshape(-1, 3), pixels=pixels, provenance=tuple(pieces)
    )


def _put_piece(
    piece: Piece,
    arrays: dict[str, Any],
    start: tuple[int, int],
    number: int,
    slots: list[tuple[int, int, int]],
    draws: np.random.Generator,
) -> None:
    row, first = start
    where = np.s_[row, first : first + piece.tokens]
    ids = draws.integers(3, VOCABULARY, piece.tokens)
    ids[list(piece.images)] = IMAGE_ID
    arrays["input_ids"][where] = ids
    arrays["labels"][where] = np.append(np.where(ids[1:] == IMAGE_ID, IGNORED, ids[1:]), IGNORED)
    arrays["positions"][where] = np.arange(piece.tokens)
    arrays["segment"][where] = number
    for image in piece.images:
        arrays["image_of_token"][row, first + image : first + piece.tokens] = len(slots)
        slots.append((row, first + image, 1))


def layouts(*, rows: int = 3, pieces: int = 8, tokens: int = 24) -> st.SearchStrategy[Layout]:
    """Return a strategy of layouts: any pieces, with any of their tokens images."""
    piece = st.integers(1, tokens).flatmap(
        lambda length: st.builds(
            lambda places: Piece(length, tuple(sorted(places))), st.sets(st.integers(0, length - 1), max_size=5)
        )
    )
    row = st.lists(piece, min_size=1, max_size=pieces)
    return st.lists(row, min_size=1, max_size=rows)


def who_reads(layout: Layout, attend: str, chosen: set[int] | None = None) -> list[list[set[int]]]:
    """Return by the definition, token by token, the images that each token of each row reads; padding reads none.

    `chosen`: numbers of pieces whose tokens read the next image whatever `attend` says.
    """
    found: list[list[set[int]]] = []
    image = piece_number = 0
    for row in layout:
        told: list[set[int]] = []
        for piece in row:
            numbers = {place: image + order for order, place in enumerate(piece.images)}
            kind = "next" if piece_number in (chosen or set()) else attend
            told += [_read_by(token, numbers, kind) for token in range(piece.tokens)]
            image, piece_number = image + len(piece.images), piece_number + 1
        found.append(told)
    width = max(map(len, found))
    return [told + [set()] * (width - len(told)) for told in found]


def _read_by(token: int, numbers: dict[int, int], kind: str) -> set[int]:
    before = [place for place in sorted(numbers) if place <= token]
    after = [place for place in sorted(numbers) if place >= token]
    chosen = {"previous": before[-1:], "next": after[:1], "earlier": before}[kind]
    return {numbers[place] for place in chosen}


def add_to_gate(block: Any) -> None:
    """Open the gate of a block's attention wider, so that the model says something else."""
    with torch.no_grad():
        block.attention_gate.add_(0.5)


def logits_of(model: Any, batch: Batch) -> torch.Tensor:
    """Return the logits [R, T, V] of a batch."""
    with torch.no_grad():
        found: torch.Tensor = model(model.tensors_of(batch))
    return found


def bare_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Return what the language model alone makes of the ids of a batch, packed as they are."""
    ids, positions = (torch.tensor(each) for each in (batch.input_ids, batch.positions))
    with torch.no_grad():
        found: torch.Tensor = model.language(
            input_ids=ids, position_ids=positions, attention_mask=None, use_cache=False
        ).logits
    return found
