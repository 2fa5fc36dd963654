"""What the language model of each family is called with while prompts are read and answers grow.

Of pictures that were read the autoregressive family keeps nothing but the language model's cache; the cross-attention
family an `ImageMemory`. Legend of shapes: R rows, T tokens, N squares of pictures, S their side, D width of the
language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from carnac.model.autoregressive import AutoregressiveModel
from carnac.model.cross_attention.insertion import KEYWORD
from carnac.model.cross_attention.memory import ImageMemory, no_images, read_places, remember
from carnac.model.cross_attention.model import CrossAttentionModel
from carnac.model.generation.prompt import NO_PLACES, Prompt
from carnac.model.multimodal import MultimodalModel
from carnac.model.tensors import image_places

Keywords = dict[str, Any]


def nothing_read(model: MultimodalModel, rows: int) -> ImageMemory | None:
    """Return what is kept of pictures before `rows` prompts are read."""
    return no_images(model, rows) if isinstance(model, CrossAttentionModel) else None


def read_prompts(
    model: MultimodalModel, prompts: Sequence[Prompt], memory: ImageMemory | None
) -> tuple[Keywords, ImageMemory | None]:
    """Return keywords that read prompts, [R, T] padded at their ends, and what is then kept of pictures.

    `memory` is what was kept of those before. The vision tower runs where there are pictures, and there alone.
    """
    ids = _padded_ids(prompts, model.device)
    embeddings = model.language.get_input_embeddings()
    pixels = _pixels(model, prompts)
    if isinstance(model, CrossAttentionModel):
        assert memory is not None
        places = [prompt.places for prompt in prompts]
        if pixels is not None:
            memory = memory.extended(remember(model, pixels), [len(row) for row in places])
        read = read_places(model, memory, places, [len(prompt) for prompt in prompts])
        return {"inputs_embeds": embeddings(ids), KEYWORD: read}, memory
    assert isinstance(model, AutoregressiveModel), type(model)
    if pixels is None:
        # Without the blank picture that `embed` runs for the sake of gradients.
        return {"inputs_embeds": embeddings(ids)}, None
    count = model.tokens_per_image
    slots = np.array(
        [(row, place, count) for row, prompt in enumerate(prompts) for place in prompt.places.tolist()], dtype=np.int64
    )
    flat_places = torch.tensor(image_places(slots, count, ids.shape[1]), device=model.device)
    return {"inputs_embeds": model.embed(ids, flat_places, pixels)}, None


def pictures_of_next(model: MultimodalModel, memory: ImageMemory | None) -> Keywords:
    """Return keywords by which one more token of each row reads pictures that were read before."""
    if memory is None:
        return {}
    assert isinstance(model, CrossAttentionModel)
    rows = len(memory.images)
    return {KEYWORD: read_places(model, memory, [NO_PLACES] * rows, [1] * rows)}


def readable_alone(model: MultimodalModel, prompt: Prompt) -> int:
    """Return how many of the first tokens of `prompt` can be read before what follows it is known.

    All, unless tokens read pictures to come: then as many as end with the last picture (`attend = "next"`), or none
    (`mask = "uniform"`, which shows tokens the mean of all pictures).
    """
    if not isinstance(model, CrossAttentionModel):
        return len(prompt)
    blocks = model.settings.blocks
    if blocks.mask == "uniform":
        return 0
    if blocks.attend == "next":
        return int(prompt.places[-1]) + 1 if len(prompt.places) else 0
    return len(prompt)


def _padded_ids(prompts: Sequence[Prompt], device: torch.device) -> torch.Tensor:
    ids = np.zeros((len(prompts), max(len(prompt) for prompt in prompts)), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = prompt.ids
    return torch.tensor(ids, device=device)


def _pixels(model: MultimodalModel, prompts: Sequence[Prompt]) -> torch.Tensor | None:
    """Return all pictures of prompts, [N, 3, S, S], row after row."""
    shown = [prompt.pixels for prompt in prompts if len(prompt.places)]
    return torch.tensor(np.concatenate(shown)).to(model.device, model.vision.dtype) if shown else None
