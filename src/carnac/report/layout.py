"""Words and tables laid out for a terminal: no colours, no styles, one width."""

from __future__ import annotations

import io
import shlex
import textwrap
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from carnac.serve.terminal import printable

WIDTH = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A table: its first column is a name, the others are numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What there is to say: lines `(name, what)`, and tables."""

    lines: tuple[tuple[str, str], ...]
    tables: tuple[Figures, ...]


def rendered(table: Table) -> str:
    """Return a table as lines."""
    # Names of rules and folders are names: `[kind]` in them is no style and `:word:` no picture.
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, markup=False, emoji=False, highlight=False)
    console.print(table)
    out = console.file
    assert isinstance(out, io.StringIO)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def figures_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as lines: names in its first column, figures in the others."""
    table = Table(*head[:1], box=None, pad_edge=False)
    for name in head[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    return rendered(table)


def flat(text: str, length: int = 240) -> str:
    """Return text on one line, cut to `length` characters."""
    words = " ".join(text.split())
    return words if len(words) <= length else f"{words[: length - 3]}..."


def shortened(text: str, length: int = 240) -> str:
    """Return text cut to `length` characters, in lines that fit the width."""
    return textwrap.fill(flat(text, length), WIDTH - 4)


def clock(seconds: float, now: float | None = None) -> str:
    """Return a time (seconds since the epoch) as a reader of the same day needs it, with the date on another day."""
    then, today = time.localtime(seconds), time.localtime(time.time() if now is None else now)
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", then)


def percent(share: float) -> str:
    """Return a share as per cent, three digits."""
    return f"{100 * share:.3g} %"


def shell_word(text: str) -> str:
    """Return `text` as one word of a shell: what the web wrote runs no command there, and steers no terminal."""
    if printable(text) == text and not {"\n", "\t"} & set(text):
        return shlex.quote(text)
    escaped = (
        character if character.isprintable() and character not in "'\\" else _escaped(character) for character in text
    )
    return f"$'{''.join(escaped)}'"  # as bash, zsh and ksh read it


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="replace"))
