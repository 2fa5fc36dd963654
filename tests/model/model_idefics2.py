"""Tiny models with pictures of any shape: ours and transformers' Idefics2 on the same ids and pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from carnac.model.build import build_model
from carnac.model.formats.description import Description, describe_model
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import (
    ConfigValue,
    ConnectorSettings,
    ModelSettings,
    PerceiverSettings,
    TowerSettings,
    VisionSettings,
)
from carnac.model.tensors import BatchTensors
from carnac.sequence.settings import PictureSettings

PATCH_PX, SIDE_PX, VOCABULARY, IMAGE = 8, 48, 96, 7
PERCEIVER = PerceiverSettings(type="perceiver", latents=5, depth=2, heads=4, head_size=12, kv_heads=2)
Fields = dict[str, ConfigValue]
Size = tuple[int, int]  # height and width in patches


@dataclass(frozen=True, kw_only=True)
class Row:
    """A document: how many tokens, and (place, size) of each picture."""

    tokens: int
    images: tuple[tuple[int, Size], ...] = ()


# Unequal lengths and counts; first, last, side by side; a strip, a column, one patch, a whole square.
ROWS = (
    Row(tokens=31, images=((4, (6, 6)), (9, (1, 6)), (20, (5, 2)))),
    Row(tokens=12),
    Row(tokens=17, images=((0, (6, 1)), (12, (1, 1)))),
    Row(tokens=9, images=((2, (3, 4)),)),
)
SQUARES = tuple(Row(tokens=row.tokens, images=tuple((place, (6, 6)) for place, _ in row.images)) for row in ROWS)


def settings_of(
    connector: ConnectorSettings = PERCEIVER, language: str = "llama", fields: Fields | None = None
) -> ModelSettings:
    vision: Fields = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text: Fields = {"hidden_size": 48, "intermediate_size": 96, "max_position_embeddings": 512}
    text |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return ModelSettings(
        vision=VisionSettings(type="siglip_vision_model", config={**vision, "patch_size": PATCH_PX}),
        connector=connector,
        language=TowerSettings(type=language, config=text | (fields or {})),
    )


def pictures_of(*, native: bool = True, **changes: Any) -> PictureSettings:
    told: dict[str, Any] = {"size_px": SIDE_PX, "patch_px": PATCH_PX, "marks": "idefics2"}
    return PictureSettings(**{**told, "aspect": "native" if native else "square", **changes})


def make_native(
    settings: ModelSettings | None = None, *, native: bool = True, added_ids: tuple[int, ...] = (), seed: int = 3
) -> MultimodalModel:
    """Return a tiny model in evaluation mode whose weights are large enough to show a wrong one."""
    vocabulary = Vocabulary(size=VOCABULARY, pad_id=0, bos_id=None, eos_id=1, added_ids=added_ids)
    model = build_model(settings or settings_of(), vocabulary, SIDE_PX, seed, native_aspect=native).eval()
    enlarge(model)
    return model


def enlarge(model: torch.nn.Module) -> None:
    draws = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.1)


def describe(model: MultimodalModel, *, native: bool = True) -> Description:
    return describe_model(model, pictures_of(native=native, tokens=model.tokens_per_image))


def picture(size: Size, draws: torch.Generator, side_px: int = SIDE_PX) -> torch.Tensor:
    """Return [3, S, S]: random pixels at the top left, NaN beyond them."""
    height, width = size[0] * PATCH_PX, size[1] * PATCH_PX
    pixels = torch.full((3, side_px, side_px), math.nan)
    pixels[:, :height, :width] = torch.randn(3, height, width, generator=draws)
    return pixels


def batch_of(rows: Sequence[Row], model: MultimodalModel, *, packed: bool = False, image: int = IMAGE) -> BatchTensors:
    """Return rows as our model reads them: padded at the end with id 0, or packed into one row."""
    tokens_per_image, side_px = model.tokens_per_image, model.image_size_px
    draws = torch.Generator().manual_seed(5)
    longest = max(row.tokens for row in rows)
    ids, positions, places, pixels = [], [], [], []
    for number, row in enumerate(rows):
        length = row.tokens if packed else longest
        start = sum(each.tokens for each in rows[:number]) if packed else number * longest
        told = torch.zeros(length, dtype=torch.long)
        told[: row.tokens] = torch.randint(10, VOCABULARY, (row.tokens,), generator=draws)
        for place, size in row.images:
            told[place : place + tokens_per_image] = image
            places.append(start + torch.arange(place, place + tokens_per_image))
            pixels.append(picture(size, draws, side_px))
        ids.append(told)
        positions.append(torch.arange(length))
    shape = (1, -1) if packed else (len(rows), longest)
    input_ids = torch.cat(ids).view(shape)
    return BatchTensors(
        input_ids=input_ids,
        labels=input_ids,
        positions=torch.cat(positions).view(shape),
        image_places=torch.stack(places) if places else torch.zeros(0, tokens_per_image, dtype=torch.long),
        pixels=torch.stack(pixels) if pixels else torch.zeros(0, 3, side_px, side_px),
    )


def their_pictures(rows: Sequence[Row], pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return pixel_values [R, M, 3, H, W] and pixel_attention_mask [R, M, H, W] of our squares, as the class wants."""
    most = max(len(row.images) for row in rows)
    if not most:
        return {}
    finite = pixels[:, 0].isfinite()
    height, width = int(finite.any(2).sum(1).max()), int(finite.any(1).sum(1).max())
    values = torch.zeros(len(rows), most, 3, height, width)
    mask = torch.zeros(len(rows), most, height, width, dtype=torch.bool)
    squares = iter(pixels)
    for number, row in enumerate(rows):
        for place in range(len(row.images)):
            square = next(squares)[:, :height, :width]
            values[number, place], mask[number, place] = square.nan_to_num(), square[0].isfinite()
    return {"pixel_values": values, "pixel_attention_mask": mask}


@torch.no_grad()
def worst(model: MultimodalModel, theirs: Any, rows: Sequence[Row], image: int = IMAGE) -> float:
    """Return the largest difference of the logits, as a share of their scale: alone, padded side by side, packed."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for batch, shown in [(batch_of([row], model, image=image), [row]) for row in rows]:
        logits = theirs(input_ids=batch.input_ids, use_cache=False, **their_pictures(shown, batch.pixels)).logits
        found.append((model(batch)[0], logits[0]))
    padded = batch_of(rows, model, image=image)
    mask = (torch.arange(padded.input_ids.shape[1]) < torch.tensor([[row.tokens] for row in rows])).long()
    told = their_pictures(rows, padded.pixels)
    logits = theirs(input_ids=padded.input_ids, attention_mask=mask, use_cache=False, **told).logits
    ours = model(padded)
    found += [(ours[number, : row.tokens], logits[number, : row.tokens]) for number, row in enumerate(rows)]
    packed = batch_of(rows, model, packed=True, image=image)
    joined = [Row(tokens=0, images=tuple(each for row in rows for each in row.images))]
    told = their_pictures(joined, packed.pixels)
    keywords = {"position_ids": packed.positions, "attention_mask": None, "use_cache": False}
    found.append((model(packed)[0], theirs(input_ids=packed.input_ids, **keywords, **told).logits[0]))
    assert all(each.isfinite().all() for pair in found for each in pair)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in found)


def read_theirs(folder: Path) -> Any:
    from transformers import AutoModelForImageTextToText

    auto: Any = AutoModelForImageTextToText
    return auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
