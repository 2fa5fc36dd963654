from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
from curate_pages import documents_table, page, sample_pages, signals_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carnac.core.document import Document
from carnac.core.errors import InputError, RunError
from carnac.core.schema import REPEATS
from carnac.curate.repeats import Competitors, find_repeats, judge_repeats, judge_repeats_part
from carnac.curate.settings import RepeatKind, RepeatsPass
from carnac.curate.signals import SIGNALS, failed_row
from carnac.curate.verdicts import Reasons, Verdict, keep_all, masks_table

BY: tuple[RepeatKind, ...] = ("url", "text")
PASS = RepeatsPass(name="repeats", kind="repeats", by=BY)
REASONS = Reasons.of([PASS])
Units = dict[str, list[Document]]


def find(
    units: Units, scratch: Path, by: tuple[RepeatKind, ...] = BY, keep: dict[str, list[bool]] | None = None
) -> pa.Table:
    parts = []
    for unit, documents in units.items():
        masks = None
        if keep is not None:
            verdicts = [
                keep_all(1) if kept else Verdict(keep=False, reason=0, keep_block=(True,), block_reason=(None,))
                for kept in keep[unit]
            ]
            masks = masks_table([document.id for document in documents], verdicts, REASONS)
        parts.append(Competitors(unit=unit, signals=signals_table(documents), masks=masks))
    return find_repeats(parts, by=by, max_memory_mb=200, scratch=scratch)


def places(repeats: pa.Table) -> list[tuple[str, str, int]]:
    return [(row["kind"], row["unit"], row["row"]) for row in repeats.to_pylist()]


def copy(url: str, text: str) -> Document:
    return page(text, url=f"http://a.example/{url}")


def test_the_smallest_unit_and_row_is_the_root(tmp_path: Path) -> None:
    units = {
        "b": [copy("1", "one"), copy("2", "two"), copy("2", "deux")],
        "a": [copy("9", "nine"), copy("1", "un"), copy("8", "Two ")],
    }
    repeats = find(units, tmp_path)
    assert repeats.schema == REPEATS
    assert places(repeats) == [("url", "b", 0), ("url", "b", 2), ("text", "b", 1)]
    roots = [units["a"][1].id, units["b"][1].id, units["a"][2].id]
    assert repeats["root"].to_pylist() == roots
    assert repeats["id"].to_pylist() == [units["b"][0].id, units["b"][2].id, units["b"][1].id]
    assert len(set(repeats["key"].to_pylist())) == 3


def test_what_repeats_by_url_takes_no_other_with_it_by_text(tmp_path: Path) -> None:
    units = {"a": [copy("1", "old"), copy("1", "new"), copy("2", "new")]}
    assert places(find(units, tmp_path)) == [("url", "a", 1)]
    assert places(find(units, tmp_path, by=("text", "url"))) == [("text", "a", 2), ("url", "a", 1)]
    assert places(find(units, tmp_path, by=("text",))) == [("text", "a", 2)]


def test_only_what_is_still_kept_competes(tmp_path: Path) -> None:
    units = {"a": [copy("1", "x"), copy("1", "y")], "b": [copy("1", "z")]}
    assert places(find(units, tmp_path, keep={"a": [False, True], "b": [True]})) == [("url", "b", 0)]
    assert places(find(units, tmp_path, keep={"a": [False, False], "b": [True]})) == []


def test_pages_without_text_and_failed_ones_repeat_nothing(tmp_path: Path) -> None:
    pictures = [page(("image", "http://a.example/i.png"), url=f"http://a.example/{n}") for n in range(2)]
    assert find({"a": pictures}, tmp_path).num_rows == 0
    failed = pa.Table.from_pylist([failed_row(copy("1", "x"), "broken")] * 2, schema=SIGNALS)
    part = Competitors(unit="a", signals=failed, masks=None)
    assert find_repeats([part], by=BY, max_memory_mb=200, scratch=tmp_path).num_rows == 0


def test_nothing_in_gives_an_empty_table(tmp_path: Path) -> None:
    assert find({}, tmp_path).schema == REPEATS
    assert find({"a": []}, tmp_path).num_rows == 0


def test_masks_of_other_documents_are_refused(tmp_path: Path) -> None:
    masks = masks_table(["other"], [keep_all(1)], REASONS)
    part = Competitors(unit="a", signals=signals_table([copy("1", "x")]), masks=masks)
    with pytest.raises(InputError, match="different documents"):
        find_repeats([part], by=BY, max_memory_mb=200, scratch=tmp_path)


UNITS = st.lists(
    st.lists(st.tuples(st.sampled_from("12345"), st.sampled_from("abcde")), max_size=6), min_size=1, max_size=4
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(recipe=UNITS, seed=st.randoms(use_true_random=False))
def test_units_in_any_order_give_what_a_scan_gives(
    recipe: list[list[tuple[str, str]]], seed: random.Random, tmp_path: Path
) -> None:
    units = {f"u{n}": [copy(*pair) for pair in unit] for n, unit in enumerate(recipe)}
    repeats = find(units, tmp_path)
    shuffled = list(units.items())
    seed.shuffle(shuffled)
    assert find(dict(shuffled), tmp_path).equals(repeats)
    expected: dict[tuple[str, int], tuple[str, str]] = {}
    for kind, part in (("url", 0), ("text", 1)):
        roots: dict[str, str] = {}
        gone = set(expected)
        for unit, pairs in zip(units, recipe, strict=True):
            for row, pair in enumerate(pairs):
                if (unit, row) not in gone and roots.setdefault(pair[part], f"{unit}:{row}") != f"{unit}:{row}":
                    expected[unit, row] = (kind, roots[pair[part]])
    got = {(row["unit"], row["row"]): (row["kind"], row["root"]) for row in repeats.to_pylist()}
    name = {f"{unit}:{row}": document.id for unit, documents in units.items() for row, document in enumerate(documents)}
    assert got == {place: (kind, name[root]) for place, (kind, root) in expected.items()}
    kept = {unit: [(unit, row) not in got for row in range(len(units[unit]))] for unit in units}
    assert find(units, tmp_path, keep=kept).num_rows == 0  # twice is once


def test_verdicts_of_a_part_name_the_kind_and_leave_earlier_drops(tmp_path: Path) -> None:
    units = {"a": [copy("1", "x"), copy("1", "y"), copy("2", "x")], "b": [copy("1", "z")]}
    repeats = find(units, tmp_path)
    verdicts = judge_repeats("a", [1, 1, 1], None, repeats, REASONS)
    assert [verdict.reason for verdict in verdicts] == [None, REASONS.code("repeat.url"), REASONS.code("repeat.text")]
    assert [verdict.keep for verdict in verdicts] == [True, False, False]
    assert all(verdict.keep_block == (True,) for verdict in verdicts)
    gone = Verdict(keep=False, reason=1, keep_block=(False,), block_reason=(0,))
    assert judge_repeats("b", [1], [gone], repeats, REASONS) == [gone]
    part = judge_repeats_part("a", documents_table(units["a"]), None, repeats, REASONS)
    assert part["keep"].to_pylist() == [True, False, False]
    assert judge_repeats_part("a", documents_table(units["a"]), part, repeats, REASONS).equals(part)


def test_real_pages_given_twice_are_found_once(tmp_path: Path) -> None:
    documents, _ = sample_pages()
    first = find({"a": list(documents)}, tmp_path)
    twice = find({"a": list(documents), "b": list(documents)}, tmp_path)
    assert twice.slice(0, 0).schema == REPEATS
    assert twice.num_rows == first.num_rows + len(documents)


def synthetic(num_rows: int, unit: str) -> Competitors:
    """A part of digests only, half of which another part shares."""
    url = [f"{unit if row % 2 else 'same'}{row:060d}" for row in range(num_rows)]
    columns = {"id": [f"{unit}{row:030d}" for row in range(num_rows)], "url_digest": url, "text_digest": url[::-1]}
    return Competitors(unit=unit, signals=pa.table(columns), masks=None)


def test_a_memory_smaller_than_the_digests_is_enough(tmp_path: Path) -> None:
    parts = (synthetic(40_000, unit) for unit in "abcdefgh")  # 51 MB of ids and digests
    repeats = find_repeats(parts, by=BY, max_memory_mb=40, scratch=tmp_path)
    # Half of the rows of each later part repeat the first one's URLs, the other half its texts.
    assert repeats.num_rows == 7 * 40_000
    assert set(repeats["unit"].to_pylist()) == set("bcdefgh")
    assert repeats["kind"].to_pylist() == ["url"] * 140_000 + ["text"] * 140_000


def test_a_memory_that_is_too_small_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="max_memory_mb = 1"):
        find_repeats([synthetic(50_000, "a")], by=BY, max_memory_mb=1, scratch=tmp_path)
