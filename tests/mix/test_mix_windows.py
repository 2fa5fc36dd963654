from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.errors import InputError
from carnac.mix.windows import LEAD, cut_at_images, cut_windows, first_exchanges


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """A length and image slots: texts of 0 to 12 positions between images of 1 to 6."""
    slots = []
    length = 1
    for gap, tokens in draw(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), max_size=12)):
        slots.append((length + gap, tokens))
        length += gap + tokens
    return length + draw(st.integers(0, 30)), slots


@settings(deadline=None)
@given(layout=layouts(), max_tokens=st.integers(6, 40), max_images=st.integers(1, 4))
def test_every_position_is_in_one_window_and_no_image_is_split(
    layout: tuple[int, list[tuple[int, int]]], max_tokens: int, max_images: int
) -> None:
    length, slots = layout
    windows = cut_windows(length, slots, max_tokens, max_images)
    assert [position for start, stop, _ in windows for position in range(start, stop)] == list(range(length))
    assert sum(images for _, _, images in windows) == len(slots)
    for start, stop, images in windows:
        assert 0 < stop - start <= max_tokens
        inside = [slot for slot in slots if start <= slot[0] < stop]
        assert images == len(inside) <= max_images
        assert all(begin + tokens <= stop for begin, tokens in inside)


@settings(deadline=None)
@given(layout=layouts(), max_tokens=st.integers(6, 40), max_images=st.integers(5, 12), data=st.data())
def test_a_picture_counts_as_often_as_the_tower_is_shown_a_square_of_it(
    layout: tuple[int, list[tuple[int, int]]], max_tokens: int, max_images: int, data: st.DataObject
) -> None:
    length, slots = layout
    squares = data.draw(st.lists(st.integers(1, 5), min_size=len(slots), max_size=len(slots)))
    windows = cut_windows(length, slots, max_tokens, max_images, squares)
    assert [position for start, stop, _ in windows for position in range(start, stop)] == list(range(length))
    for start, stop, images in windows:
        inside = [count for slot, count in zip(slots, squares, strict=True) if start <= slot[0] < stop]
        assert images == sum(inside) <= max_images


def test_tiles_count_towards_the_image_budget() -> None:
    slots = [(1, 2), (5, 2), (9, 2), (13, 2)]
    assert cut_windows(20, slots, 100, 6, [5, 1, 1, 4]) == [(0, 9, 6), (9, 20, 5)]
    assert cut_windows(20, slots, 100, 5, [5, 1, 1, 4]) == [(0, 5, 5), (5, 13, 2), (13, 20, 4)]


@settings(deadline=None)
@given(length=st.integers(2, 200), max_tokens=st.integers(3, 40))
def test_no_position_of_a_text_is_left_alone(length: int, max_tokens: int) -> None:
    windows = cut_windows(length, [], max_tokens, 1)
    assert all(stop - start > 1 for start, stop, _ in windows)
    assert len(windows) == -(-length // max_tokens)


def test_windows_are_as_long_as_they_can_be() -> None:
    assert cut_windows(25, [], 10, 1) == [(0, 10, 0), (10, 20, 0), (20, 25, 0)]
    assert cut_windows(0, [], 10, 1) == []


def test_an_image_moves_whole_to_the_next_window() -> None:
    assert cut_windows(20, [(8, 4)], 10, 1) == [(0, 8, 0), (8, 18, 1), (18, 20, 0)]


def test_the_image_budget_cuts_before_the_image_too_many() -> None:
    assert cut_windows(20, [(1, 2), (5, 2), (9, 2)], 100, 2) == [(0, 9, 2), (9, 20, 1)]


def test_a_single_position_gets_company() -> None:
    assert cut_windows(11, [], 10, 1) == [(0, 9, 0), (9, 11, 0)]
    assert cut_windows(11, [(7, 3)], 10, 1) == [(0, 7, 0), (7, 11, 1)]
    assert cut_windows(12, [(1, 10)], 10, 1) == [(0, 1, 0), (1, 11, 1), (11, 12, 0)]  # the image fills its window


def test_an_image_over_the_budget_is_an_error_that_says_what_to_change() -> None:
    with pytest.raises(InputError, match=r"an image fills 11 tokens but a row only holds 10\. Raise row_tokens"):
        cut_windows(20, [(1, 11)], 10, 1)
    with pytest.raises(InputError, match="row_images is 0"):
        cut_windows(20, [(1, 2)], 10, 0)
    with pytest.raises(
        InputError, match=r"shown as 5 squares .* a row only holds 4 \(row_images\)\. Raise row_images or"
    ):
        cut_windows(20, [(1, 2)], 10, 4, [5])


@settings(deadline=None)
@given(layout=layouts(), max_tokens=st.integers(6, 40), max_images=st.integers(5, 12), data=st.data())
def test_windows_at_images_hold_every_image_whole_and_in_its_place(
    layout: tuple[int, list[tuple[int, int]]], max_tokens: int, max_images: int, data: st.DataObject
) -> None:
    length, slots = layout
    squares = data.draw(st.lists(st.integers(1, 5), min_size=len(slots), max_size=len(slots)))
    windows = cut_at_images(length, slots, max_tokens, max_images, squares)
    assert sum(images for _, _, images in windows) == sum(squares)
    assert [stop for _, stop, _ in windows[:-1]] <= [start for start, _, _ in windows[1:]]
    for start, stop, images in windows:
        inside = [(slot, count) for slot, count in zip(slots, squares, strict=True) if start <= slot[0] < stop]
        assert images == sum(count for _, count in inside) <= max_images
        assert inside, "a window without an image"
        assert all(begin + tokens <= stop for (begin, tokens), _ in inside)
        assert 0 < stop - start <= max_tokens
        assert inside[0][0][0] - start <= max_tokens * LEAD


def test_long_texts_between_images_are_left_out() -> None:
    slots = [(100, 4), (300, 4), (306, 4)]
    assert cut_at_images(500, slots, 40, 4) == [(95, 135, 1), (295, 335, 2)]
    assert cut_at_images(500, [], 40, 4) == []
    assert cut_at_images(500, [(100, 40)], 40, 4) == [(100, 140, 1)]


@settings(deadline=None)
@given(layout=layouts(), max_tokens=st.integers(6, 60), max_images=st.integers(5, 12), data=st.data())
def test_a_conversation_keeps_as_many_whole_exchanges_as_fit(
    layout: tuple[int, list[tuple[int, int]]], max_tokens: int, max_images: int, data: st.DataObject
) -> None:
    length, slots = layout
    outside = [at for at in range(1, length + 1) if not any(begin < at < begin + tokens for begin, tokens in slots)]
    ends = sorted(data.draw(st.sets(st.sampled_from(outside), min_size=1)))
    squares = data.draw(st.lists(st.integers(1, 5), min_size=len(slots), max_size=len(slots)))
    cut = first_exchanges(ends, slots, max_tokens, max_images, squares)

    def fits(stop: int) -> bool:
        images = sum(count for slot, count in zip(slots, squares, strict=True) if slot[0] < stop)
        return stop <= max_tokens and images <= max_images

    kept = [stop for stop in ends if fits(stop)]
    assert [stop for _, stop, _ in cut.windows] == kept[-1:]
    assert all(start == 0 for start, _, _ in cut.windows)
    assert cut.exchanges_left_out == len(ends) - len(kept)
    assert cut.positions_left_out == ends[-1] - (kept[-1] if kept else 0)
