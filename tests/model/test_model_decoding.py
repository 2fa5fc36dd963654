from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_builder import FAMILIES, IMAGE_TOKENS
from model_prompts import answer_without_cache, assert_same, joined, make_prompt, make_talker

from carnac.core.errors import InputError
from carnac.model.added_tokens import added_parameters
from carnac.model.generation.decoding import Decoding, Prefix, read_prefix
from carnac.model.generation.prompt import Prompt
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import GenerationSettings

GREEDY = GenerationSettings()
PROMPTS = [make_prompt(29, 2), make_prompt(3), make_prompt(17, 1), make_prompt(1), make_prompt(29, 3, seed=1)]


def decode(
    model: MultimodalModel,
    prompts: Sequence[Prompt],
    counts: Sequence[int],
    prefix: Prefix | None = None,
    chosen: GenerationSettings = GREEDY,
) -> list[list[int]]:
    """Return so many ids after each prompt; each ends on its own."""
    decoding = Decoding(model, prompts, chosen, prefix)
    found: list[list[int]] = [[] for _ in prompts]
    while tokens := decoding.step():
        for number, token in tokens.items():
            found[number].append(token)
            if len(found[number]) == counts[number]:
                decoding.end(number)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_equals_uncached_beyond_the_window(family: str) -> None:
    model = make_talker(family)
    prompt = make_prompt(29, 2)
    wanted, margins = answer_without_cache(model, prompt, 96)
    (found,) = decode(model, [prompt], [96])
    assert_same(found, wanted, margins)
    assert len(set(found)) > 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_unequal_prompts_answers_as_each_alone(family: str) -> None:
    model = make_talker(family)
    counts = [32, 5, 32, 20, 11]
    together = decode(model, PROMPTS, counts)
    ties = 0
    for prompt, count, found in zip(PROMPTS, counts, together, strict=True):
        wanted, margins = answer_without_cache(model, prompt, count)
        ties += assert_same(found, wanted, margins)
    assert ties <= 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [4, 40])
def test_a_prefix_read_once_answers_many_questions(family: str, length: int) -> None:
    """With windows of 7: a prefix that fits in one, and one that is mostly forgotten."""
    model = make_talker(family)
    beginning = make_prompt(length, length // 20)
    prefix = read_prefix(model, beginning)
    prompts = [joined(beginning, prompt) for prompt in PROMPTS]
    for chosen in (prompts, prompts[1:3], [prompts[3]]):  # the prefix is as it was each time
        for prompt, found in zip(chosen, decode(model, chosen, [16] * len(chosen), prefix), strict=True):
            wanted, margins = answer_without_cache(model, prompt, 16)
            assert_same(found, wanted, margins)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_added_tokens_are_read_and_said(family: str) -> None:
    """Gemma scales what it reads: the rows of added tokens too."""
    added = tuple(range(60, 128))
    model = make_talker(family, added_ids=added)
    with torch.no_grad():
        for rows in added_parameters(model.language):
            rows.mul_(20.0)  # they begin near the mean of all rows, and would never be said
    counts = [24] * len(PROMPTS)
    said = set()
    for prompt, found in zip(PROMPTS, decode(model, PROMPTS, counts), strict=True):
        wanted, margins = answer_without_cache(model, prompt, 24)
        assert_same(found, wanted, margins)
        said |= set(found)
    assert said & set(added)
    assert said - set(added)


def test_pictures_may_begin_and_end_a_prompt_and_be_all_of_it() -> None:
    model = make_talker()
    one = make_prompt(1 + IMAGE_TOKENS, 1).rest(1)
    assert one.places.tolist() == [0]
    assert len(one) == IMAGE_TOKENS
    words = make_prompt(6)
    prompts = [one, joined(one, words), joined(words, one), joined(one, one), joined(joined(one, words), one)]
    for prompt, found in zip(prompts, decode(model, prompts, [8] * 5), strict=True):
        wanted, margins = answer_without_cache(model, prompt, 8)
        assert_same(found, wanted, margins)
    seen = {tuple(found) for found in decode(model, prompts, [8] * 5)}
    assert len(seen) == 5


def test_draws_of_a_row_do_not_depend_on_the_other_rows() -> None:
    model = make_talker()
    drawn = GenerationSettings(temperature=1.0, top_p=0.9, seed=3)
    prompts = [make_prompt(12, 1), make_prompt(5), make_prompt(5)]
    together = decode(model, prompts, [8, 8, 8], chosen=drawn)
    assert together[0] == decode(model, prompts[:1], [8], chosen=drawn)[0]
    assert together[1] == decode(model, prompts[:2], [3, 8], chosen=drawn)[1]
    assert together[1] != together[2]  # the same prompt twice: two answers


def test_a_text_alone_does_not_run_the_vision_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_talker()
    wanted = decode(model, [make_prompt(9)], [4])
    monkeypatch.setattr(model.vision, "forward", lambda **_: pytest.fail("the tower was run"))
    assert decode(model, [make_prompt(9)], [4]) == wanted


def test_no_prompts_have_no_answers() -> None:
    assert Decoding(make_talker(), [], GREEDY).step() == {}


def test_each_prompt_ends_at_the_longest_position() -> None:
    model = make_talker(max_position_embeddings=32)
    prompts = [make_prompt(29, 2), make_prompt(12, 1)]
    decoding = Decoding(model, prompts, GREEDY)
    found = []
    while tokens := decoding.step():
        found.append(sorted(tokens))
        assert decoding.is_full(0) == (len(found) >= 4)
    # The last token of all has no place of its own: it need not be read.
    assert sum(0 in numbers for numbers in found) == 32 - 29 + 1
    assert sum(1 in numbers for numbers in found) == 32 - 12 + 1


def test_a_prefix_that_a_prompt_does_not_begin_with_is_a_sentence() -> None:
    model = make_talker()
    beginning = make_prompt(12, 1)
    prefix = read_prefix(model, beginning)
    other = Prompt(ids=beginning.ids, places=beginning.places, pixels=beginning.pixels + 1)
    for prompt in (beginning, make_prompt(20), joined(other, make_prompt(4))):
        with pytest.raises(
            InputError, match="does not begin with the prefix of 12 tokens that was read, or ends with it"
        ):
            Decoding(model, [prompt], GREEDY, prefix)


def test_the_callers_modes_stay_as_they_were() -> None:
    model = make_talker()
    decoding = Decoding(model, PROMPTS[:2], GREEDY)
    decoding.step()
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert all(parameter.requires_grad for parameter in model.connector.parameters())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    family=st.sampled_from(["llama", "mistral", "gemma3_text"]),
    shared=st.integers(0, 15),
    shapes=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), min_size=1, max_size=5),
    counts=st.lists(st.integers(1, 12), min_size=5, max_size=5),
)
def test_any_batch_answers_as_each_alone(
    family: str, shared: int, shapes: list[tuple[int, int]], counts: list[int]
) -> None:
    model = make_talker(family)
    questions = [make_prompt(images * 5 + tokens, images, seed=row) for row, (images, tokens) in enumerate(shapes)]
    beginning = make_prompt(shared) if shared else None
    prompts = [joined(beginning, question) for question in questions] if beginning else questions
    prefix = read_prefix(model, beginning) if beginning else None
    for prompt, count, found in zip(prompts, counts, decode(model, prompts, counts, prefix), strict=False):
        wanted, margins = answer_without_cache(model, prompt, count)
        assert_same(found, wanted, margins)


def test_rows_are_read_with_padding_of_any_content() -> None:
    """The padding of a row is read too, after the row's own tokens: it must not reach them."""
    model = make_talker("mistral")
    short = make_prompt(5)
    (alone,) = decode(model, [short], [8])
    for seed in range(3):
        assert decode(model, [short, make_prompt(40, 3, seed=seed)], [8, 1])[0] == alone
    assert np.unique(alone).size > 1
