from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from engine_stages import NUMBERS, write_numbers
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.errors import InputError
from carnac.engine.unit import Stage, Unit, digest_of, outside_digest, unit_names

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
SETTINGS = st.dictionaries(st.text(), st.recursive(SCALARS, lambda inner: st.lists(inner) | st.tuples(inner)))
Identity = tuple[dict[str, Any], list[str], str, int]
IDENTITIES = st.tuples(SETTINGS, st.lists(st.text()), st.from_regex(r"\A[A-Za-z0-9._-]{1,20}\Z"), st.integers(1, 9))


def _key(identity: Identity) -> str:
    options, inputs, name, version = identity
    stage = Stage(name="numbers", version=version, schema=NUMBERS.schema, work=write_numbers)
    return stage.unit(name, None, settings=options, inputs=inputs).key


def _canonical(value: Any) -> Any:
    """Tuples are lists to JSON, and so to a key; 1, 1.0 and true are three values."""
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return (type(value).__name__, value, str(value))


@settings(deadline=None, max_examples=40)
@given(IDENTITIES, IDENTITIES)
def test_equal_identities_and_only_they_have_equal_keys(one: Identity, other: Identity) -> None:
    assert (_key(one) == _key(other)) == (_canonical(list(one)) == _canonical(list(other)))
    assert re.fullmatch(r"[0-9a-f]{64}", _key(one))


@settings(deadline=None, max_examples=40)
@given(IDENTITIES, st.integers(0, 3), st.text(min_size=1))
def test_changing_any_part_changes_the_key(identity: Identity, which: int, extra: str) -> None:
    options, inputs, name, version = identity
    changed = [
        ({**options, "added\x00" + extra: 1}, inputs, name, version),
        (options, [*inputs, extra], name, version),
        (options, inputs, name + "x", version),
        (options, inputs, name, version + 1),
    ][which]
    assert _key(changed) != _key(identity)


@settings(deadline=None, max_examples=40)
@given(SETTINGS)
def test_the_order_of_settings_does_not_matter(options: dict[str, Any]) -> None:
    assert digest_of(options) == digest_of(dict(reversed(options.items())))


def test_task_and_rows_per_group_are_no_part_of_the_key() -> None:
    smaller = Stage(name="numbers", version=1, schema=NUMBERS.schema, work=write_numbers, rows_per_group=1)
    one = NUMBERS.unit("a", {"task": 1}, settings={}, inputs=[])
    assert one.key == smaller.unit("a", {"task": 2}, settings={}, inputs=[]).key
    assert one.file_name == f"a-{one.key[:16]}.parquet"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, Path("x"), b"x"])
def test_a_setting_that_json_cannot_hold_is_our_own_mistake(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        NUMBERS.unit("a", None, settings={"x": value}, inputs=[])


@given(st.lists(st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1), max_size=6))
def test_any_file_names_make_unit_names_that_differ(files: list[str]) -> None:
    made = unit_names([Path(name) for name in files])
    assert len(set(made)) == len(files)
    for name in made:
        assert Unit(name=name, key="0" * 64, task=None).file_name == f"{name}-{'0' * 16}.parquet"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("CC-MAIN-2024.warc.gz", "CC-MAIN-2024"),
        ("crawl.warc", "crawl"),
        ("a b&c.warc.zst", "a_b_c"),
        ("part.parquet", "part"),
        ("no-extension", "no-extension"),
    ],
)
def test_unit_names_are_readable(file: str, name: str) -> None:
    assert unit_names([Path("deep/folder") / file]) == [name]


def test_a_file_added_before_others_changes_no_name_of_theirs() -> None:
    later = [Path("b.warc.gz"), Path("c.warc.gz"), Path("more/c.warc.gz")]
    assert unit_names(later) == ["b", "c", "c~2"]
    assert unit_names([Path("a.warc.gz"), *later])[1:] == unit_names(later)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "\u00e9", "a\n"])
def test_a_unit_name_must_fit_a_file_name(name: str) -> None:
    with pytest.raises(AssertionError, match="file name"):
        Unit(name=name, key="0" * 64, task=None)


def test_outside_digest_is_of_name_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "a.warc"
    file.write_bytes(b"content")
    os.utime(file, ns=(1, 1))
    before = outside_digest(file)
    (tmp_path / "elsewhere").mkdir()
    moved = file.rename(tmp_path / "elsewhere" / "a.warc")
    assert outside_digest(moved) == before
    os.utime(moved, ns=(1, 2))
    later = outside_digest(moved)
    moved.write_bytes(b"contents")
    os.utime(moved, ns=(1, 2))
    longer = outside_digest(moved)
    renamed = outside_digest(moved.rename(tmp_path / "b.warc"))
    assert len({before, later, longer, renamed}) == 4


def test_outside_digest_of_nothing_says_which_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.warc: cannot be read \(No such file"):
        outside_digest(tmp_path / "gone.warc")


def test_digest_tells_schemas_apart_only_by_version() -> None:
    other = Stage(name="numbers", version=1, schema=pa.schema([("x", pa.string())]), work=write_numbers)
    assert other.unit("a", None, settings={}, inputs=[]).key == NUMBERS.unit("a", None, settings={}, inputs=[]).key
