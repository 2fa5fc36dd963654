from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carnac.core.errors import RecipeError
from carnac.recipe.source import Location, Source, read_source

RECIPE = '''\
# a comment
job = "toy"
"quoted key" = 1
'literal.key' = 2
a.b."c.d" = 3

[table]   # after a header
x = """
[not.a.table]
y = 1
"""
y = [ # a list
  1,
  # between
  { deep = [
      7 ], other = { z = 1 } },
]

[table.inner]
z = 1

[far.away]
z = 1

[[pass]]
name = "one"
[pass.sub]
k = 1

[[pass]]
name = "two"
rules = [
  { on = "text", min = 1 },

  { on = "image", min = """
""", max = 2 },
]
[[pass.child]]
k = 1
[[pass.child]]
k = 2
  [pass.child."x y"]
  k = 3
'''


def _source(folder: Path, text: str) -> Source:
    path = folder / "r.toml"
    path.write_bytes(text.encode())
    return read_source(path)


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("job",), 2),
        (("quoted key",), 3),
        (("literal.key",), 4),
        (("a", "b", "c.d"), 5),
        (("a", "b"), 5),
        (("a",), 5),
        (("table",), 7),
        (("table", "x"), 8),
        (("table", "y"), 12),
        (("table", "y", 0), 13),
        (("table", "y", 1), 15),
        (("table", "y", 1, "deep"), 15),
        (("table", "y", 1, "deep", 0), 16),
        (("table", "y", 1, "other", "z"), 16),
        (("table", "inner"), 19),
        (("table", "inner", "z"), 20),
        (("far",), 22),
        (("far", "away", "z"), 23),
        (("pass",), 25),
        (("pass", 0, "name"), 26),
        (("pass", 0, "sub", "k"), 28),
        (("pass", 1), 30),
        (("pass", 1, "name"), 31),
        (("pass", 1, "rules", 0, "min"), 33),
        (("pass", 1, "rules", 1), 35),
        (("pass", 1, "rules", 1, "min"), 35),
        (("pass", 1, "rules", 1, "max"), 36),
        (("pass", 1, "child", 0, "k"), 39),
        (("pass", 1, "child", 1), 40),
        (("pass", 1, "child", 1, "x y", "k"), 43),
        # What is not there has the line of the nearest table around it.
        (("pass", 1, "child", 0, "missing"), 38),
        (("pass", 1, "missing", 3, "more"), 30),
        (("table", "missing"), 7),
        (("missing",), 1),
        ((), 1),
    ],
)
def test_every_key_has_its_line(tmp_path: Path, location: Location, line: int) -> None:
    assert _source(tmp_path, RECIPE).line(location) == line
    assert _source(tmp_path, RECIPE.replace("\n", "\r\n")).line(location) == line


def _locations(value: Any, prefix: Location = ()) -> set[Location]:
    found = {prefix} if prefix else set()
    if isinstance(value, dict):
        return found.union(*(_locations(item, (*prefix, key)) for key, item in value.items()))
    if isinstance(value, list):
        return found.union(*(_locations(item, (*prefix, place)) for place, item in enumerate(value)))
    return found


KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
SCALARS = st.integers(-9, 9) | st.booleans() | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=3), max_leaves=9)
in_one_folder = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@in_one_folder
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_every_key_of_any_recipe_has_a_line_of_its_own(tmp_path: Path, data: dict[str, Any]) -> None:
    text = tomli_w.dumps(data)
    source = _source(tmp_path, text)
    assert source.data == data
    assert set(source.lines) == _locations(data)
    lines = text.split("\n")
    for location, line in source.lines.items():
        key = location[-1]
        if isinstance(key, str) and key.isascii() and key.isalnum():
            assert key in lines[line - 1]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('job = "toy"\nsteps = \nx = 1\n', 2, "Invalid value"),
        ('job = "toy"\n\n[training\nsteps = 1\n', 3, "Expected ']'"),
        ('job = "toy"\njob = "toy"\n', 2, "Cannot overwrite a value"),
        ('job = "toy"\nx = "never ends\n', 2, "Illegal character"),
        ('job = "toy"\nx = """\nnever\nends', 4, "Unterminated string"),
        ("x = [1,\n2", 2, "Unclosed array"),
        ("just words\n", 1, "Expected '='"),
    ],
)
def test_a_syntax_error_has_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        _source(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/r.toml:{line}: not valid TOML: {words}")
    assert "\n" not in str(caught.value)


def test_what_cannot_be_read_ends_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'job = "caf\xe9"')
    (tmp_path / "deep.toml").write_text("x = " + "[" * 5000)
    for name, words in [
        ("gone.toml", "no such file. Wanted a recipe"),
        ("", "a folder; wanted a recipe file"),
        ("latin.toml", "cannot be read as UTF-8 text"),
        ("deep.toml", "nested too deeply"),
    ]:
        with pytest.raises(RecipeError) as caught:
            read_source(tmp_path / name)
        assert words in str(caught.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    source = _source(tmp_path, "\ufeffjob = 'toy'\nx = 1\n")
    assert source.data == {"job": "toy", "x": 1}
    assert source.line(("x",)) == 2


def test_lines_count_in_characters_beyond_ascii(tmp_path: Path) -> None:
    source = _source(tmp_path, '# \U0001f600 \u00e9\n"\u00e9" = "\U0001f600"\nx = 1\n')
    assert (source.line(("\u00e9",)), source.line(("x",))) == (2, 3)


@in_one_folder
@given(st.text(alphabet='a=[]{}".,\n #1', max_size=25))
def test_any_text_gives_a_source_or_sentences(tmp_path: Path, text: str) -> None:
    try:
        source = _source(tmp_path, text)
    except RecipeError:
        with pytest.raises(tomllib.TOMLDecodeError):
            tomllib.loads(text)
    else:
        assert source.data == tomllib.loads(text)
        assert set(source.lines) == _locations(source.data)
