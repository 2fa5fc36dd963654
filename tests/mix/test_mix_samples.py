from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mix_samples import png, write_shard

from carnac.core.errors import InputError
from carnac.mix import samples as samples_module
from carnac.mix.recent import Recent
from carnac.mix.samples import SampleReader
from carnac.sequence.layout import Sample


def sample(number: int) -> Sample:
    return Sample(texts=(f"text {number}", None), images=(None, png((number, 0, 0))), id=str(number), source="s")


@pytest.fixture(name="shard")
def fixture_shard(tmp_path: Path) -> Path:
    return write_shard(tmp_path / "a.parquet", [sample(number) for number in range(40)])


def test_rows_are_found_in_their_row_group_and_each_group_is_read_once(shard: Path) -> None:
    reader = SampleReader({"a": shard}, 1_000_000)
    for number in (0, 39, 15, 16, 31, 32, 3):
        assert reader.sample("a", number) == sample(number)
    assert reader.groups_read == 3


def test_more_shards_than_may_be_open_are_read_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "OPEN_FILES", 2)
    paths = {str(n): write_shard(tmp_path / f"{n}.parquet", [sample(n)] * 20) for n in range(5)}
    reader = SampleReader(paths, 1_000_000)
    for row in (0, 19):
        for number in range(5):
            assert reader.sample(str(number), row) == sample(number)
            assert len(reader._files) <= 2
    assert reader.groups_read == 10


def fail(monkeypatch: pytest.MonkeyPatch, times: int, number: int | None) -> tuple[list[None], list[float]]:
    """Have the disk fail so often; return what grows with each try, and the pauses between."""
    tries: list[None] = []
    pauses: list[float] = []
    real = pq.ParquetFile.read_row_group

    def read(file: pq.ParquetFile, *args: Any, **kwargs: Any) -> Any:
        tries.append(None)
        if len(tries) <= times:
            raise OSError(number, "no answer") if number else OSError("corrupt data")
        return real(file, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read)
    monkeypatch.setattr(time, "sleep", pauses.append)
    return tries, pauses


def test_a_disk_that_answers_again_costs_nothing_but_time(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries, pauses = fail(monkeypatch, 3, errno.EIO)
    assert SampleReader({"a": shard}, 1_000_000).sample("a", 20) == sample(20)
    assert len(tries) == 4
    assert pauses == list(samples_module.PAUSES_SECONDS)


@pytest.mark.parametrize(("number", "wanted"), [(errno.EIO, 4), (errno.EACCES, 1), (None, 1)])
def test_what_lasts_stops_the_run_with_the_name_of_the_shard(
    shard: Path, monkeypatch: pytest.MonkeyPatch, number: int | None, wanted: int
) -> None:
    tries, _ = fail(monkeypatch, 100, number)
    reader = SampleReader({"a": shard}, 1_000_000)
    with pytest.raises(InputError, match=r"a\.parquet: row group 1 cannot be read .*Make the shards again"):
        reader.sample("a", 20)
    assert len(tries) == wanted


def test_what_was_used_longest_ago_goes_first() -> None:
    made: list[int] = []

    def make(key: int) -> bytes:
        made.append(key)
        if key < 0:
            raise InputError("no such thing")
        return bytes(key)

    recent = Recent(make, len, 100)
    assert [len(recent.get(key)) for key in (40, 50, 40, 30, 40)] == [40, 50, 40, 30, 40]
    assert made == [40, 50, 30]  # 50 went when 30 came
    assert recent.num_bytes == 70
    recent.get(50)
    assert made == [40, 50, 30, 50]
    assert len(recent.get(500)) == 500  # larger than all: it stays alone
    assert recent.num_bytes == 500
    with pytest.raises(InputError):
        recent.get(-1)
    recent.get(500)
    assert made == [40, 50, 30, 50, 500, -1]
