"""An image taken out of a pack leaves zeros; all others stay where they are."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from carnac.images.erase import ERASED, PIECE_BYTES, erased_copy, members, sha256_of_name
from carnac.images.pack import PackWriter, read_image

PAYLOADS = [bytes([number]) * length for number, length in enumerate((1, 511, 512, 513, PIECE_BYTES + 7, 0), 1)]
NAMES = [hashlib.sha256(payload).hexdigest() for payload in PAYLOADS]


@pytest.fixture
def pack(tmp_path: Path) -> tuple[Path, list[tuple[int, int]]]:
    with PackWriter(tmp_path / "pack.tar") as writer:
        places = [writer.add(name, "image/png", payload) for name, payload in zip(NAMES, PAYLOADS, strict=True)]
    return tmp_path / "pack.tar", places


@pytest.mark.parametrize("gone", [(0,), (5,), (1, 2), (4,), (0, 1, 2, 3, 4, 5), ()])
def test_members_go_and_all_else_stays_in_its_place(
    pack: tuple[Path, list[tuple[int, int]]], tmp_path: Path, gone: tuple[int, ...]
) -> None:
    path, places = pack
    copy = tmp_path / "copy.tar"
    with path.open("rb") as file, copy.open("wb") as left:
        assert erased_copy(file, left, {NAMES[number] for number in gone}.__contains__) == len(gone)
    assert copy.stat().st_size == path.stat().st_size
    for number, (offset, length) in enumerate(places):
        wanted = bytes(length) if number in gone else PAYLOADS[number]
        assert read_image(copy, offset, length) == wanted
    with tarfile.open(copy) as tar:  # its own checksums hold
        shown = [member.name for member in tar]
    assert shown == [ERASED if number in gone else f"{name}.png" for number, name in enumerate(NAMES)]
    with copy.open("rb") as file:
        assert [sha256_of_name(name) for _, name, _ in members(file)] == [
            ERASED if number in gone else name for number, name in enumerate(NAMES)
        ]
    if not gone:
        assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("length", [0, 100, 512, 1500, -600])
def test_what_is_no_whole_pack_is_said(pack: tuple[Path, list[tuple[int, int]]], length: int) -> None:
    content = pack[0].read_bytes()[:length]
    with pytest.raises(ValueError, match=r"no tar at offset|ends at"):
        erased_copy(io.BytesIO(content), io.BytesIO(), NAMES.__contains__)
    with pytest.raises(ValueError, match="no tar at offset"):
        list(members(io.BytesIO(b"\1" * 2048)))
