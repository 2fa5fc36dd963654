"""The fault suite's own eyes: it sees what is lost, doubled, changed or left over, and says so in its table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.equal import differences
from faults.poison import RECORDS, UNITS, complain, put
from faults.table import BEGIN, END, draw_table, entry_of, write_found
from faults.verdict import Verdict

PART = "stage/a-0123456789abcdef.parquet"


def _write(folder: Path, values: list[int], seconds: float = 1.0) -> None:
    (folder / "stage").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"value": values}), folder / PART)
    manifest = {"rows": len(values), "parts": [{"unit": "a", "seconds": seconds, "bytes": 7}]}
    (folder / "stage/manifest.json").write_text(json.dumps(manifest))
    (folder / "stage/pack.tar").write_bytes(b"image")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders that are equal but for the time that they took."""
    _write(tmp_path / "whole", [1, 2, 3], seconds=1.0)
    _write(tmp_path / "found", [1, 2, 3], seconds=2.0)
    return tmp_path / "whole", tmp_path / "found"


def test_equal_is_equal_whatever_time_it_took(folders: tuple[Path, Path]) -> None:
    assert differences(*folders) == []


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a row lost": (lambda folder: pq.write_table(pa.table({"value": [1, 2]}), folder / PART), f"{PART} differs"),
    "a row doubled": (lambda folder: pq.write_table(pa.table({"value": [1, 2, 3, 3]}), folder / PART), "differs"),
    "rows in another order": (lambda folder: pq.write_table(pa.table({"value": [2, 1, 3]}), folder / PART), "differs"),
    "a part lost": (lambda folder: (folder / PART).unlink(), f"{PART} is missing"),
    "a byte changed": (lambda folder: (folder / "stage/pack.tar").write_bytes(b"imagf"), "stage/pack.tar differs"),
    "a temporary file": (lambda folder: (folder / "stage/.a.h.1.x.tmp").touch(), "stage/.a.h.1.x.tmp is left over"),
    "a state": (lambda folder: (folder / "stage/.run.json").touch(), "stage/.run.json is left over"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_seen(folders: tuple[Path, Path], change: str) -> None:
    make, wanted = CHANGES[change]
    make(folders[1])
    assert wanted in " ".join(differences(*folders))
    assert len(differences(*folders)) == 1


def test_parts_of_other_keys_may_lie_beside_only_where_that_was_said(folders: tuple[Path, Path]) -> None:
    (folders[1] / "stage/a-fedcba9876543210.parquet").touch()
    assert differences(*folders) == ["stage/a-fedcba9876543210.parquet is left over"]
    assert differences(*folders, others=True) == []


def test_the_table_counts_what_was_equal_and_says_what_was_not(tmp_path: Path) -> None:
    verdicts = [Verdict(stage="masks", fault="worker") for _ in range(3)]
    verdicts.append(Verdict(stage="masks", fault="worker", wrong="2 rows lost"))
    verdicts.append(Verdict(stage="masks", fault="disk full"))
    found = {"masks": entry_of(verdicts, seed=5)}
    chapter = tmp_path / "chapter.md"
    chapter.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_found(found, tmp_path / "found.json", chapter)
    table = draw_table(found)
    assert "| masks (unit) | **3/4 equal** | - | - | - | - | 1/1 equal | - |" in table
    assert "- masks, worker: 2 rows lost" in table
    assert "seed 5; 4 kills in all" in table
    assert chapter.read_text() == f"before\n{BEGIN}\n{table}{END}\nafter\n"
    assert json.loads((tmp_path / "found.json").read_text()) == found


@pytest.mark.parametrize("stage", [*RECORDS, *UNITS])
def test_poison_finds_the_function_that_a_stage_calls(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, _ = (RECORDS | UNITS)[stage]
    calls: list[str] = []
    monkeypatch.setattr(f"{module}.{name}", lambda who, *_: calls.append(who))
    monkeypatch.setitem(RECORDS, stage, (module, name, str))
    monkeypatch.setitem(UNITS, stage, (module, name, str))
    put(stage, "culprit", complain)
    poisoned = getattr(__import__(module, fromlist=[name]), name)
    poisoned("sound")
    with pytest.raises(ValueError, match="poisoned"):
        poisoned("culprit")
    assert calls == ["sound"]
