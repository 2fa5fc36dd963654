"""carnac's side of the proof: what our model makes of some prompts, written for a process that has only transformers.

Out: a folder with `reference.json` (the prompts as texts, and what was computed), `reference.safetensors` (ids, pixels,
logits) and the picture files.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from carnac.core.errors import InputError
from carnac.core.seeds import generator
from carnac.model.formats.proof import JSON_FILE, TENSORS_FILE
from carnac.model.formats.proof_inputs import NONE
from carnac.model.generation.generate import generate
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import GenerationSettings
from carnac.model.tensors import BatchTensors
from carnac.model.towers import side_of
from carnac.sequence.layout import Layout, lay_out_prompt
from carnac.sequence.pixels import load_pixels
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer

NEW_TOKENS = 32
MAX_LOGITS = 2**25  # numbers kept of each case: 128 MiB; beyond it, positions are left out evenly
# Marks of several scripts, line ends and digits: where tokenizers of two libraries would part.
TEXTS = (
    "The mill by the river.\n\nIts wheel, built in 1742, turns.",
    " Wie viele M\u00fchlen stehen am Flu\u00df? Drei, \u6c34\u8eca \U0001f600.",
    " and this one",
    "What is new in the last picture?",
)
# Width and height in squares: PNG files, and a JPEG so large that carnac decodes it at a smaller scale.
SIZES = ((1.8, 1.2), (1.2, 2.9), (6.0, 6.0))
PROMPTS: tuple[tuple[str, tuple[int | str, ...]], ...] = (
    ("no picture", (TEXTS[0] + TEXTS[1],)),
    ("one picture", (0, TEXTS[1])),
    ("three pictures", (TEXTS[0], 0, TEXTS[2], 1, 2, TEXTS[3])),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Laid:
    """A prompt as our model reads it; `pixels` float32 [N, 3, S, S] of all its squares."""

    name: str
    parts: tuple[str | bytes, ...]
    layout: Layout
    pixels: npt.NDArray[np.float32]

    def __len__(self) -> int:
        """Return the length in tokens."""
        return len(self.layout.ids)


def write_reference(
    model: MultimodalModel, tokenizer: LoadedTokenizer, pictures: PictureSettings, folder: Path
) -> list[str]:
    """Write our side into `folder`; return the names of prompts that the model is too short for.

    Raises InputError where it is too short for all of them.
    """
    from safetensors.torch import save_file

    longest = int(getattr(model.language.config, "max_position_embeddings", 2**31) or 2**31)
    laid = [_lay_out(name, parts, tokenizer, pictures) for name, parts in proof_prompts(pictures)]
    short = [prompt for prompt in laid if len(prompt) + NEW_TOKENS <= longest]
    if not short:
        shortest = min(len(prompt) for prompt in laid) + NEW_TOKENS
        raise InputError(f"the model's longest position is {longest}: the proof's shortest prompt needs {shortest}.")
    tensors: dict[str, torch.Tensor] = {}
    described: dict[str, Any] = {"prompts": [], "cases": []}
    with torch.inference_mode():
        for number, prompt in enumerate(short):
            described["prompts"].append(_describe_prompt(model, prompt, tokenizer, folder, number))
            described["cases"].append(_single(model, prompt, tensors))
        if len(short) > 1:
            described["cases"] += [_padded(short, tensors, tokenizer.pad), _packed(model, short, tensors)]
    described["tensors"] = len(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / TENSORS_FILE)
    (folder / JSON_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return [prompt.name for prompt in laid if prompt not in short]


def proof_prompts(pictures: PictureSettings) -> list[tuple[str, tuple[str | bytes, ...]]]:
    """Return (name, texts and encoded pictures) of the prompts; the pictures are drawn, always the same."""
    images = [_picture(number, size, pictures.size_px) for number, size in enumerate(SIZES)]
    return [(name, tuple(images[part] if isinstance(part, int) else part for part in parts)) for name, parts in PROMPTS]


def _picture(number: int, size: tuple[float, float], side_px: int) -> bytes:
    """Draw soft spots: neither flat nor noise, both of which filters treat alike."""
    draws = generator(number, "proof picture")
    spots = Image.fromarray(draws.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    drawn = spots.resize((round(size[0] * side_px), round(size[1] * side_px)), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    drawn.save(out, "PNG" if max(size) < SIZES[-1][0] else "JPEG")
    return out.getvalue()


def _lay_out(name: str, parts: tuple[str | bytes, ...], tokenizer: LoadedTokenizer, pictures: PictureSettings) -> Laid:
    squares = [load_pixels(part, pictures) for part in parts if isinstance(part, bytes)]
    empty = np.empty((0, 3, pictures.size_px, pictures.size_px), dtype=np.float32)
    return Laid(
        name=name,
        parts=parts,
        layout=lay_out_prompt(parts, tokenizer, pictures),
        pixels=np.concatenate([empty, *squares]),
    )


def _describe_prompt(
    model: MultimodalModel, prompt: Laid, tokenizer: LoadedTokenizer, folder: Path, number: int
) -> dict[str, Any]:
    settings = GenerationSettings(max_new_tokens=NEW_TOKENS)
    patch_px = side_of(model.vision.config.patch_size)
    found = generate(model, prompt.layout.ids, prompt.layout.image_slots, prompt.pixels, settings)
    files = []
    for place, payload in enumerate(part for part in prompt.parts if isinstance(part, bytes)):
        files.append(f"{number}-{place}")
        (folder / files[-1]).write_bytes(payload)
    text = "".join(part if isinstance(part, str) else tokenizer.roles.image for part in prompt.parts)
    parts = [part if isinstance(part, str) else None for part in prompt.parts]  # None: the next picture
    return {
        "name": prompt.name,
        "text": text,
        "parts": parts,
        "pictures": files,
        "patch_px": patch_px,
        "continuation": list(found),
    }


def _single(model: MultimodalModel, prompt: Laid, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return _case(model, prompt.name, [prompt], tensors)


def _packed(model: MultimodalModel, prompts: Sequence[Laid], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """All prompts in one row, then the first two again: each sees only itself."""
    return _case(model, "packed", [*prompts, *prompts[:2]], tensors)


def _case(
    model: MultimodalModel, name: str, pieces: Sequence[Laid], tensors: dict[str, torch.Tensor]
) -> dict[str, Any]:
    starts = np.cumsum([0, *(len(piece) for piece in pieces)])
    places = [
        (start + piece.layout.image_slots[:, 1:2]) + np.arange(model.tokens_per_image)
        for start, piece in zip(starts, pieces, strict=False)
    ]
    ids = torch.tensor(np.concatenate([piece.layout.ids for piece in pieces]))[None]
    batch = BatchTensors(
        input_ids=ids.to(model.device),
        labels=ids,
        positions=torch.cat([torch.arange(len(piece)) for piece in pieces])[None].to(model.device),
        image_places=torch.tensor(np.concatenate(places)).to(model.device),
        pixels=torch.tensor(np.concatenate([piece.pixels for piece in pieces])).to(model.device),
    )
    logits = model(batch)[0].float().cpu()
    kept = _kept(len(logits), logits.shape[1])
    tensors |= {
        f"{name}/input_ids": ids,
        f"{name}/positions": batch.positions.cpu(),
        f"{name}/pixels": batch.pixels.cpu(),
        f"{name}/reads": images_read(batch.positions[0].cpu().numpy(), np.concatenate(places)[:, 0]),
        f"{name}/kept": kept,
        f"{name}/logits": logits[kept],
    }
    return {"name": name, "kind": "row", "squares": [len(piece.pixels) for piece in pieces]}


def images_read(positions: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> torch.Tensor:
    """Return int64 [T]: the last image of its piece at or before each token of a row, `NONE` where there is none.

    `positions` [T] begin again with each piece, `places` [N] are where images stand. Written without the code that the
    blocks run on, so that the proof would see a mistake there.
    """
    tokens = np.arange(len(positions))
    last = np.searchsorted(places, tokens, side="right") - 1
    begun = tokens - positions
    has_one = (last >= 0) & (places[last] >= begun) if len(places) else np.zeros(len(tokens), dtype=np.bool_)
    return torch.from_numpy(np.where(has_one, last, NONE))


def _padded(prompts: Sequence[Laid], tensors: dict[str, torch.Tensor], pad: int) -> dict[str, Any]:
    """The prompts side by side, filled up at their ends: the logits wanted are those of each alone."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt.layout.ids)
    tensors["padded/input_ids"] = ids
    tensors["padded/lengths"] = torch.tensor([len(prompt) for prompt in prompts])
    squares = [len(prompt.pixels) for prompt in prompts]
    return {"name": "padded", "kind": "padded", "rows": [prompt.name for prompt in prompts], "squares": squares}


def _kept(length: int, vocabulary: int) -> torch.Tensor:
    """Return the positions whose logits are compared: all, or as many as `MAX_LOGITS` allows, the last among them."""
    count = min(length, max(2, MAX_LOGITS // vocabulary))
    return torch.linspace(0, length - 1, count).round().long()
