from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_stages import NUMBERS, ListReporter, numbers_units

from carnac.core.errors import InputError
from carnac.engine.child import do_unit
from carnac.engine.manifest import MANIFEST, Manifest, collect_parts, read_manifest, write_manifest
from carnac.engine.run import Runner
from carnac.engine.unit import Unit


def _publish(folder: Path, units: list[Unit], log: Path) -> Manifest:
    folder.mkdir(exist_ok=True)
    for unit in units:
        if not (folder / unit.file_name).exists():
            do_unit(NUMBERS, unit, folder)
    runner = Runner(reporter=ListReporter())
    return runner.publish(NUMBERS, folder, collect_parts(folder, units), {"shift": 0}, {"log": str(log)})


@pytest.fixture
def published(tmp_path: Path) -> Manifest:
    return _publish(tmp_path / "out", numbers_units(tmp_path / "log", [0, 10]), tmp_path / "log")


def test_a_manifest_tells_what_lies_there(published: Manifest) -> None:
    read = read_manifest(published.folder, "numbers")
    assert read == published
    assert [part.unit for part in read.parts] == ["00000", "00001"]
    assert [part.path.stat().st_size for part in read.parts] == [part.bytes for part in read.parts]
    assert read.rows == 10
    assert read.counts == {"lost.too_odd": 2, "odd": 4}
    assert read.settings == {"shift": 0}
    assert [ledger.quarantine[0].record for ledger in read.ledgers()] == ["record-0", "record-10"]
    assert read.part("00001").digest == read.ledgers()[1].digest


def test_it_is_rebuilt_by_listing(published: Manifest, tmp_path: Path) -> None:
    path = published.folder / MANIFEST
    before = path.read_bytes()
    path.unlink()
    again = _publish(Path(str(published.folder)), numbers_units(tmp_path / "log", [0, 10]), tmp_path / "log")
    assert path.read_bytes() == before
    assert again.digest == published.digest


def test_an_equal_manifest_is_left_as_it_is_and_another_replaces_it(published: Manifest) -> None:
    path = published.folder / MANIFEST
    before = path.stat()
    write_manifest(published)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    write_manifest(replace(published, settings={"shift": 1}))
    assert read_manifest(published.folder).settings == {"shift": 1}
    assert [name.name for name in published.folder.glob(".*")] == []


def test_the_digest_is_of_the_rows_in_order(published: Manifest) -> None:
    first, second = published.parts
    other_seconds = replace(published, parts=(replace(first, seconds=9.0, path=Path("elsewhere")), second))
    assert other_seconds.digest == published.digest
    assert replace(published, parts=(second, first)).digest != published.digest
    assert replace(published, parts=(first,)).digest != published.digest
    assert replace(published, parts=(replace(first, digest="0"), second)).digest != published.digest


def test_parts_of_other_settings_beside_it_are_ignored(published: Manifest, tmp_path: Path) -> None:
    do_unit(NUMBERS, numbers_units(tmp_path / "log", [0, 10], shift=1)[0], published.folder)
    (published.folder / "foreign.parquet").write_bytes(b"not ours")
    assert len(list(published.folder.glob("*.parquet"))) == 4
    assert read_manifest(published.folder).digest == published.digest


def test_a_folder_may_be_moved(published: Manifest, tmp_path: Path) -> None:
    moved = shutil.move(str(published.folder), tmp_path / "moved")
    read = read_manifest(Path(moved))
    assert read.digest == published.digest
    assert all(part.path.is_file() for part in read.parts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder, r"out: does not exist; wanted the finished folder of stage 'numbers'\. Run the recipe"),
        (lambda folder: folder.mkdir(), r"out: has no manifest\.json; wanted the finished folder"),
        (lambda folder: folder.touch(), r"manifest\.json: cannot be read \(Not a directory\)"),
    ],
)
def test_no_manifest_ends_in_a_sentence(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "out")
    with pytest.raises(InputError, match=message):
        read_manifest(tmp_path / "out", "numbers")


def test_the_folder_of_another_stage_is_refused(published: Manifest) -> None:
    with pytest.raises(InputError, match=r"out: holds stage 'numbers'; wanted the finished folder of stage 'masks'"):
        read_manifest(published.folder, "masks")


def test_a_part_that_went_away_is_named(published: Manifest) -> None:
    published.parts[1].path.unlink()
    with pytest.raises(InputError, match=rf"{published.parts[1].path.name}: listed in the manifest but missing"):
        read_manifest(published.folder)


def test_a_unit_that_the_folder_lacks_is_named(published: Manifest) -> None:
    with pytest.raises(InputError, match="no part for unit '00009'"):
        published.part("00009")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b"\xff\xfe",
        b'{"stage": "numbers"}',
        b'{"parts": 3}',
        b'{"parts": [3]}',
        b'{"parts": [{"file": 3}]}',
        b'{"parts": [], "stage": "numbers"}',
    ],
)
def test_a_damaged_manifest_ends_in_a_sentence(published: Manifest, content: bytes) -> None:
    (published.folder / MANIFEST).write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json: damaged .* run the recipe that writes .* again"):
        read_manifest(published.folder, "numbers")


def test_a_manifest_cut_anywhere_ends_in_a_sentence(published: Manifest) -> None:
    path = published.folder / MANIFEST
    whole = path.read_bytes()
    for end in range(0, len(whole.rstrip()) - 1, 37):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match="damaged"):
            read_manifest(published.folder)


def test_an_entry_without_a_field_ends_in_a_sentence(published: Manifest) -> None:
    content = json.loads((published.folder / MANIFEST).read_bytes())
    del content["parts"][0]["digest"]
    (published.folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"damaged \('digest'\)"):
        read_manifest(published.folder)


def test_a_damaged_part_is_named_when_parts_are_collected(published: Manifest, tmp_path: Path) -> None:
    published.parts[0].path.write_bytes(b"PAR1 cut")
    with pytest.raises(InputError, match=rf"{published.parts[0].path.name}: not a part that carnac wrote, or damaged"):
        collect_parts(published.folder, numbers_units(tmp_path / "log", [0, 10]))
