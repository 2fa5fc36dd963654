from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_builder import IMAGE_TOKENS
from model_prompts import joined, make_prompt

from carnac.core.errors import InputError
from carnac.model.generation.prompt import Prompt, check_prompt, shared_beginning


def test_a_prompt_is_its_beginning_and_its_rest() -> None:
    prompt = make_prompt(40, 3)
    for length in (0, 1, int(prompt.places[1]), int(prompt.places[1]) + IMAGE_TOKENS, 40):
        first, rest = prompt.beginning(length), prompt.rest(length)
        whole = joined(first, rest)
        assert np.array_equal(whole.ids, prompt.ids)
        assert np.array_equal(whole.places, prompt.places)
        assert np.array_equal(whole.pixels, prompt.pixels)
        assert prompt.begins_with(first)
        check_prompt(whole, IMAGE_TOKENS, 100)


@pytest.mark.parametrize("length", [0, 16, 17])
def test_a_prompt_of_no_tokens_or_too_many_is_a_sentence(length: int) -> None:
    with pytest.raises(InputError, match=rf"the prompt has {length} tokens, .* this model takes 1 to 15\. Shorten it"):
        check_prompt(Prompt(ids=np.arange(length)), IMAGE_TOKENS, 16)


def test_pictures_without_places_and_places_without_pictures_are_sentences() -> None:
    prompt = make_prompt(20, 2)
    with pytest.raises(InputError, match=r"2 places for pictures and 1 pictures\. Wanted a place for each"):
        check_prompt(Prompt(ids=prompt.ids, places=prompt.places, pixels=prompt.pixels[:1]), IMAGE_TOKENS, 99)
    with pytest.raises(InputError, match="1 places for pictures and 2 pictures"):
        check_prompt(Prompt(ids=prompt.ids, places=prompt.places[1:], pixels=prompt.pixels), IMAGE_TOKENS, 99)


@pytest.mark.parametrize("places", [[0, 3], [4, 0], [-1, 8], [0, 17], [0, 40]])
def test_places_that_overlap_or_do_not_fit_are_a_sentence(places: list[int]) -> None:
    prompt = make_prompt(20, 2)
    wrong = Prompt(ids=prompt.ids, places=np.array(places), pixels=prompt.pixels)
    with pytest.raises(InputError, match=r"20 tokens has places .* overlap or do not fit\. Wanted 4 tokens for each"):
        check_prompt(wrong, IMAGE_TOKENS, 99)


@given(
    shared=st.integers(0, 12),
    pictures=st.integers(0, 2),
    rests=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 1)), min_size=1, max_size=4),
)
def test_the_shared_beginning_is_the_longest_that_cuts_no_picture(
    shared: int, pictures: int, rests: list[tuple[int, int]]
) -> None:
    beginning = make_prompt(shared + 6 * pictures, pictures)
    prompts = [
        joined(beginning, make_prompt(tokens + 5 * images, images, seed=row + 1))
        for row, (tokens, images) in enumerate(rests)
    ]
    length = shared_beginning(prompts, IMAGE_TOKENS)
    assert len(beginning) - (len(prompts) == 1) <= length or length >= min(len(prompt) for prompt in prompts) - 1
    assert length < min(len(prompt) for prompt in prompts)
    common = prompts[0].beginning(length)
    assert all(prompt.begins_with(common) for prompt in prompts)
    if length:
        check_prompt(common, IMAGE_TOKENS, 999)


def test_other_pixels_end_what_is_shared() -> None:
    one = make_prompt(30, 3)
    pixels = one.pixels.copy()
    pixels[1, 0, 5, 5] += 1
    other = Prompt(ids=one.ids, places=one.places, pixels=pixels)
    assert shared_beginning([one, other], IMAGE_TOKENS) == one.places[1]
    assert shared_beginning([other, one], IMAGE_TOKENS) == one.places[1]
    # A picture where the other has only the same ids.
    bare = Prompt(ids=one.ids, places=one.places[[0, 2]], pixels=one.pixels[[0, 2]])
    assert shared_beginning([one, bare], IMAGE_TOKENS) == one.places[1]
    assert shared_beginning([bare, one], IMAGE_TOKENS) == one.places[1]


def test_a_prompt_that_is_the_beginning_of_another_keeps_a_token_of_its_own() -> None:
    one, longer = make_prompt(12), joined(make_prompt(12), make_prompt(3))
    assert shared_beginning([one, longer], IMAGE_TOKENS) == 11
    assert shared_beginning([longer, one], IMAGE_TOKENS) == 11


def native(prompt: Prompt, height_px: int) -> Prompt:
    """The prompt with pictures of so many rows: beyond them is NaN."""
    pixels = prompt.pixels.copy()
    pixels[:, :, height_px:] = np.nan
    return Prompt(ids=prompt.ids, places=prompt.places, pixels=pixels)


def test_native_pictures_are_equal_where_they_end_alike() -> None:
    plain = make_prompt(30, 3)
    one, same, shorter = native(plain, 16), native(plain, 16), native(plain, 8)
    assert one.begins_with(same.beginning(int(plain.places[2])))
    assert not one.begins_with(shorter)
    assert not one.begins_with(plain)
    assert shared_beginning([one, same], IMAGE_TOKENS) == 29
    for other in (shorter, plain):
        assert shared_beginning([one, other], IMAGE_TOKENS) == one.places[0]
