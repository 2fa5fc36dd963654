"""Errors that carnac raises on purpose.

    CarnacError                 every error below; its text is for the user, never a traceback
    +-- RecipeError             a recipe is wrong; carries every mistake found
    +-- InputError              something given to a run cannot be used: a path, a file, a folder of another stage
    +-- OutputError             an output folder cannot be written, or holds another run
    +-- RunError                a run cannot go on: a worker died, too many bad records
    RecordError                 one record is bad: it goes to the ledger with its reason, the run goes on

A message says what, where, got, wanted and what to try.
"""

from __future__ import annotations

from collections.abc import Sequence


class CarnacError(Exception):
    """A mistake or an obstacle that the user can act on."""


class InputError(CarnacError):
    """Something given to a run cannot be used."""


class OutputError(CarnacError):
    """An output folder cannot be written, or it holds another run."""


class RunError(CarnacError):
    """A run cannot go on."""


class RecipeError(CarnacError):
    """A recipe is wrong. `mistakes` holds one printable sentence per mistake, in the order of the files."""

    def __init__(self, mistakes: Sequence[object]) -> None:
        # What stands in `args` is what a worker's error is rebuilt from in its parent: the arguments, not their text.
        super().__init__(mistakes)
        self.mistakes = tuple(mistakes)

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.mistakes)


class RecordError(Exception):
    """One record is bad.

    `reason` is a short stable word for counting (`not_an_image`), `detail` a sentence for the reader.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason
