from __future__ import annotations

import numpy as np
import pytest
import torch
from model_builder import VOCABULARY, make_batch, make_model

from carnac.core.batch import Batch
from carnac.core.errors import InputError
from carnac.model.autoregressive import AutoregressiveModel
from carnac.model.generate import choose, generate
from carnac.model.settings import GenerationSettings

PROMPT = make_batch([[(29, 2)]])


def run(model: AutoregressiveModel, settings: GenerationSettings, stop_ids: tuple[int, ...] = ()) -> list[int]:
    return list(generate(model, PROMPT.input_ids[0], PROMPT.image_slots, PROMPT.pixels, settings, stop_ids))


def continue_without_cache(model: AutoregressiveModel, prompt: Batch, count: int) -> list[int]:
    ids, found = torch.tensor(prompt.input_ids), []
    places = torch.tensor(prompt.image_slots[:, 1:2] + np.arange(model.tokens_per_image))
    with torch.no_grad():
        for _ in range(count):
            embedded = model.embed(ids, places, torch.tensor(prompt.pixels))
            logits = model.language(inputs_embeds=embedded, use_cache=False).logits[0, -1]
            found.append(int(logits.argmax()))
            ids = torch.cat([ids, torch.tensor([[found[-1]]])], dim=1)
    return found


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_cached_greedy_equals_uncached(kind: str) -> None:
    window = {"sliding_window": 7} if kind == "mistral" else {}
    model = make_model(kind, tie_word_embeddings=False, **window)
    # Small random weights repeat one token; larger ones make a continuation worth comparing.
    with torch.no_grad():
        for parameter in model.language.model.layers.parameters():
            parameter.mul_(8.0)
    found = run(model, GenerationSettings(max_new_tokens=32))
    assert found == continue_without_cache(model, PROMPT, 32)
    assert len(set(found)) > 4


def test_draws_depend_on_the_seed_alone() -> None:
    model = make_model()
    drawn = [run(model, GenerationSettings(max_new_tokens=16, temperature=1.0, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_stop_id_ends_the_stream_and_is_not_yielded() -> None:
    model = make_model()
    free = run(model, GenerationSettings(max_new_tokens=12, temperature=1.0))
    assert run(model, GenerationSettings(max_new_tokens=12, temperature=1.0), (free[5],)) == free[: free.index(free[5])]


def test_tokens_are_streamed_and_the_callers_gradients_stay_on() -> None:
    model = make_model()
    stream = generate(
        model, PROMPT.input_ids[0], PROMPT.image_slots, PROMPT.pixels, GenerationSettings(max_new_tokens=4)
    )
    next(stream)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert len(list(stream)) == 3


def test_a_prompt_without_pictures_and_the_longest_position() -> None:
    model = make_model(max_position_embeddings=16)
    none = np.zeros((0, 3), np.int64)
    pixels = np.zeros((0, 3, 32, 32), np.float32)
    settings = GenerationSettings(max_new_tokens=100)
    assert len(list(generate(model, np.arange(3, 13), none, pixels, settings))) == 16 - 10 + 1
    for length in (0, 16):
        with pytest.raises(InputError, match="this model takes 1 to 15"):
            generate(model, np.arange(length), none, pixels, settings)
    with pytest.raises(InputError, match="1 places for pictures and 0 pictures"):
        generate(model, np.arange(8), np.array([[0, 1, 4]]), pixels, settings)


def test_top_p_draws_from_the_smallest_set_that_reaches_it() -> None:
    probabilities = torch.tensor([0.1, 0.5, 0.15, 0.25])
    draws = torch.Generator().manual_seed(0)

    def drawn(top_p: float, temperature: float = 1.0) -> set[int]:
        settings = GenerationSettings(temperature=temperature, top_p=top_p)
        return {choose(probabilities.log(), settings, draws) for _ in range(300)}

    assert drawn(0.4) == {1}
    assert drawn(0.6) == {1, 3}
    assert drawn(1.0) == {0, 1, 2, 3}
    assert drawn(1.0, temperature=0.01) == {1}
    assert drawn(0.5, temperature=0.0) == {1}


def test_every_id_is_in_the_vocabulary() -> None:
    found = run(make_model(), GenerationSettings(max_new_tokens=64, temperature=5.0, seed=4))
    assert len(found) == 64
    assert all(0 <= token < VOCABULARY for token in found)
