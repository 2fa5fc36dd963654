"""Who reads which image: index arithmetic against the definition, token by token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_images_read import LAYOUT, Layout, Piece, lay_out, layouts, who_reads

from carnac.model.cross_attention.reading import Attend, Reading, read_images

ATTENDS: tuple[Attend, ...] = ("previous", "next", "earlier")


def reading_of(layout: Layout, attend: Attend, chosen: set[int] | None = None) -> Reading:
    batch = lay_out(layout)
    places = batch.image_slots[:, 0] * batch.positions.shape[1] + batch.image_slots[:, 1]
    told = None if chosen is None else np.isin(batch.segment, sorted(chosen))
    return read_images(batch.positions, places, attend, told)


def read_by_tokens(reading: Reading, total: int) -> list[set[int]]:
    """Return the images that each of `total` tokens reads, as the groups say."""
    found: list[set[int]] = [set() for _ in range(total)]
    for token, slot in zip(reading.tokens.tolist(), reading.slots.tolist(), strict=True):
        group, place = divmod(slot, reading.longest)
        images = reading.images[group]
        found[token] = set((images if reading.mask is None else images[reading.mask[group, place]]).tolist())
    return found


def check(layout: Layout, attend: Attend, chosen: set[int] | None = None) -> None:
    reading, wanted = reading_of(layout, attend, chosen), who_reads(layout, attend, chosen)
    width = len(wanted[0])
    assert read_by_tokens(reading, width * len(wanted)) == [images for row in wanted for images in row]
    assert len(set(reading.slots.tolist())) == len(reading.tokens), "no two tokens at one place"
    assert reading.mask is None or reading.mask.any(-1).all(), "no row of nothing: 0 / 0"
    rows_of_images = [row for row, told in enumerate(layout) for piece in told for _ in piece.images]
    assert reading.row_of.tolist() == rows_of_images
    flat = [(n, n // width) for n in range(width * len(wanted))]
    unread = [(n, row) for n, row in flat if row in rows_of_images and not wanted[row][n % width]]
    assert list(zip(reading.unread.tolist(), reading.rows.tolist(), strict=True)) == unread


@pytest.mark.parametrize("attend", ATTENDS)
def test_images_at_starts_and_ends_and_side_by_side_are_read_as_defined(attend: Attend) -> None:
    for chosen in (None, set(), {0}, {2, 6}, set(range(9))):
        check(LAYOUT, attend, chosen)


@given(layouts(), st.sampled_from(ATTENDS), st.none() | st.sets(st.integers(0, 23)))
@settings(max_examples=300, deadline=None)
def test_any_layout_is_read_as_defined(layout: Layout, attend: Attend, chosen: set[int] | None) -> None:
    check(layout, attend, chosen)


@given(layouts(), st.sampled_from(ATTENDS), st.none() | st.sets(st.integers(0, 23)))
@settings(max_examples=100, deadline=None)
def test_a_group_holds_images_of_its_own_piece_alone(layout: Layout, attend: Attend, chosen: set[int] | None) -> None:
    # Also behind its mask: what is masked is multiplied by zero, and zero times a NaN of another piece is a NaN.
    reading, batch = reading_of(layout, attend, chosen), lay_out(layout)
    piece_of_token = np.where(batch.segment >= 0, batch.segment, -1).ravel()
    piece_of_image = batch.segment[batch.image_slots[:, 0], batch.image_slots[:, 1]]
    for token, slot in zip(reading.tokens, reading.slots, strict=True):
        assert set(piece_of_image[reading.images[slot // reading.longest]]) == {piece_of_token[token]}


def test_pieces_of_which_nobody_reads_an_image_leave_no_groups() -> None:
    for attend in ATTENDS:
        reading = reading_of([[Piece(5), Piece(3)], [Piece(7)]], attend)
        assert (len(reading.tokens), len(reading.images), reading.longest) == (0, 0, 0)
        assert reading.mask is None or not reading.mask.size


def test_images_that_do_not_stand_in_order_are_our_own_mistake() -> None:
    positions = np.arange(12).reshape(1, 12)
    with pytest.raises(AssertionError, match="rise"):
        read_images(positions, np.array([5, 2]), "previous")


@given(layouts(tokens=60), st.sampled_from(ATTENDS))
@settings(max_examples=100, deadline=None)
def test_groups_are_no_more_than_half_padding(layout: Layout, attend: Attend) -> None:
    reading = reading_of(layout, attend)
    # Cut to the mean: a group of padding at most for each image (or piece of them), and the mean rounded up.
    assert len(reading.images) * reading.longest <= 2 * len(reading.tokens) + 2 * len(lay_out(layout).pixels)


def test_one_long_group_does_not_pad_the_others() -> None:
    layout = [[Piece(600, (3,)), *[Piece(20, (0,))] * 20]]
    reading = reading_of(layout, "previous")
    assert len(reading.tokens) == 597 + 20 * 20
    assert len(reading.images) * reading.longest < 2 * len(reading.tokens)
    check(layout, "previous")
    check([[Piece(600, (3, 300)), *[Piece(20, (0, 4, 19))] * 20]], "earlier", {0, 3})
