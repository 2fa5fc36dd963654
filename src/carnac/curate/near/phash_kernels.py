"""Compiled loop of the search for pictures within a distance: hashes of one group compared with one another.

Only workers import this module, since numba takes half a second to load.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

_S1, _S2, _S4, _S56 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)
_PAIRS = np.uint64(0x5555555555555555)
_FOURS = np.uint64(0x3333333333333333)
_BYTES = np.uint64(0x0F0F0F0F0F0F0F0F)
_ONES = np.uint64(0x0101010101010101)


@njit(cache=True, inline="always")
def _num_bits(number: np.uint64) -> np.uint64:
    """Count the bits that are set (Warren, Hacker's Delight, 5-1): compilers make one instruction of it."""
    number = number - ((number >> _S1) & _PAIRS)
    number = (number & _FOURS) + ((number >> _S2) & _FOURS)
    return (((number + (number >> _S4)) & _BYTES) * _ONES) >> _S56


@njit(cache=True)
def join_groups(
    hashes: npt.NDArray[np.uint64], starts: npt.NDArray[np.int64], max_distance: int
) -> npt.NDArray[np.int64]:
    """Return of each hash a lower place of its group that it is joined with, or its own: int64[n].

    Group g is `hashes[starts[g]:starts[g + 1]]`; two of a group are joined where they differ in at most `max_distance`
    bits, and with all that either is joined with. The place is that of the first of all of these.
    """
    root = np.arange(len(hashes))
    most = np.uint64(max_distance)
    for group in range(len(starts) - 1):
        for place in range(starts[group] + 1, starts[group + 1]):
            for other in range(starts[group], place):
                if _num_bits(hashes[place] ^ hashes[other]) <= most:
                    here, there = place, other
                    while root[here] != here:
                        root[here] = root[root[here]]
                        here = root[here]
                    while root[there] != there:
                        root[there] = root[root[there]]
                        there = root[there]
                    root[max(here, there)] = min(here, there)
        for place in range(starts[group], starts[group + 1]):
            root[place] = root[root[place]]
    return root
