"""The same packed rows for our cross-attention model and for transformers' Idefics, which takes masks instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model_formats import Case, Fields, make_talkative, settings_of

from carnac.core.seeds import generator
from carnac.model.build import build_model
from carnac.model.formats.description import describe_model
from carnac.model.formats.folders import SpecialIds, write_folder
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import CrossAttentionSettings, ResamplerSettings
from carnac.model.tensors import BatchTensors
from carnac.sequence.settings import PictureSettings

VOCABULARY, IMAGE = 61, 7
IDS = SpecialIds(image=IMAGE, begin=None, end=1, pad=0)
Piece = tuple[int, tuple[int, ...]]  # tokens, and the places of its images
Rows = Sequence[Sequence[Piece]]
# Unequal lengths and counts; an image first, last, side by side; a piece and a row without any.
ROWS: Rows = (
    ((13, (0, 5, 6)), (9, ()), (11, (10,))),
    ((17, ()),),
    ((7, (3,)), (19, (1, 2))),
)


def idefics_case(
    blocks: dict[str, Any] | None = None, resampler: dict[str, Any] | None = None, language: Fields | None = None,
    **fields: Any,
) -> Case:  # fmt: skip
    """Return a case that the format can express; gates are open from the start."""
    told = {"every": 1, "text_tokens": "mlp", "gate_start": 0.5, "gate_spread": 0.3, **(blocks or {})}
    latents = {"type": "resampler", "latents": 5, "depth": 2, "heads": 3, "head_size": 8, **(resampler or {})}
    return Case(
        format="idefics",
        vision_type="clip_vision_model",
        class_token=True,
        blocks=CrossAttentionSettings.model_validate(told),
        connector=ResamplerSettings.model_validate(latents),
        language=language,
        **fields,
    )


def make_idefics(case: Case, added_ids: tuple[int, ...] = (), rows: int = VOCABULARY) -> MultimodalModel:
    """Return our model of a case with a language model of `rows` rows of its own and tokens added to it."""
    vocabulary = Vocabulary(size=rows, pad_id=0, bos_id=None, eos_id=1, added_ids=added_ids)
    model = build_model(settings_of(case), vocabulary, case.size_px, seed=5).eval()
    make_talkative(model)
    return model


def their_idefics(model: MultimodalModel, case: Case, folder: Path) -> Any:
    """Write our model as Idefics into `folder` and return what transformers reads there."""
    from transformers import AutoModelForImageTextToText

    pictures = PictureSettings(size_px=case.size_px, patch_px=case.patch_px, marks="idefics", tokens=1)
    write_folder(model, describe_model(model, pictures), "idefics", IDS, folder)
    auto: Any = AutoModelForImageTextToText
    theirs = auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    assert type(theirs).__name__ == "IdeficsForVisionText2Text"
    return theirs


def make_tensors(model: MultimodalModel, rows: Rows = ROWS, seed: int = 0) -> BatchTensors:
    """Return rows of pieces, filled up behind their ends with pieces of nothing."""
    draws = generator(seed, "idefics rows")
    width, side = max(sum(tokens for tokens, _ in row) for row in rows), model.image_size_px
    vocabulary = model.language.config.vocab_size
    ids, positions = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    places: list[int] = []
    for number, row in enumerate(rows):
        start = 0
        for tokens, images in row:
            drawn = draws.integers(0, vocabulary, tokens)
            drawn[drawn == IMAGE] = IMAGE + 1
            drawn[list(images)] = IMAGE
            ids[number, start : start + tokens], positions[number, start : start + tokens] = drawn, np.arange(tokens)
            places += [number * width + start + place for place in images]
            start += tokens
        positions[number, start:] = np.arange(width - start)
    return BatchTensors(
        input_ids=torch.from_numpy(ids),
        labels=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        image_places=torch.tensor(places, dtype=torch.long).reshape(-1, 1),
        pixels=torch.from_numpy(draws.standard_normal((len(places), 3, side, side), dtype=np.float32)),
    )


def their_inputs(batch: BatchTensors) -> dict[str, torch.Tensor]:
    """Return what transformers' Idefics is told of the same batch, token by token and without our index arithmetic."""
    rows, width = batch.positions.shape
    images = [[int(place) for place in batch.image_places[:, 0] if place // width == row] for row in range(rows)]
    most = max(1, *map(len, images))
    pixels = torch.zeros(rows, most, *batch.pixels.shape[1:])
    seen = torch.zeros(rows, width, width, dtype=torch.bool)
    reads = torch.zeros(rows, width, most, dtype=torch.bool)
    first = 0
    for row in range(rows):
        pixels[row, : len(images[row])] = batch.pixels[first : first + len(images[row])]
        first += len(images[row])
        begun, image = 0, -1
        for token in range(width):
            if batch.positions[row, token] == 0:
                begun, image = token, -1
            if row * width + token in images[row]:
                image = images[row].index(row * width + token)
            seen[row, token, begun : token + 1] = True
            if image >= 0:
                reads[row, token, image] = True
    return {
        "input_ids": batch.input_ids,
        "position_ids": batch.positions,
        "attention_mask": seen[:, None],
        "pixel_values": pixels,
        "image_attention_mask": reads,
    }


def worst_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def compare_logits(model: MultimodalModel, theirs: Any, batch: BatchTensors) -> float:
    """Return by how much the logits of both differ, as a share of their scale."""
    with torch.no_grad():
        return worst_difference(model(batch), theirs(**their_inputs(batch), use_cache=False).logits)
