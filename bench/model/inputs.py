"""Random prompts and training rows, as each of the two libraries takes them.

Legend of shapes: R rows, T tokens, N pictures, S their side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from carnac.core.batch import IGNORED, Batch, Piece
from carnac.core.seeds import generator
from carnac.model.formats.proof_inputs import NONE, picture_keywords
from carnac.model.generation.prompt import Prompt
from model.pairs import FIRST_TEXT_ID, IMAGE_ID, PAD_ID


def random_prompt(tokens: int, pictures: int, shape: tuple[int, int, int], seed: int = 0) -> Prompt:
    """Return a prompt of `tokens` tokens; `shape`: tokens of a picture, its side in pixels, size of the vocabulary."""
    picture_tokens, side_px, vocabulary = shape
    draws = generator(seed, "bench", tokens, pictures)
    ids = draws.integers(FIRST_TEXT_ID, vocabulary, tokens)
    places = np.array([1 + number * (tokens - 1) // max(pictures, 1) for number in range(pictures)], dtype=np.int64)
    for place in places:
        ids[place : place + picture_tokens] = IMAGE_ID
    pixels = draws.standard_normal((pictures, 3, side_px, side_px), dtype=np.float32)
    return Prompt(ids=ids, places=places, pixels=pixels)


def batch_of(prompts: Sequence[Prompt], picture_tokens: int) -> Batch:
    """Return training rows, one prompt each and all of one length; pictures carry no loss."""
    ids = np.stack([prompt.ids for prompt in prompts])
    labels = np.full_like(ids, IGNORED)
    labels[:, :-1] = np.where(ids[:, 1:] == IMAGE_ID, IGNORED, ids[:, 1:])
    slots = [(row, place, picture_tokens) for row, prompt in enumerate(prompts) for place in prompt.places.tolist()]
    pieces = [
        Piece(source="bench", shard="0", row=row, start=0, stop=len(prompt), images=len(prompt.places))
        for row, prompt in enumerate(prompts)
    ]
    return Batch(
        input_ids=ids,
        labels=labels,
        positions=np.tile(np.arange(ids.shape[1]), (len(prompts), 1)),
        segment=np.tile(np.arange(len(prompts))[:, None], (1, ids.shape[1])),
        image_slots=np.array(slots, dtype=np.int64).reshape(-1, 3),
        image_of_token=np.full_like(ids, -1),
        pixels=np.concatenate([prompt.pixels for prompt in prompts]),
        provenance=tuple(pieces),
    )


def their_inputs(prompts: Sequence[Prompt], model: Any) -> dict[str, Any]:
    """Return what transformers' processors give its classes: padded on the left, pictures as the format has them."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), PAD_ID)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    reads = torch.full((len(prompts), width), NONE)
    for row, prompt in enumerate(prompts):
        first = width - len(prompt)
        ids[row, first:] = torch.tensor(prompt.ids)
        mask[row, first:] = 1
        reads[row, first:] = torch.tensor(np.searchsorted(prompt.places, np.arange(len(prompt)), side="right") - 1)
    pixels = [torch.tensor(prompt.pixels) for prompt in prompts]
    inputs = {"input_ids": ids, "attention_mask": mask, **picture_keywords(model, pixels, list(reads), width)}
    device = next(model.parameters()).device
    return {key: tensor.to(device) for key, tensor in inputs.items()}


def their_labels(prompts: Sequence[Prompt], device: torch.device) -> torch.Tensor:
    """Return labels [R, T] as transformers takes them: each token's own id, pictures and first tokens left out."""
    ids = torch.tensor(np.stack([prompt.ids for prompt in prompts]))
    return ids.masked_fill(ids == IMAGE_ID, IGNORED).to(device)
