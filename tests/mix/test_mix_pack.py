from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.seeds import generator
from carnac.mix.pack import pack


def log_normal(num_pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """The lengths of the facts: mean about 121, clipped to [24, 512]; one image per piece on average."""
    random = generator(0, "test pack")
    tokens = np.clip(random.lognormal(np.log(121) - 0.32, 0.8, num_pieces), 24, 512).astype(np.int64)
    return tokens, random.poisson(1.0, num_pieces).clip(0, 4)


@settings(deadline=None)
@given(pieces=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), max_size=60), row_images=st.integers(3, 5))
def test_every_piece_is_placed_once_within_both_budgets(pieces: list[tuple[int, int]], row_images: int) -> None:
    tokens = np.asarray([piece[0] for piece in pieces], dtype=np.int64)
    images = np.asarray([piece[1] for piece in pieces], dtype=np.int64)
    rows = pack(tokens, images, 30, row_images)
    assert sorted(piece for row in rows for piece in row) == list(range(len(pieces)))
    for row in rows:
        assert tokens[row].sum() <= 30
        assert images[row].sum() <= row_images


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 30), max_size=60))
def test_no_two_rows_fit_in_one(lengths: list[int]) -> None:
    tokens = np.asarray(lengths, dtype=np.int64)
    loads = sorted(int(tokens[row].sum()) for row in pack(tokens, np.zeros_like(tokens), 30, 0))
    assert len(loads) < 2 or loads[0] + loads[1] > 30


def test_the_tightest_row_is_taken() -> None:
    tokens = np.asarray([7, 8, 2])
    assert pack(tokens, np.zeros_like(tokens), 10, 1) == [[1, 2], [0]]


def test_among_equal_rows_the_one_with_fewest_images_to_spare_is_taken() -> None:
    tokens, images = np.asarray([8, 8, 2]), np.asarray([1, 0, 0])
    assert pack(tokens, images, 10, 2) == [[0, 2], [1]]


# Of what the tighter budget allows: 0.993, 0.998 and 1.000 seen; best fit in random order gave 0.984, 0.995 and 1.000.
@pytest.mark.parametrize(("row_tokens", "row_images"), [(512, 8), (2048, 20), (2048, 8)])
def test_fill_is_near_what_the_budgets_allow(row_tokens: int, row_images: int) -> None:
    tokens, images = log_normal(16384)
    rows = pack(tokens, images, row_tokens, row_images)
    fewest = max(tokens.sum() / row_tokens, images.sum() / row_images)
    assert fewest / len(rows) > 0.99


def test_a_piece_that_fits_no_row_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        pack(np.asarray([11]), np.asarray([0]), 10, 1)
    with pytest.raises(AssertionError):
        pack(np.asarray([10]), np.asarray([2]), 10, 1)
