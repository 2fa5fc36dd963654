"""A recipe as written: its values and the line of every key.

tomllib reads the values; tree-sitter's TOML grammar, which keeps positions, gives the lines.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carnac.core.errors import RecipeError
from carnac.recipe.mistakes import Mistake

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`lines` maps a location such as `("pass", 1, "rules", 0, "min")` to its line, counted from 1."""

    path: Path
    data: dict[str, Any]
    lines: dict[Location, int] = field(default_factory=dict)

    def line(self, location: Location) -> int:
        """Return the line of `location`, or of the nearest table around it."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def read_source(path: Path) -> Source:
    """Read a recipe. Raises RecipeError when it is missing, not UTF-8 or not TOML."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # editors on Windows put a byte order mark first
    except FileNotFoundError:
        raise _unreadable(path, None, "no such file. Wanted a recipe (TOML) or a folder of recipes.") from None
    except IsADirectoryError:
        raise _unreadable(path, None, "a folder; wanted a recipe file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, None, f"cannot be read as UTF-8 text ({error}).") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise _unreadable(path, line, f"not valid TOML: {str(error).split(' (at')[0]}.") from None
    except RecursionError:
        raise _unreadable(path, None, "nested too deeply for a recipe.") from None
    return Source(path=path, data=data, lines=_key_lines(text))


def _unreadable(path: Path, line: int | None, message: str) -> RecipeError:
    return RecipeError([Mistake(where=str(path), line=line, key="", message=message)])


def _key_lines(text: str) -> dict[Location, int]:
    import tree_sitter
    import tree_sitter_toml

    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
    lines: dict[Location, int] = {}
    arrays: Counter[Location] = Counter()
    for node in parser.parse(text.encode()).root_node.children:
        if node.type == "pair":
            _note_pair(node, (), lines)
        elif node.type in ("table", "table_array_element"):
            location = _inside_arrays(_key(node.children[1]), arrays)
            if node.type == "table_array_element":
                arrays[location] += 1
                location = (*location, arrays[location] - 1)
            _note_key(node, location, lines)
            for child in node.children:
                if child.type == "pair":
                    _note_pair(child, location, lines)
    return lines


def _note_key(node: Any, location: Location, lines: dict[Location, int]) -> None:
    """Note the line of a key, and of the tables that it opens on its way: [a.b] opens a."""
    lines[location] = node.start_point[0] + 1
    for end in range(1, len(location)):
        lines.setdefault(location[:end], lines[location])


def _inside_arrays(key: Location, arrays: Counter[Location]) -> Location:
    """Insert into a header's key the index of the array element it continues: [pass.x] after the second [[pass]]."""
    location: Location = ()
    for position, name in enumerate(key):
        location = (*location, name)
        if arrays[location] and position < len(key) - 1:
            location = (*location, arrays[location] - 1)
    return location


def _note_pair(node: Any, prefix: Location, lines: dict[Location, int]) -> None:
    location = (*prefix, *_key(node.children[0]))
    _note_key(node, location, lines)
    _note_value(node.children[2], location, lines)


def _note_value(node: Any, location: Location, lines: dict[Location, int]) -> None:
    if node.type == "inline_table":
        for child in node.children:
            if child.type == "pair":
                _note_pair(child, location, lines)
    elif node.type == "array":
        elements = [child for child in node.children if child.is_named and child.type != "comment"]
        for index, element in enumerate(elements):
            lines[(*location, index)] = element.start_point[0] + 1
            _note_value(element, (*location, index), lines)


def _key(node: Any) -> Location:
    if node.type == "dotted_key":
        return tuple(name for child in node.children if child.is_named for name in _key(child))
    text = node.text.decode()
    if node.type == "quoted_key":
        return tuple(tomllib.loads(f"{text} = 0"))
    return (text,)
