"""Names of records in a journal: what its guard reads after a death is what it finds again, whatever the name."""

from __future__ import annotations

from pathlib import Path

from engine_hazards import STAGE, record_unit
from engine_stages import ListReporter
from hypothesis import given
from hypothesis import strategies as st

from carnac.engine.journal import RECORD_BYTES, record_key
from carnac.engine.ledger import Ledger, read_ledger
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows
from carnac.engine.unit import Unit


def run(unit: Unit, folder: Path) -> tuple[Ledger, list[str]]:
    """Do a unit in a real child; return its ledger and its rows."""
    Runner(reporter=ListReporter()).do(STAGE, [unit], folder)
    part = folder / unit.file_name
    return read_ledger(part), [row["record"] for row in read_rows(part)]


LONG = "https://example.org/" + "\u5c71" * 300  # three bytes each: byte 511 is in the middle of one


def test_long_and_foreign_names_are_kept_whole_and_told_apart(tmp_path: Path) -> None:
    names = [f"{LONG}1", f"{LONG}2", f"{LONG}3", "caf\xe9 \U0001f955", "null\0null", "half \udcff", ""]
    hazards = ["sound", "exit", "sound", "exit", "exit", "exit", "exit"]
    unit = record_unit(tmp_path / "log", "a", [*zip(names, hazards, strict=True), ("last", "sound")])
    ledger, rows = run(unit, tmp_path / "out")
    assert [lost.record for lost in ledger.quarantine] == [names[1], *names[3:]]
    assert rows == [names[0], names[2], "last"]


def test_two_records_of_one_name_share_what_one_does_to_its_process(tmp_path: Path) -> None:
    unit = record_unit(tmp_path / "log", "a", [("twice", "sound"), ("once", "sound"), ("twice", "exit")])
    ledger, rows = run(unit, tmp_path / "out")
    assert rows == ["once"]
    assert [lost.record for lost in ledger.quarantine] == ["twice", "twice"]
    assert run(unit, tmp_path / "again")[0].digest == ledger.digest


NAMES = st.text(st.characters(), max_size=900)  # surrogates too


@given(NAMES, NAMES)
def test_a_journal_holds_every_name_and_a_name_comes_back_from_disk_as_the_same_bytes(one: str, other: str) -> None:
    for name in (one, LONG + one):
        key = record_key(name)
        assert len(key) < RECORD_BYTES
        assert b"\0" not in key
        assert record_key(key.decode(errors="replace")) == key
    if one.replace("\0", " ") != other.replace("\0", " ") and max(map(ord, one + other), default=0) < 0xD800:
        assert record_key(LONG + one) != record_key(LONG + other)
