"""A conversation in a terminal: texts and pictures in, an answer that appears as it is found.

Knows no torch: the model is a function from a laid-out prompt and its pixels to a stream of ids.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from carnac.core.errors import CarnacError, InputError, RecordError
from carnac.sequence.chat_template import Message
from carnac.sequence.layout import Layout, lay_out_messages, lay_out_prompt
from carnac.sequence.pixels import Pixels, load_pixels
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer
from carnac.serve.terminal import printable

Reply = Callable[[Layout, Pixels], Iterator[int]]
HELP = "/image FILE shows a picture, /clear forgets the conversation, /quit ends."
Parts = list[str | bytes]


@dataclass(slots=True, kw_only=True)
class ChatSession:
    """What was said so far, and the model that goes on from it.

    With `turns` that is `messages`, and the model is asked as its chat template writes them. Else it is one document of
    `parts` (texts and encoded pictures, in order), and the model goes on from its end.
    """

    reply: Reply
    tokenizer: LoadedTokenizer
    pictures: PictureSettings
    out: TextIO = field(default_factory=lambda: sys.stdout)
    turns: bool = False
    parts: Parts = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)

    def answer(self, text: str, images: Sequence[Path] = ()) -> str:
        """Add pictures and a text, print the answer while it is found, and return it.

        Raises InputError for a picture that cannot be read, a prompt that does not fit and a turn that the chat
        template does not write; nothing is added then.
        """
        shown: Parts = [*(read_picture(path) for path in images), text]
        if not self.turns:
            parts = [*self.parts, *shown]
            said = self._say(lay_out_prompt(parts, self.tokenizer, self.pictures), parts)
            self.parts = [*parts[:-1], text + said]
            return said
        messages = [*self.messages, Message(role="user", content=tuple(shown))]
        try:
            layout = lay_out_messages(messages, self.tokenizer, self.pictures)
        except RecordError as error:
            raise InputError(f"this conversation cannot be written: {error.detail}. /clear begins another.") from None
        # Spaces at its ends are the template's: it writes them again.
        said = self._say(layout, [part for message in messages for part in message.content]).strip()
        self.messages = [*messages, Message(role="assistant", content=(said,))]
        return said

    def _say(self, layout: Layout, parts: Parts) -> str:
        """Print and return the answer to a prompt of `parts`."""
        pixels = self._pixels([part for part in parts if isinstance(part, bytes)])
        pieces: list[str] = []
        for piece in readable(self.reply(layout, pixels), self.tokenizer, layout.ids[-1:].tolist()):
            fresh = piece.lstrip() if self.turns and not "".join(pieces).strip() else piece
            pieces.append(piece)
            print(printable(fresh), end="", file=self.out, flush=True)
        print(file=self.out, flush=True)
        return "".join(pieces)

    def loop(self, images: Sequence[Path] = (), lines: Iterable[str] | None = None) -> None:
        """Read one line after another until the end of input or `/quit`.

        Raises InputError when one of `images` cannot be read; later mistakes are printed and the conversation goes on.
        """
        waiting = [path for path in images if read_picture(path)]
        print(HELP, file=self.out)
        for line in self._prompted() if lines is None else lines:
            words = line.strip()
            command, _, rest = words.partition(" ")
            if command == "/quit":
                return
            try:
                if command == "/clear":
                    self.parts, self.messages, waiting = [], [], []
                elif command == "/image" and rest:
                    path = Path(rest.strip())
                    read_picture(path)
                    waiting.append(path)
                elif command.startswith("/"):
                    print(HELP, file=self.out)
                elif words:
                    self.answer(line.rstrip("\n"), waiting)
                    waiting = []
            except CarnacError as error:
                # What was said and the pictures that wait stay: `/clear` drops both.
                print(error, file=self.out)

    def _prompted(self) -> Iterator[str]:
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="replace")  # a byte that is no UTF-8 must not end the conversation
        while True:
            try:
                yield input("> ")
            except (EOFError, RuntimeError):  # RuntimeError: standard input was closed before the start
                print(file=self.out)  # the shell's prompt begins on a line of its own
                return

    def _pixels(self, payloads: Sequence[bytes]) -> Pixels:
        size = self.pictures.size_px
        if not payloads:
            return np.empty((0, 3, size, size), dtype=np.float32)
        return np.concatenate([load_pixels(payload, self.pictures) for payload in payloads])


def read_picture(path: Path) -> bytes:
    """Return the bytes of a picture. Raises InputError when it cannot be read or does not decode."""
    try:
        payload = path.read_bytes()
        load_pixels(payload, PictureSettings())
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}). Wanted a picture file.") from None
    except RecordError as error:
        raise InputError(
            f"{path}: not a picture that can be decoded ({error.reason}). Wanted a PNG, JPEG, WebP or GIF."
        ) from None
    return payload


def readable(ids: Iterable[int], tokenizer: LoadedTokenizer, after: Sequence[int] = ()) -> Iterator[str]:
    """Yield the text of a stream of ids as soon as it is certain; joined, it is the text of all ids at once.

    A character may take several ids: one U+FFFD at the end of a decoded text may be a character whose bytes are not all
    there yet, so it waits for the next id. All before it is final. `after` are the ids before the first one (the last
    of the prompt suffices): Llama 2's kind of tokenizer drops the space of a word that nothing stands before.
    """
    context, pending = list(after), []
    known, said = len(tokenizer.decode(context)), 0
    for number in ids:
        pending.append(number)
        text = tokenizer.decode([*context, *pending])[known:]
        certain = text.removesuffix("\N{REPLACEMENT CHARACTER}")
        if len(certain) > said:
            yield certain[said:]
        said = len(certain)
        if certain == text:
            context, pending, said = pending, [], 0
            known = len(tokenizer.decode(context))
    if pending:
        yield tokenizer.decode([*context, *pending])[known + said :]
