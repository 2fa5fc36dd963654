from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.mix.order import Block, SourcePieces, blocks_of


def sources_of(*given: tuple[int, float, int, int | None], seed: int = 0) -> list[SourcePieces]:
    """Return sources of (pieces, weight, pieces of a row group, epochs at most), of 1 to 200 text tokens each."""
    random = np.random.default_rng(seed)
    first, made = 0, []
    for number, (pieces, weight, group, epochs) in enumerate(given):
        made.append(
            SourcePieces(
                name=f"s{number}",
                first=first,
                text_tokens=random.integers(1, 200, pieces),
                groups=np.arange(pieces) // group,
                weight=weight,
                max_epochs=epochs,
            )
        )
        first += pieces
    return made


def text_by_source(sources: Sequence[SourcePieces], blocks: Sequence[Block]) -> list[np.ndarray]:
    """Return the text tokens of each source in each block."""
    tokens = np.concatenate([source.text_tokens for source in sources])
    found = []
    for source in sources:
        stop = source.first + len(source.text_tokens)
        found.append(
            np.asarray([tokens[b.pieces[(b.pieces >= source.first) & (b.pieces < stop)]].sum() for b in blocks])
        )
    return found


@settings(max_examples=40)
@given(
    given=st.lists(
        st.tuples(st.integers(1, 300), st.floats(0.05, 1.0), st.integers(1, 80), st.integers(1, 4)),
        min_size=1,
        max_size=4,
    ),
    pieces_per_block=st.integers(1, 500),
    seed=st.integers(0, 5),
)
def test_every_source_gives_each_piece_once_an_epoch(
    given: list[tuple[int, float, int, int | None]], pieces_per_block: int, seed: int
) -> None:
    sources = sources_of(*given, seed=seed)
    placed = np.concatenate([block.pieces for block in blocks_of(sources, pieces_per_block, seed)])
    for source in sources:
        of_source = placed[(placed >= source.first) & (placed < source.first + len(source.text_tokens))] - source.first
        assert len(of_source) == (source.max_epochs or 0) * len(source.text_tokens)
        for epoch in of_source.reshape(source.max_epochs or 0, -1):
            assert sorted(epoch) == list(range(len(source.text_tokens)))


def test_shares_hold_at_every_moment() -> None:
    sources = sources_of((50_000, 0.7, 64, None), (3_000, 0.2, 64, None), (400, 0.1, 7, None))
    blocks = list(islice(blocks_of(sources, 4096, 0), 60))
    text = np.asarray(text_by_source(sources, blocks))
    share = text.cumsum(axis=1) / text.sum(axis=0).cumsum()
    assert np.abs(share - np.asarray([[0.7], [0.2], [0.1]])).max() < 0.002


def test_the_others_share_the_place_of_a_source_that_has_ended() -> None:
    sources = sources_of((20_000, 0.5, 64, None), (20_000, 0.3, 64, None), (1_000, 0.2, 64, 2))
    blocks = list(islice(blocks_of(sources, 2048, 0), 40))
    text = np.asarray(text_by_source(sources, blocks))
    last = int(np.flatnonzero(text[2])[-1])
    assert 2 < last < 20
    before, after = text[:, :last].sum(axis=1), text[:, last + 1 :].sum(axis=1)
    assert np.allclose(before / before.sum(), [0.5, 0.3, 0.2], atol=0.005)
    assert np.allclose(after / after.sum(), [0.625, 0.375, 0.0], atol=0.005)
    assert text[2].sum() == 2 * sources[2].text_tokens.sum()


def test_blocks_are_whole_row_groups_and_end_with_the_epoch() -> None:
    (source,) = sources_of((10_000, 1.0, 64, None))
    blocks = list(islice(blocks_of([source], 4096, 3), 9))
    assert [block.epoch for block in blocks] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for first in range(0, 9, 3):
        groups = [set((block.pieces // 64).tolist()) for block in blocks[first : first + 3]]
        assert sum(len(one) for one in groups) == len(set.union(*groups)) == 157
        assert {len(block.pieces) // 500 for block in blocks[first : first + 3]} == {6}


def test_what_a_block_needs_lies_in_few_row_groups_of_every_source() -> None:
    sources = sources_of((60_000, 0.6, 64, None), (30_000, 0.4, 64, None))
    for block in islice(blocks_of(sources, 4096, 0), 20):
        for source in sources:
            mine = block.pieces[(block.pieces >= source.first) & (block.pieces < source.first + len(source.groups))]
            groups = np.unique(source.groups[mine - source.first])
            assert len(groups) <= 2 * len(mine) / 64 + 2


def test_a_source_with_a_small_share_makes_no_block_longer() -> None:
    sources = sources_of((50_000, 0.001, 5000, None), (50_000, 0.999, 64, None))
    assert max(len(block.pieces) for block in islice(blocks_of(sources, 1000, 0), 50)) < 2500


@pytest.mark.parametrize("change", ["seed", "name"])
def test_order_depends_on_seed_source_and_epoch_alone(change: str) -> None:
    (source,) = sources_of((2_000, 1.0, 64, None))
    first = list(islice(blocks_of([source], 500, 0), 10))
    again = list(islice(blocks_of([source], 500, 0), 10))
    assert all(np.array_equal(one.pieces, other.pieces) for one, other in zip(first, again, strict=True))
    named = SourcePieces(name="t", first=0, text_tokens=source.text_tokens, groups=source.groups, weight=1.0)
    other = next(iter(blocks_of([named if change == "name" else source], 500, int(change == "seed"))))
    assert not np.array_equal(other.pieces, first[0].pieces)
    assert first[0].pieces.tolist() != first[4].pieces.tolist()
