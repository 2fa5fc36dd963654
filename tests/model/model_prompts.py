"""Prompts for tiny models, families that a cache could get wrong, and answers found without any cache."""

from __future__ import annotations

import numpy as np
import torch
from model_builder import FAMILIES, IMAGE_SIZE_PX, IMAGE_TOKENS, VOCABULARY, make_settings

from carnac.core.seeds import generator
from carnac.model.build import build_model
from carnac.model.generation.prompt import Prompt
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ConfigValue

TIE = 1e-4  # two logits nearer than this may change places by rounding
WINDOW = 7  # of `FAMILIES`: shorter than the prompts and the answers


def make_talker(family: str = "llama", added_ids: tuple[int, ...] = (), **fields: ConfigValue) -> MultimodalModel:
    """Return a tiny model that does not say one token for ever, as small random weights do."""
    told: dict[str, ConfigValue] = {"tie_word_embeddings": False, **FAMILIES[family], **fields}
    vocabulary = Vocabulary(size=VOCABULARY, pad_id=0, added_ids=added_ids)
    model = build_model(make_settings(family, **told), vocabulary, IMAGE_SIZE_PX, seed=0)
    with torch.no_grad():
        for name, parameter in model.language.model.layers.named_parameters():
            if "norm" not in name:
                parameter.mul_(8.0)
            elif family.startswith("gemma"):  # which norms what each layer adds: scaled there
                parameter.add_(3.0)
    return model.eval()


def make_prompt(tokens: int, images: int = 0, *, seed: int = 0) -> Prompt:
    """Return a prompt of so many random tokens with random pictures spread over it."""
    draws = generator(seed, "prompt", tokens, images)
    ids = draws.integers(3, VOCABULARY, tokens)
    places = np.array([1 + number * (tokens - 1) // max(images, 1) for number in range(images)], dtype=np.int64)
    for place in places:
        ids[place : place + IMAGE_TOKENS] = 2
    pixels = draws.standard_normal((images, 3, IMAGE_SIZE_PX, IMAGE_SIZE_PX), dtype=np.float32)
    return Prompt(ids=ids, places=places, pixels=pixels)


def joined(first: Prompt, second: Prompt) -> Prompt:
    """Return one prompt after another."""
    places = np.concatenate([first.places, second.places + len(first)])
    pixels = np.concatenate([first.pixels, second.pixels])
    return Prompt(ids=np.concatenate([first.ids, second.ids]), places=places, pixels=pixels)


def answer_without_cache(model: MultimodalModel, prompt: Prompt, count: int) -> tuple[list[int], list[float]]:
    """Return the likeliest ids after a prompt, all read anew for each, and how far the second likeliest was behind."""
    ids, found, margins = torch.tensor(prompt.ids)[None], [], []
    places = torch.tensor(prompt.places[:, None] + np.arange(IMAGE_TOKENS))
    with torch.no_grad():
        for _ in range(count):
            embedded = model.embed(ids, places, torch.tensor(prompt.pixels))
            best = model.language(inputs_embeds=embedded, use_cache=False).logits[0, -1].topk(2)
            found.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
            ids = torch.cat([ids, torch.tensor([[found[-1]]])], dim=1)
    return found, margins


def assert_same(found: list[int], wanted: list[int], margins: list[float]) -> bool:
    """Require equal ids up to a tie; return whether there was one."""
    for place, (got, want) in enumerate(zip(found, wanted, strict=True)):
        if got != want:
            assert margins[place] < TIE, (place, found, wanted, margins[place])
            return True
    return False
