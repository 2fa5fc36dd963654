from __future__ import annotations

import numpy as np
import pytest
import torch
from model_builder import VOCABULARY, make_batch, make_model
from model_prompts import answer_without_cache, joined, make_prompt, make_talker

from carnac.core.errors import InputError
from carnac.model.autoregressive import AutoregressiveModel
from carnac.model.generation.decoding import read_prefix
from carnac.model.generation.generate import Answer, answer_prompts, generate, stream_answers
from carnac.model.generation.prompt import Prompt
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import GenerationSettings

BATCH = make_batch([[(29, 2)]])
PROMPTS = [make_prompt(29, 2), make_prompt(3), make_prompt(17, 1)]


def run(model: MultimodalModel, settings: GenerationSettings, stop_ids: tuple[int, ...] = ()) -> list[int]:
    return list(generate(model, BATCH.input_ids[0], BATCH.image_slots, BATCH.pixels, settings, stop_ids))


def spell(ids: object) -> str:
    """Return ids as words that tell them apart."""
    return "".join(f"<{number}>" for number in np.asarray(ids).tolist())


# -- one prompt, as a stream of ids


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
    stream = generate(model, BATCH.input_ids[0], BATCH.image_slots, BATCH.pixels, GenerationSettings(max_new_tokens=4))
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


def test_every_id_is_in_the_vocabulary() -> None:
    found = run(make_model(), GenerationSettings(max_new_tokens=64, temperature=5.0, seed=4))
    assert len(found) == 64
    assert all(0 <= token < VOCABULARY for token in found)


# -- many prompts, as text


def test_a_batch_streams_each_answer_and_ends_with_it_whole() -> None:
    model = make_talker()
    said: dict[int, str] = dict.fromkeys(range(len(PROMPTS)), "")
    answers: dict[int, Answer] = {}
    for number, what in stream_answers(model, PROMPTS, GenerationSettings(max_new_tokens=9), spell):
        assert number not in answers
        if isinstance(what, Answer):
            answers[number] = what
        else:
            said[number] += what
    assert said == {number: answer.text for number, answer in answers.items()}
    for number, prompt in enumerate(PROMPTS):
        wanted, _ = answer_without_cache(model, prompt, 9)
        assert answers[number] == Answer(ids=tuple(wanted), text=spell(wanted), ending="length")


def test_stop_texts_end_each_answer_on_its_own() -> None:
    model = make_talker()
    free = answer_prompts(model, PROMPTS, GenerationSettings(max_new_tokens=20), spell)
    middle = free[0].ids[7]
    place = free[0].ids.index(middle)
    stopped = answer_prompts(model, PROMPTS, GenerationSettings(max_new_tokens=20, stop=(f"{middle}>",)), spell)
    assert stopped[0] == Answer(ids=free[0].ids[: place + 1], text=spell(free[0].ids[:place]) + "<", ending="stop")
    for before, after in zip(free, stopped, strict=True):
        assert before.text.startswith(after.text)
        assert f"{middle}>" not in after.text
        assert (after.ending == "stop") == (middle in before.ids)


def test_stop_ids_and_the_longest_position_end_answers() -> None:
    model = make_talker(max_position_embeddings=40)
    free = answer_prompts(model, PROMPTS, GenerationSettings(max_new_tokens=30), spell)
    assert [answer.ending for answer in free] == ["context", "length", "context"]
    assert [len(answer.ids) for answer in free] == [40 - 29 + 1, 30, 40 - 17 + 1]
    stop = free[1].ids[3]
    stopped = answer_prompts(model, PROMPTS, GenerationSettings(max_new_tokens=30), spell, stop_ids=[stop])
    assert stopped[1] == Answer(ids=free[1].ids[: free[1].ids.index(stop)], text=stopped[1].text, ending="stop")
    assert stopped[1].text == spell(stopped[1].ids)


def test_examples_in_common_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_talker("mistral")
    examples = make_prompt(40, 3)
    prompts = [joined(examples, question) for question in PROMPTS]
    seen: list[int] = []
    assert isinstance(model, AutoregressiveModel)
    embed = model.embed

    def count_pictures(ids: torch.Tensor, places: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return embed(ids, places, pixels)

    monkeypatch.setattr(model, "embed", count_pictures)
    answers = answer_prompts(model, prompts, GenerationSettings(max_new_tokens=8), spell)
    assert seen == [3, 3]  # the examples' pictures, then those of the questions
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer.ids) == answer_without_cache(model, prompt, 8)[0]


def test_a_prefix_may_be_answered_again_with_other_settings() -> None:
    model = make_talker()
    examples = make_prompt(12, 1)
    prefix = read_prefix(model, examples)
    prompts = [joined(examples, question) for question in PROMPTS]
    drawn = GenerationSettings(max_new_tokens=6, temperature=1.0, seed=2)
    for settings in (GenerationSettings(max_new_tokens=6), drawn):
        stream = stream_answers(model, prompts, settings, spell, prefix=prefix)
        with_prefix = {number: what for number, what in stream if isinstance(what, Answer)}
        without = stream_answers(model, prompts, settings, spell)
        assert with_prefix == {number: what for number, what in without if isinstance(what, Answer)}


def test_one_prompt_and_none_are_answered() -> None:
    model = make_talker()
    settings = GenerationSettings(max_new_tokens=5)
    assert answer_prompts(model, [], settings, spell) == []
    (answer,) = answer_prompts(model, PROMPTS[:1], settings, spell)
    assert list(answer.ids) == answer_without_cache(model, PROMPTS[0], 5)[0]


def test_a_wrong_prompt_among_many_is_a_sentence_at_once() -> None:
    model = make_talker(max_position_embeddings=32)
    with pytest.raises(InputError, match="the prompt has 32 tokens"):
        answer_prompts(model, [PROMPTS[0], make_prompt(32)], GenerationSettings(), spell)
    with pytest.raises(InputError, match="1 places for pictures and 0 pictures"):
        stream_answers(model, [Prompt(ids=np.arange(9), places=np.array([2]))], GenerationSettings(), spell)
