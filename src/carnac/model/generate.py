"""A prompt with pictures -> new token ids, one at a time, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from carnac.core.errors import InputError
from carnac.core.seeds import seed_of
from carnac.model.autoregressive import AutoregressiveModel
from carnac.model.settings import GenerationSettings
from carnac.model.tensors import image_places


def generate(
    model: AutoregressiveModel,
    input_ids: npt.NDArray[np.int64],
    image_slots: npt.NDArray[np.int64],
    pixels: npt.NDArray[np.float32],
    settings: GenerationSettings,
    stop_ids: Collection[int] = (),
) -> Iterator[int]:
    """Yield the ids that follow a prompt, as they are found; a stop id ends the stream and is not yielded.

    `input_ids` [T] with the places of the pictures in it, `image_slots` [N, 3] (row 0, first position, count),
    `pixels` [N, 3, S, S]. The stream also ends at the language model's longest position.
    """
    longest = getattr(model.language.config, "max_position_embeddings", None) or 2**31
    if not 1 <= len(input_ids) < longest:
        raise InputError(
            f"the prompt has {len(input_ids)} tokens, pictures included; this model takes 1 to {longest - 1}. "
            "Shorten it, show fewer pictures, or begin a new conversation."
        )
    if len(image_slots) != len(pixels):
        raise InputError(f"the prompt has {len(image_slots)} places for pictures and {len(pixels)} pictures")
    return _stream(model, _prompt(model, input_ids, image_slots, pixels), settings, (longest, frozenset(stop_ids)))


def _prompt(
    model: AutoregressiveModel,
    input_ids: npt.NDArray[np.int64],
    image_slots: npt.NDArray[np.int64],
    pixels: npt.NDArray[np.float32],
) -> torch.Tensor:
    places = image_places(image_slots, model.tokens_per_image, len(input_ids))
    ids, index, pictures = (torch.tensor(array, device=model.device) for array in (input_ids[None], places, pixels))
    model.eval()
    with torch.inference_mode():
        return model.embed(ids, index, pictures)


def _stream(
    model: AutoregressiveModel, embedded: torch.Tensor, settings: GenerationSettings, ends: tuple[int, frozenset[int]]
) -> Iterator[int]:
    from transformers import DynamicCache

    longest, stop_ids = ends
    draws = torch.Generator(device=model.device).manual_seed(seed_of(settings.seed, "generate") % 2**63)
    cache = DynamicCache(config=model.language.config)
    start = 0
    for _ in range(settings.max_new_tokens):
        logits = _next_logits(model, embedded, start, cache)
        token = choose(logits, settings, draws)
        start += embedded.shape[1]
        if token in stop_ids:
            return
        yield token
        if start >= longest:
            return
        with torch.inference_mode():
            embedded = model.language.get_input_embeddings()(torch.tensor([[token]], device=model.device))


def _next_logits(model: AutoregressiveModel, embedded: torch.Tensor, start: int, cache: Any) -> torch.Tensor:
    # Not around the whole stream: a mode entered in a generator stays on in its caller between two tokens.
    with torch.inference_mode():
        positions = torch.arange(start, start + embedded.shape[1], device=model.device)[None]
        outputs = model.language(
            inputs_embeds=embedded, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        logits: torch.Tensor = outputs.logits[0, -1].float()
    return logits


def choose(logits: torch.Tensor, settings: GenerationSettings, draws: torch.Generator) -> int:
    """Return the next id for logits [K]: the likeliest, or one drawn from the smallest set that reaches `top_p`."""
    if settings.temperature == 0.0:
        return int(logits.argmax())
    probabilities, ids = (logits / settings.temperature).softmax(-1).sort(descending=True, stable=True)
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.where(before < settings.top_p, 0.0)
    return int(ids[torch.multinomial(probabilities, 1, generator=draws)])
