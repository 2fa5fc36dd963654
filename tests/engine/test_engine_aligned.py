from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from engine_stages import write_numbers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carnac.core.errors import InputError
from carnac.engine.aligned import read_aligned
from carnac.engine.part import Part
from carnac.engine.tables import read_batches, read_rows
from carnac.engine.unit import Stage

SCHEMA = pa.schema([("id", pa.string()), ("value", pa.int64())])


def _part(folder: Path, name: str, ids: list[str | None], rows_per_group: int = 2) -> Path:
    stage = Stage(name=name, version=1, schema=SCHEMA, work=write_numbers, rows_per_group=rows_per_group)
    unit = stage.unit(name, None, settings={}, inputs=[])
    with Part(stage, unit, folder) as part:
        for number, id_ in enumerate(ids):
            part.write({"id": id_, "value": number})
    return folder / unit.file_name


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=2), max_size=9), st.lists(st.integers(1, 5), min_size=2, max_size=3))
def test_rows_come_side_by_side_whatever_the_row_groups(tmp_path: Path, ids: list[str], groups: list[int]) -> None:
    parts = {f"p{place}": _part(tmp_path, f"p{place}", [*ids], group) for place, group in enumerate(groups)}
    read = list(read_aligned(parts))
    assert [[row["id"] for row in rows.values()] for rows in read] == [[id_] * len(groups) for id_ in ids]
    assert [rows["p0"]["value"] for rows in read] == list(range(len(ids)))


def test_more_rows_than_one_batch(tmp_path: Path) -> None:
    ids: list[str | None] = [str(number) for number in range(600)]
    parts = {"a": _part(tmp_path, "a", ids, 1000), "b": _part(tmp_path, "b", ids, 7)}
    assert sum(1 for _ in read_aligned(parts)) == 600
    assert max(batch.num_rows for batch in read_batches(parts["a"])) <= 256


def test_columns_may_be_chosen(tmp_path: Path) -> None:
    assert list(read_rows(_part(tmp_path, "a", ["x"]), ["value"])) == [{"value": 0}]


def test_another_number_of_rows_is_refused_before_the_first_row(tmp_path: Path) -> None:
    parts = {"documents": _part(tmp_path, "a", ["x", "y"]), "masks": _part(tmp_path, "b", ["x"])}
    with pytest.raises(InputError, match=r"rows \{'documents': 2, 'masks': 1\}; wanted equal numbers"):
        next(read_aligned(parts))


def test_another_id_is_refused_with_its_row(tmp_path: Path) -> None:
    parts = {"documents": _part(tmp_path, "a", ["x", "y"]), "masks": _part(tmp_path, "b", ["x", "z"])}
    rows = read_aligned(parts)
    next(rows)
    with pytest.raises(InputError, match=r"row 1 of .*ids differ \{'documents': 'y', 'masks': 'z'\}"):
        next(rows)


def test_a_damaged_or_missing_part_ends_in_a_sentence(tmp_path: Path) -> None:
    whole = _part(tmp_path, "a", ["x", "y"])
    damaged = _part(tmp_path, "b", ["x", "y"])
    content = bytearray(damaged.read_bytes())
    content[4:60] = bytes(56)
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=rf"{damaged.name}: cannot be read"):
        list(read_rows(damaged))
    with pytest.raises(InputError, match=rf"{damaged.name}: cannot be read"):
        list(read_aligned({"documents": whole, "masks": damaged}))
    damaged.write_bytes(content[:-3])
    with pytest.raises(InputError, match=rf"{damaged.name}: not a part"):
        list(read_aligned({"documents": whole, "masks": damaged}))
    damaged.unlink()
    with pytest.raises(InputError, match=rf"{damaged.name}: cannot be read"):
        list(read_rows(damaged))
