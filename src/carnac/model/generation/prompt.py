"""What a model is asked to go on from: token ids with the places of pictures, and the pictures.

Legend of shapes: T tokens of a prompt, N squares of pictures (whole pictures and tiles), S their side, P tokens of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from carnac.core.errors import InputError

NO_PLACES: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
NO_PIXELS: npt.NDArray[np.float32] = np.zeros((0, 3, 0, 0), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """Texts and pictures in the order in which the model reads them.

    ids     int64 [T]             the places of pictures hold any id: it is not read
    places  int64 [N]             the first position of each square; it fills P positions from there
    pixels  float32 [N, 3, S, S]  normalised for the vision tower, in the order of `places`; NaN beyond a native picture
    """

    ids: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64] = field(default_factory=NO_PLACES.copy)
    pixels: npt.NDArray[np.float32] = field(default_factory=NO_PIXELS.copy)

    def __len__(self) -> int:
        """Return T, pictures included."""
        return len(self.ids)

    def beginning(self, length: int) -> Prompt:
        """Return the first `length` tokens and their pictures; it must not cut a picture."""
        kept = int((self.places < length).sum())
        return Prompt(ids=self.ids[:length], places=self.places[:kept], pixels=self.pixels[:kept])

    def rest(self, length: int) -> Prompt:
        """Return what follows the first `length` tokens."""
        kept = int((self.places < length).sum())
        return Prompt(ids=self.ids[length:], places=self.places[kept:] - length, pixels=self.pixels[kept:])

    def begins_with(self, other: Prompt) -> bool:
        """Return whether `other` is the beginning of this prompt, pictures included."""
        count = len(other.places)
        return (
            np.array_equal(self.ids[: len(other)], other.ids)
            and np.array_equal(self.places[:count], other.places)
            and _equal(self.pixels[:count], other.pixels)
            and bool((self.places[count:] >= len(other)).all())
        )


def check_prompt(prompt: Prompt, tokens_per_image: int, longest: int) -> None:
    """Raise InputError unless a model with `longest` positions can read `prompt` and go on from it."""
    if not 1 <= len(prompt) < longest:
        raise InputError(
            f"the prompt has {len(prompt)} tokens, pictures included; this model takes 1 to {longest - 1}. "
            "Shorten it, show fewer pictures, or begin a new conversation."
        )
    if len(prompt.places) != len(prompt.pixels):
        raise InputError(
            f"the prompt has {len(prompt.places)} places for pictures and {len(prompt.pixels)} pictures. "
            "Wanted a place for each; a picture in tiles has one for each tile."
        )
    ends = np.concatenate([[0], prompt.places + tokens_per_image])
    if (np.append(prompt.places, len(prompt)) < ends).any():
        raise InputError(
            f"the prompt of {len(prompt)} tokens has places for pictures at {prompt.places.tolist()}, which overlap or "
            f"do not fit. Wanted {tokens_per_image} tokens for each, in order."
        )


def shared_beginning(prompts: Sequence[Prompt], tokens_per_image: int) -> int:
    """Return how many tokens all prompts begin with in common, pictures compared bit by bit: what is read only once.

    No picture is cut, and each prompt keeps at least one token of its own, after which its answer comes.
    """
    first = prompts[0]
    length = min(len(prompt) for prompt in prompts) - 1
    for prompt in prompts[1:]:
        differs = first.ids[:length] != prompt.ids[:length]
        length = int(differs.argmax()) if differs.any() else length
        for number, place in enumerate(first.places[first.places < length].tolist()):
            same = number < len(prompt.places) and prompt.places[number] == place
            if not (same and _equal(first.pixels[number], prompt.pixels[number])):
                length = place
                break
        # A picture of the other prompt alone may begin where this one has the same ids.
        others = prompt.places[(prompt.places < length) & ~np.isin(prompt.places, first.places)]
        length = min(length, int(others.min())) if len(others) else length
    cut = first.places[(first.places < length) & (first.places + tokens_per_image > length)]
    return int(cut[0]) if len(cut) else length


def _equal(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> bool:
    """Return whether pictures are equal: where both are NaN, both end."""
    return np.array_equal(one, other, equal_nan=True)
