"""A conversation in a terminal: texts and pictures in, an answer that appears as it is found.

Knows no torch: the model is a function from a laid-out prompt and its pixels to a stream of ids.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from carnac.core.errors import CarnacError, InputError, RecordError
from carnac.sequence.layout import Layout, lay_out_prompt
from carnac.sequence.pixels import Pixels, load_pixels
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer

Reply = Callable[[Layout, Pixels], Iterator[int]]
HELP = "/image FILE shows a picture, /clear forgets the conversation, /quit ends."


@dataclass(slots=True, kw_only=True)
class ChatSession:
    """What was said so far (`parts`: texts and encoded pictures, in order), and the model that goes on from it."""

    reply: Reply
    tokenizer: LoadedTokenizer
    pictures: PictureSettings
    out: TextIO = field(default_factory=lambda: sys.stdout)
    parts: list[str | bytes] = field(default_factory=list)

    def answer(self, text: str, images: Sequence[Path] = ()) -> str:
        """Add pictures and a text, print the answer while it is found, and return it.

        Raises InputError for a picture that cannot be read and a prompt that does not fit; nothing is added then.
        """
        parts = [*self.parts, *(read_picture(path) for path in images), text]
        layout = lay_out_prompt(parts, self.tokenizer, self.pictures)
        pixels = self._pixels([part for part in parts if isinstance(part, bytes)])
        pieces = []
        for piece in readable(self.reply(layout, pixels), self.tokenizer):
            pieces.append(piece)
            print(piece, end="", file=self.out, flush=True)
        print(file=self.out, flush=True)
        said = "".join(pieces)
        self.parts = [*parts[:-1], text + said]
        return said

    def loop(self, images: Sequence[Path] = (), lines: Iterable[str] | None = None) -> None:
        """Read one line after another until the end of input or `/quit`."""
        print(HELP, file=self.out)
        waiting = list(images)
        for line in self._prompted() if lines is None else lines:
            words = line.strip()
            if words == "/quit":
                return
            try:
                if words == "/clear":
                    self.parts, waiting = [], []
                elif words.startswith("/image"):
                    waiting.append(Path(words.removeprefix("/image").strip()))
                    read_picture(waiting[-1])
                elif words.startswith("/"):
                    print(HELP, file=self.out)
                elif words:
                    self.answer(line.rstrip("\n"), waiting)
                    waiting = []
            except CarnacError as error:
                # The conversation goes on: a picture that does not open is dropped, what was said stays.
                print(error, file=self.out)
                waiting = []

    def _prompted(self) -> Iterator[str]:
        while True:
            try:
                yield input("> ")
            except EOFError:
                return

    def _pixels(self, payloads: Sequence[bytes]) -> Pixels:
        size = self.pictures.size_px
        if not payloads:
            return np.empty((0, 3, size, size), dtype=np.float32)
        return np.stack([load_pixels(payload, self.pictures) for payload in payloads])


def read_picture(path: Path) -> bytes:
    """Return the bytes of a picture. Raises InputError when it cannot be read or does not decode."""
    try:
        payload = path.read_bytes()
        load_pixels(payload, PictureSettings())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Wanted a picture file.") from None
    except RecordError as error:
        raise InputError(
            f"{path}: not a picture that can be decoded ({error.reason}). Wanted a PNG, JPEG, WebP or GIF."
        ) from None
    return payload


def readable(ids: Iterable[int], tokenizer: LoadedTokenizer) -> Iterator[str]:
    """Yield the text of a stream of ids as soon as it is certain: a character may take several ids."""
    pending: list[int] = []
    for number in ids:
        pending.append(number)
        text = tokenizer.decode(pending)
        # U+FFFD at the end: the bytes of a character are not all there yet; four at most, so it never waits for ever.
        if text.endswith("\N{REPLACEMENT CHARACTER}") and len(pending) < 4:
            continue
        yield text
        pending = []
    if pending:
        yield tokenizer.decode(pending)
