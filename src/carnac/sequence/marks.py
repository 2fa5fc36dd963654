r"""The tokens of one picture: image tokens alone, or with marks around each square.

    <fake><image>...<fake>                                              idefics: one square
    <fake><image>...<fake><image>...<fake>                              idefics2: each square; neighbours share a mark
    <fake><row_1_col_1><image>...<fake><row_1_col_2><image>...\n         idefics3: a row of tiles
    \n<fake><global-img><image>...<fake>                                the whole picture, after the tiles or alone

As transformers' processors write it, so that an exported model reads what it was trained on. A mark that two pictures
share belongs to the earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from carnac.sequence.settings import PictureSettings
from carnac.sequence.tiles import Tiling

IDEFICS3_IMAGE, FAKE, GLOBAL, END_OF_TURN = "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"
LineEnds = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureTokens:
    """`ids` of a picture, marks included; `squares` are where each square's image tokens begin among them."""

    ids: list[int]
    squares: list[int]


def mark_names(settings: PictureSettings) -> tuple[str, ...]:
    """Return the tokens that a tokenizer must have beside the image token, in the order in which they are added.

    The end of a turn is among them because Idefics2's and Idefics3's processors add it where it is missing.
    """
    if settings.marks == "none":
        return ()
    if settings.marks != "idefics3":
        return (FAKE,) if settings.marks == "idefics" else (FAKE, END_OF_TURN)
    numbers = range(1, settings.max_tiles + 1) if settings.max_tiles > 1 else ()
    return (FAKE, GLOBAL, END_OF_TURN, *(row_column(row, column) for row in numbers for column in numbers))


def row_column(row: int, column: int) -> str:
    """Return the mark of a tile, counted from 1."""
    return f"<row_{row}_col_{column}>"


def picture_tokens(
    found: Tiling,
    settings: PictureSettings,
    image: int,
    marks: Mapping[str, int],
    line_ends: LineEnds,
    *,
    neighbour: bool = False,
) -> PictureTokens:
    """Return the tokens of one picture; `line_ends` are the ids of one and of two line ends.

    A `neighbour` stands right behind another picture: what marks the end of that one marks its own beginning.
    """
    count = settings.square_tokens
    if settings.marks == "none":
        return PictureTokens(ids=[image] * count * found.squares, squares=[n * count for n in range(found.squares)])
    if settings.marks != "idefics3":
        return _between_marks(found.squares, [image] * count, marks[FAKE], neighbour=neighbour)
    ids: list[int] = []
    squares: list[int] = []

    def square(mark: str) -> None:
        ids.extend((marks[FAKE], marks[mark]))
        squares.append(len(ids))
        ids.extend([image] * count)

    for row in range(1, found.rows + 1):
        for column in range(1, found.columns + 1):
            square(row_column(row, column))
        # A tokenizer may know two line ends as one token: the last row's and the one before the whole picture.
        ids.extend(line_ends[row == found.rows])
    square(GLOBAL)
    return PictureTokens(ids=[*ids, marks[FAKE]], squares=squares)


def _between_marks(num_squares: int, square: list[int], mark: int, *, neighbour: bool) -> PictureTokens:
    before = [] if neighbour else [mark]
    step = len(square) + 1
    return PictureTokens(
        ids=before + [*square, mark] * num_squares, squares=[len(before) + n * step for n in range(num_squares)]
    )
