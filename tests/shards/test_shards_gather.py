from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carnac.shards.gather import layout_of
from carnac.shards.settings import GatherSettings, SplitSettings
from carnac.shards.split import SPLITS, Splitter, split_of

# Of images in the order in which routes are read: the number of the part goes up, splits come as they come.
IMAGES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 30)), max_size=40).map(
    lambda images: sorted(images, key=lambda image: image[0])
)


def columns(images: list[tuple[int, int, int]]) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    return [np.array([image[number] for image in images], np.int64) for number in range(3)]


@given(IMAGES)
def test_images_lie_side_by_side_each_shard_in_one_segment_in_the_order_given(
    images: list[tuple[int, int, int]],
) -> None:
    layout = layout_of(*columns(images))
    expected: dict[tuple[int, int], list[int]] = {}
    for number, (part, split, _) in enumerate(images):
        expected.setdefault((part, split), []).append(number)
    shards = list(zip(layout.parts.tolist(), layout.splits.tolist(), strict=True))
    assert shards == sorted(expected)
    place = 0
    for shard, offset, length, count in zip(shards, layout.offsets, layout.lengths, layout.images, strict=True):
        assert place == offset
        for number in expected[shard]:
            assert layout.places[number] == place
            place += images[number][2]
        assert (place - offset, len(expected[shard])) == (length, count)
    assert place == layout.num_bytes


def test_nothing_wanted_is_an_empty_file() -> None:
    layout = layout_of(*columns([]))
    assert (layout.num_bytes, len(layout.places), len(layout.parts), len(layout.lengths)) == (0, 0, 0, 0)


def test_a_file_larger_than_four_gigabytes_is_laid_out() -> None:
    number = 300_000
    layout = layout_of(np.zeros(number, np.int32), np.zeros(number, np.int8), np.full(number, 40_000, np.int32))
    assert layout.num_bytes == number * 40_000
    assert layout.places[-1] == (number - 1) * 40_000


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40), st.none() | st.integers(1, 5))
def test_whoever_asks_in_the_same_order_gets_the_same_splits(
    documents: list[tuple[int, bool]], limit: int | None
) -> None:
    roots = {"3": "root", "4": "root"}
    settings = SplitSettings(held_out=0.5)
    answers = []
    for _ in range(2):
        splitter = Splitter(settings, roots, limit)
        answers.append([splitter.split_of(str(number), keep) for number, keep in documents])
    assert answers[0] == answers[1]
    for split in SPLITS:
        mine = [
            number
            for number, (name, keep) in enumerate(documents)
            if keep and split_of(roots.get(str(name), str(name)), 0.5, 0) == split
        ]
        assert [number for number, answer in enumerate(answers[0]) if answer == split] == mine[:limit]


@pytest.mark.parametrize("wrong", [{"group_mb": 0}, {"buffer_mb": 0}, {"group_mb": 1.5}])
def test_sizes_are_whole_megabytes(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GatherSettings.model_validate(wrong)
