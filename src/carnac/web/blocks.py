"""Events of a walk over a page (enter, text, picture, leave) -> blocks in reading order.

What becomes of which element:

    p, div, ... and bare text   paragraph; two or more `<br>` in a row begin a new one
    h1 ... h6                   heading
    ul, ol, dl                  one list block for the outermost list: "- item", two spaces per level, `dd` indented
    table                       one table block: a line per row, cells joined by " | "
    blockquote                  one quote block, a line per paragraph
    pre                         code block, whitespace kept
    figcaption, caption         caption block; it also becomes the caption of its figure's pictures

A picture is a block at its very place: it splits the paragraph, list or quote around it; in a table it follows its
row. A heading, `pre` or table inside a list or quote splits it too. A table that holds one of these, or a cell of
several long paragraphs, is a means of layout: its cells are read as ordinary text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType

from carnac.core.document import Kind
from carnac.web.sources import Attributes
from carnac.web.tags import STRUCTURE

LINE_BREAK = "\0"  # never in parsed HTML; marks `<br>` in collected text
_MAX_INDENT = 10  # levels: what lies deeper is no list that anyone reads
_LAYOUT_CELL_CHARACTERS = 500
PARAGRAPH_BREAK = re.compile(r"\0[ \t\n\r\f]*\0[\0 \t\n\r\f]*")


_NO_ATTRIBUTES: Attributes = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class Block:
    """A text, or a picture: its URL, its element's attributes, and the attribute that held the URL.

    `flaw` says why a picture is none of the article's, see `image_flaw`.
    """

    kind: Kind
    text: str | None = None
    url: str | None = None
    attributes: Attributes = field(default_factory=lambda: _NO_ATTRIBUTES)
    source_attribute: str = ""
    caption: str | None = None
    flaw: str | None = None


@dataclass(slots=True)
class _Lines:
    """The lines of the outermost list or quote that is open."""

    kind: Kind
    lines: list[str] = field(default_factory=list)
    has_quoted: bool = False  # a line outside any item
    is_fresh: bool = False  # the next line begins an item


@dataclass(slots=True)
class _Table:
    """A table so far. `after` holds pictures and captions that wait for the end of their row."""

    rows: list[list[str]] = field(default_factory=list)
    row: list[str] = field(default_factory=list)
    cell: list[str] = field(default_factory=list)
    after: list[Block] = field(default_factory=list)


@dataclass(slots=True)
class _Open:
    """An open list, quote or table and what its text goes to: None for a table of layout."""

    tag: str
    target: _Lines | _Table | None
    depth: int = 0  # lists around the text


@dataclass(slots=True)
class _Figure:
    pictures: list[Block] = field(default_factory=list)
    caption: str | None = None


class BlockBuilder:
    """Collects blocks. Every event costs constant time, or time that text already taken in pays for."""

    def __init__(self, *, plain: bool = False) -> None:
        self.blocks: list[Block] = []
        self._plain = plain  # lists and tables without marks
        self._open: list[_Open] = []
        self._figures: list[_Figure] = []
        self._caption: list[str] | None = None
        self._code: list[str] | None = None
        self._code_depth = 0
        self._heading_depth = 0
        self._waiting: list[Block] = []  # pictures met inside code

    def enter(self, tag: str) -> None:
        """Begin an element of `STRUCTURE`."""
        if self._code is not None and tag != "pre":
            self._end_code_line()
        else:
            _ENTER[tag](self, tag)

    def leave(self, tag: str) -> None:
        """End an element of `STRUCTURE`."""
        if self._code is not None and tag != "pre":
            self._end_code_line()
        else:
            _LEAVE[tag](self, tag)

    def text(self, run: str) -> None:
        """Add the inline text between two boundaries of blocks: its white space collapsed, but in code as in the page.

        `LINE_BREAK` in it is a `<br>`.
        """
        if self._code is not None:
            self._code.append(run)
            return
        if "\n" in run:  # from a listing of which only what is in it was taken
            run = " ".join(run.split())
        if self._caption is not None:
            self._caption += _lines_of(run)
        elif self._heading_depth:
            self._add_text("heading", " ".join(_lines_of(run)))
        else:
            self._add_run(run)

    def picture(self, block: Block) -> None:
        """Add a picture."""
        if self._figures:
            self._figures[-1].pictures.append(block)
        if self._code is not None:
            self._waiting.append(block)
        else:
            self._place(block)

    @property
    def is_in_code(self) -> bool:
        """Whether a listing is open."""
        return self._code is not None

    def finish(self) -> list[Block]:
        """Return the blocks."""
        return self.blocks

    # Where text goes.

    def _top(self) -> _Lines | _Table | None:
        return self._open[-1].target if self._open else None

    def _pass(self, _tag: str) -> None:
        """Do nothing: the boundary of a block has ended the text before it."""

    def _add_run(self, raw: str) -> None:
        target = self._top()
        if isinstance(target, _Table):
            target.cell += _lines_of(raw)
        elif isinstance(target, _Lines):
            self._add_lines(target, _lines_of(raw))
        elif LINE_BREAK in raw:
            for paragraph in PARAGRAPH_BREAK.split(raw):
                self._add_text("paragraph", "\n".join(_lines_of(paragraph)))
        else:
            self._add_text("paragraph", raw)

    def _add_lines(self, target: _Lines, lines: list[str]) -> None:
        depth = self._open[-1].depth
        is_marked = depth and not self._plain
        for line in lines:
            target.lines.append(
                "  " * min(depth - 1, _MAX_INDENT) + ("- " if target.is_fresh else "  ") + line if is_marked else line
            )
            target.has_quoted = target.has_quoted or not depth
            target.is_fresh = False

    def _add_text(self, kind: Kind, text: str) -> None:
        if text:
            self.blocks.append(Block(kind=kind, text=text))

    def _place(self, block: Block) -> None:
        """Put a picture or caption at its place: now, or after the row of the table around it."""
        target = self._top()
        if isinstance(target, _Table):
            target.after.append(block)
            return
        if isinstance(target, _Lines):
            self._flush_lines(target)
        self.blocks.append(block)

    def _break_out(self) -> None:
        """Make room for a block that cannot be part of a line."""
        target = self._top()
        if isinstance(target, _Lines):
            self._flush_lines(target)
            target.is_fresh = False
        elif isinstance(target, _Table):
            self._make_layout(target)

    def _flush_lines(self, target: _Lines) -> None:
        if not target.lines:
            return
        indent = min(len(line) - len(line.lstrip(" ")) for line in target.lines)
        kind: Kind = "quote" if target.kind == "quote" and target.has_quoted else "list"
        self._add_text(kind, "\n".join(line[indent:] for line in target.lines))
        target.lines.clear()
        target.has_quoted = False

    # Headings, captions, figures.

    def _enter_heading(self, _tag: str) -> None:
        self._break_out()
        self._heading_depth += 1

    def _leave_heading(self, _tag: str) -> None:
        self._heading_depth -= 1

    def _enter_figure(self, _tag: str) -> None:
        self._figures.append(_Figure())

    def _leave_figure(self, _tag: str) -> None:
        figure = self._figures.pop()
        for picture in figure.pictures:
            picture.caption = figure.caption

    def _enter_caption(self, _tag: str) -> None:
        if self._caption is None:
            self._caption = []

    def _leave_caption(self, tag: str) -> None:
        text = "\n".join(self._caption or ())
        self._caption = None
        if not text:
            return
        if tag == "caption":  # of a table: stands before its rows
            self._add_text("caption", text)
        else:
            self._place(Block(kind="caption", text=text))
            if self._figures:
                self._figures[-1].caption = text

    # Lists and quotes.

    def _enter_list(self, tag: str) -> None:
        self._enter_lines(tag, "list")

    def _enter_quote(self, tag: str) -> None:
        self._enter_lines(tag, "quote")

    def _enter_lines(self, tag: str, kind: Kind) -> None:
        depth = int(kind == "list")
        if self._open and self._open[-1].target is not None:
            self._open.append(_Open(tag, self._open[-1].target, self._open[-1].depth + depth))
        else:
            self._open.append(_Open(tag, _Lines(kind), depth))

    def _leave_list(self, _tag: str) -> None:
        target = self._open.pop().target
        if isinstance(target, _Lines) and self._top() is not target:
            self._flush_lines(target)

    def _leave_quote(self, tag: str) -> None:
        self._leave_list(tag)

    def _enter_item(self, tag: str) -> None:
        target = self._top()
        if isinstance(target, _Lines):
            target.is_fresh = tag != "dd"

    # Tables.

    def _enter_table(self, tag: str) -> None:
        self._break_out()
        self._open.append(_Open(tag, _Table()))

    def _leave_table(self, _tag: str) -> None:
        self._end_row()
        target = self._open.pop().target
        if isinstance(target, _Table):
            self._flush_table(target)

    def _leave_cell(self, _tag: str) -> None:
        target = self._top()
        if not isinstance(target, _Table):
            return
        if len(target.cell) > 1 and sum(map(len, target.cell)) > _LAYOUT_CELL_CHARACTERS:
            self._make_layout(target)
        else:
            target.row.append(" ".join(target.cell))
            target.cell.clear()

    def _end_row(self, _tag: str = "") -> None:
        target = self._top()
        if not isinstance(target, _Table):
            return
        target.row += target.cell
        target.cell.clear()
        if any(target.row):
            target.rows.append(target.row)
        target.row = []
        if target.after:
            self._flush_table(target)

    def _enter_row(self, tag: str) -> None:
        self._end_row(tag)

    def _leave_row(self, tag: str) -> None:
        self._end_row(tag)

    def _flush_table(self, table: _Table) -> None:
        """Add the rows so far as a table, or as paragraphs if there is but one column, then the pictures."""
        separator = "\t" if self._plain else " | "
        lines = [_join_cells(row, separator) for row in table.rows]
        if any(sum(map(bool, row)) > 1 for row in table.rows):
            self._add_text("table", "\n".join(lines))
        else:
            for line in lines:
                self._add_text("paragraph", line)
        self.blocks += table.after
        table.rows.clear()
        table.after.clear()

    def _make_layout(self, table: _Table) -> None:
        """Read the rest of `table` as ordinary text."""
        texts, after = [*table.row, *table.cell], table.after
        table.after = []
        self._flush_table(table)
        for text in texts:
            self._add_text("paragraph", text)
        self.blocks += after
        for opened in reversed(self._open):
            if opened.target is not table:
                break
            opened.target = None

    # Code.

    def _enter_code(self, _tag: str) -> None:
        if self._code is None:
            self._break_out()
            self._code = []
        self._code_depth += 1

    def _leave_code(self, _tag: str) -> None:
        self._code_depth -= 1
        if self._code_depth or self._code is None:
            return
        text = re.sub(r"\A(?:[ \t]*\n)+", "", "".join(self._code).replace("\r", "")).rstrip()
        self._code = None
        if not _is_line_numbers(text, inside_table=bool(self._open) and self._open[-1].tag == "table"):
            self._add_text("code", text)
        self.blocks += self._waiting
        self._waiting.clear()

    def _end_code_line(self) -> None:
        if self._code and not self._code[-1].endswith("\n"):
            self._code.append("\n")


def _table_of(event: str) -> dict[str, Callable[[BlockBuilder, str], None]]:
    return {tag: getattr(BlockBuilder, f"_{event}_{role}", BlockBuilder._pass) for tag, role in STRUCTURE.items()}  # noqa: SLF001


_ENTER, _LEAVE = _table_of("enter"), _table_of("leave")
# All others only end the text before them, and the walk has done that.
ACTIVE = {tag for tag in STRUCTURE if not _ENTER[tag] is _LEAVE[tag] is BlockBuilder._pass}  # noqa: SLF001


def _lines_of(raw: str) -> list[str]:
    """Split inline text at its line breaks, drop empty lines."""
    if LINE_BREAK not in raw:
        return [raw] if raw else []
    return [line for part in raw.split(LINE_BREAK) if (line := part.strip())]


def _join_cells(row: list[str], separator: str) -> str:
    filled = [cell for cell in row if cell]
    return filled[0] if len(filled) == 1 else separator.join(row).rstrip(separator)


def _is_line_numbers(text: str, *, inside_table: bool) -> bool:
    """Say whether a listing is the column of numbers that stands beside another one."""
    words = text.split()
    if not all(word.isascii() and word.isdigit() and len(word) < 8 for word in words):
        return False
    first = int(words[0]) if words else 0
    return len(words) > 1 - inside_table and [int(word) for word in words] == [*range(first, first + len(words))]
