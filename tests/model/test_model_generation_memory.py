"""What is kept of pictures between tokens: rows that are copied and dropped, and who reads what."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_prompts import make_reader

from carnac.model.cross_attention.blocks import KeysValues
from carnac.model.cross_attention.insertion import ImagesRead
from carnac.model.cross_attention.memory import ImageMemory, no_images, read_places
from carnac.model.cross_attention.model import CrossAttentionModel
from carnac.model.cross_attention.reading import Attend


@cache
def model_that_reads(attend: Attend) -> CrossAttentionModel:
    return make_reader(attend=attend)


def memory_of(model: CrossAttentionModel, *images: int) -> ImageMemory:
    """Return a memory of rows that have so many pictures each, of which the blocks made random numbers."""
    return no_images(model, len(images)).extended(random_keys_values(model, sum(images)), images)


def random_keys_values(model: CrossAttentionModel, count: int) -> tuple[KeysValues, ...]:
    return tuple((torch.randn(count, 4, 5, 12), torch.randn(count, 4, 5, 12)) for _ in model.fusion)


def wanted_images(layout: str, before: int, place: int, attend: Attend) -> set[int]:
    """Return the pictures of its row that the token at `place` reads; `before` come before the row's tokens."""
    at = [-1] * before + [number for number, mark in enumerate(layout) if mark == "i"]
    earlier = [number for number, where in enumerate(at) if where <= place]
    later = [number for number, where in enumerate(at) if where >= place]
    return {"previous": set(earlier[-1:]), "earlier": set(earlier), "next": set(later[:1])}[attend]


def found_images(read: ImagesRead, tokens: int) -> dict[tuple[int, int], set[int]]:
    """Return which pictures of the memory each token (row, place) reads."""
    groups = read.groups
    found: dict[tuple[int, int], set[int]] = {}
    for token, slot in zip(groups.tokens.tolist(), groups.slots.tolist(), strict=True):
        group, inside = divmod(slot, groups.longest)
        allowed = [True] * groups.images.shape[1] if groups.mask is None else groups.mask[group, inside].tolist()
        images = {image for image, can in zip(groups.images[group].tolist(), allowed, strict=True) if can}
        assert divmod(token, tokens) not in found
        found[divmod(token, tokens)] = images
    return found


@settings(max_examples=150, deadline=None)
@given(
    attend=st.sampled_from(["previous", "earlier", "next"]),
    rows=st.lists(st.tuples(st.integers(0, 3), st.text("i..", min_size=1, max_size=8)), min_size=1, max_size=4),
)
def test_tokens_read_what_a_plain_loop_says(attend: Attend, rows: list[tuple[int, str]]) -> None:
    model = model_that_reads(attend)
    memory = memory_of(model, *(before + layout.count("i") for before, layout in rows))
    places = [np.flatnonzero(np.array(list(layout)) == "i") for _, layout in rows]
    lengths = [len(layout) for _, layout in rows]
    read = read_places(model, memory, places, lengths)
    found = {} if read is None else found_images(read, max(lengths))
    wanted = {
        (row, place): {memory.images[row][image] for image in wanted_images(layout, before, place, attend)}
        for row, (before, layout) in enumerate(rows)
        for place in range(len(layout))  # and none of the padding
    }
    assert found == {token: images for token, images in wanted.items() if images}


def test_rows_of_a_copied_memory_share_its_pictures_until_they_read_their_own() -> None:
    model = model_that_reads("earlier")
    shared = memory_of(model, 2)
    memory = shared.repeated(3)
    assert memory.images == ((0, 1),) * 3
    assert memory.count == 2
    made = random_keys_values(model, 3)
    memory = memory.extended(made, [1, 0, 2])
    assert memory.images == ((0, 1, 2), (0, 1), (0, 1, 3, 4))
    assert memory.count == 5
    assert shared.count == 2
    for (keys, values), (old, _), (_, new) in zip(memory.keys_values, shared.keys_values, made, strict=True):
        assert torch.equal(keys[:2], old)
        assert torch.equal(values[2:], new)


def test_a_memory_keeps_what_its_rows_read_and_lets_the_rest_go() -> None:
    model = model_that_reads("earlier")
    memory = memory_of(model, 2, 0, 3)
    kept = memory.selected([1, 2])
    assert kept.images == ((), (0, 1, 2))
    for (keys, values), (left, right) in zip(memory.keys_values, kept.keys_values, strict=True):
        assert torch.equal(keys[2:], left)
        assert torch.equal(values[2:], right)
    nothing = memory.selected([1])
    assert nothing.images == ((),)
    assert nothing.count == 0
    assert memory.selected([2, 1, 0]).images == ((2, 3, 4), (), (0, 1))


@pytest.mark.parametrize("attend", ["previous", "earlier", "next"])
def test_without_pictures_blocks_are_told_nothing(attend: Attend) -> None:
    model = model_that_reads(attend)
    read = read_places(model, no_images(model, 2), [np.zeros(0, np.int64)] * 2, [3, 1])
    assert read is None


def test_a_new_token_costs_no_more_places_than_there_are_rows() -> None:
    """Columns of pictures that came before are gone: a group has one token, and a picture that none reads no group."""
    model = model_that_reads("previous")
    read = read_places(model, memory_of(model, 3, 0, 2), [np.zeros(0, np.int64)] * 3, [1, 1, 1])
    assert read is not None
    assert read.groups.images.tolist() == [[2], [4]]
    assert read.groups.longest == 1
    assert read.groups.tokens.tolist() == [0, 2]
    assert read.groups.mask is None
