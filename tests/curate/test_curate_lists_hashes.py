"""The nearest hash of a list is that of a comparison of all pairs, by an index or without."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carnac.curate.lists import hashes as lists_hashes
from carnac.curate.lists.hashes import Words, nearest, words_of


def some(number: int, num_words: int, seed: int) -> Words:
    return np.random.default_rng(seed).integers(0, 2**64, (number, num_words), np.uint64)


def flipped(words: Words, bits: int, seed: int) -> Words:
    """Return hashes that many bits away, other bits of each."""
    draw, changed = np.random.default_rng(seed), words.copy()
    for row in changed:
        for bit in draw.permutation(64 * len(row))[:bits]:
            row[bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    return changed


def by_all_pairs(queries: Words, listed: Words, max_distance: int) -> tuple[list[int], list[int]]:
    places, distances = [], []
    for query in queries:
        known = np.bitwise_count(listed ^ query).sum(axis=1, dtype=np.int64)
        place = int(known.argmin()) if len(known) else -1
        is_near = place >= 0 and int(known[place]) <= max_distance
        places.append(place if is_near else -1)
        distances.append(int(known[place]) if is_near else -1)
    return places, distances


@pytest.mark.parametrize(
    ("num_words", "max_distance"), [(4, 31), (4, 32), (4, 47), (4, 63), (1, 0), (1, 7), (1, 8), (1, 12)]
)
@pytest.mark.parametrize("few", [0, 4096])
def test_an_index_finds_what_all_pairs_find(
    num_words: int, max_distance: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists_hashes, "FEW", few)
    monkeypatch.setattr(lists_hashes, "PAIRS_AT_ONCE", 500)
    listed = some(300, num_words, seed=1)
    away = [flipped(listed[:40], bits, seed=bits) for bits in (0, max_distance, max_distance + 1)]
    queries = np.concatenate([*away, some(20, num_words, seed=2)])
    places, distances = nearest(queries, listed, max_distance)
    assert (places.tolist(), distances.tolist()) == by_all_pairs(queries, listed, max_distance)
    assert (places[:80] >= 0).all()


@given(st.data())
def test_hashes_with_many_equal_chunks_are_found_too(data: st.DataObject) -> None:
    words = st.lists(st.sampled_from([0, 1, 3, 2**16, 2**64 - 1]), min_size=4, max_size=4)
    listed, queries = (np.array(data.draw(st.lists(words, max_size=8)), np.uint64).reshape(-1, 4) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists_hashes, "FEW", -1)
        places, distances = nearest(queries, listed, 31)
    assert (places.tolist(), distances.tolist()) == by_all_pairs(queries, listed, 31)


def test_an_index_compares_a_small_share_of_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    pairs_by_chunk = lists_hashes._pairs_by_chunk

    def counted(*given: object) -> object:
        nonlocal compared
        for rows, entries in pairs_by_chunk(*given):  # type: ignore[arg-type]
            compared += len(rows)
            yield rows, entries

    monkeypatch.setattr(lists_hashes, "_pairs_by_chunk", counted)
    listed, queries = some(100_000, 4, seed=3), some(100, 4, seed=4)
    nearest(queries, listed, 31)
    assert 0 < compared < 100 * 100_000 / 100


def test_bytes_become_words_with_the_first_byte_highest() -> None:
    assert words_of([b"\x80" + bytes(31)], 32).tolist() == [[2**63, 0, 0, 0]]
    assert words_of([], 8).shape == (0, 1)
