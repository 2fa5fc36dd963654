from __future__ import annotations

import hashlib
import os
import tarfile
import threading
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images_samples import warc_images

from carnac.core.errors import InputError
from carnac.images import pack as pack_module
from carnac.images.pack import PackWriter, read_image, read_pack


def digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def write(path: Path, payloads: list[bytes]) -> list[tuple[int, int]]:
    with PackWriter(path) as pack:
        return [pack.add(digest(payload), "image/png", payload) for payload in payloads]


def test_a_pack_of_real_images_is_a_tar_and_is_read_by_offset(tmp_path: Path) -> None:
    payloads = list(warc_images().values())
    path = tmp_path / "pack.tar"
    places = write(path, payloads)
    assert [read_image(path, *place) for place in places] == payloads
    unique = list(dict.fromkeys(payloads))
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [f"{digest(payload)}.png" for payload in unique]
        for member, payload in zip(members, unique, strict=True):
            file = tar.extractfile(member)
            assert file is not None
            assert file.read() == payload
            assert (member.offset_data, member.size) == places[payloads.index(payload)]
            assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)


def test_the_same_images_make_the_same_bytes(tmp_path: Path) -> None:
    payloads = list(warc_images().values())[:10]
    write(tmp_path / "first.tar", payloads)
    write(tmp_path / "second.tar", payloads)
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()


def test_one_hash_is_stored_once(tmp_path: Path) -> None:
    places = write(tmp_path / "pack.tar", [b"one", b"two", b"one"])
    assert places[0] == places[2] != places[1]
    with tarfile.open(tmp_path / "pack.tar") as tar:
        assert len(tar.getnames()) == 2
    assert places[0] == (512, 3)


@pytest.mark.parametrize(
    ("media_type", "extension"),
    [("image/jpeg", ".jpg"), ("image/png", ".png"), ("image/webp", ".webp"), ("image/gif", ".gif")],
)
def test_names_carry_an_extension(
    tmp_path: Path, media_type: Literal["image/jpeg", "image/png", "image/webp", "image/gif"], extension: str
) -> None:
    with PackWriter(tmp_path / "pack.tar") as pack:
        pack.add(digest(b"x"), media_type, b"x")
    with tarfile.open(tmp_path / "pack.tar") as tar:
        assert tar.getnames() == [digest(b"x") + extension]


def test_an_empty_pack_is_a_tar(tmp_path: Path) -> None:
    write(tmp_path / "pack.tar", [])
    with tarfile.open(tmp_path / "pack.tar") as tar:
        assert tar.getnames() == []


def test_an_exception_leaves_no_pack(tmp_path: Path) -> None:
    def fail() -> None:
        with PackWriter(tmp_path / "pack.tar") as pack:
            pack.add(digest(b"x"), "image/png", b"x")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_no_hash_is_our_mistake(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not a sha256"), PackWriter(tmp_path / "pack.tar") as pack:
        pack.add("../../etc/passwd", "image/png", b"x")
    with pytest.raises(AssertionError, match="outside"):
        PackWriter(tmp_path / "pack.tar").add(digest(b"x"), "image/png", b"x")


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "pack.tar"
    write(path, [b"x" * 1000])
    size = path.stat().st_size
    with pytest.raises(InputError, match=r"got 0 bytes at offset .* wanted 10"):
        read_image(path, size, 10)
    with pytest.raises(InputError, match="got 5 bytes"):
        read_image(path, size - 5, 10)
    with pytest.raises(InputError, match="cannot be read"):
        read_image(path, -1, 10)
    with pytest.raises(InputError, match=r"none\.tar"):
        read_image(tmp_path / "none.tar", 0, 10)


@settings(deadline=None, max_examples=30)
@given(payloads=st.lists(st.binary(max_size=1500), max_size=8))
def test_any_payloads_come_back(tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("packs") / "pack.tar"
    places = write(path, payloads)
    assert [read_image(path, *place) for place in places] == payloads
    assert path.stat().st_size % 512 == 0
    with tarfile.open(path) as tar:
        assert len(tar.getnames()) == len(set(payloads))


@settings(deadline=None, max_examples=60)
@given(
    payloads=st.lists(st.binary(min_size=1, max_size=1500), min_size=1, max_size=8),
    wanted=st.lists(st.integers(0, 7)),
    block_bytes=st.integers(1, 3000),
)
def test_members_come_once_each_in_the_order_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes], wanted: list[int], block_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("packs") / "pack.tar"
    places = write(path, payloads)
    members = [places[number % len(places)] for number in wanted]
    contents = dict(zip(places, payloads, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_module, "BLOCK_BYTES", block_bytes)
        read = list(read_pack(path, members))
    assert read == [(member, contents[member]) for member in sorted(set(members))]


def test_a_pack_is_read_in_one_pass_from_what_cannot_go_back(tmp_path: Path) -> None:
    payloads = list(warc_images().values())
    places = write(tmp_path / "pack.tar", payloads)
    os.mkfifo(tmp_path / "pipe")  # neither seek nor a read at an offset works on it
    content = (tmp_path / "pack.tar").read_bytes()
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(content))
    writer.start()
    read = dict(read_pack(tmp_path / "pipe", places))
    writer.join()
    assert read == dict(zip(places, payloads, strict=True))


def test_reading_ends_with_the_last_member_wanted(tmp_path: Path) -> None:
    path = tmp_path / "pack.tar"
    places = write(path, [b"a" * 1000, b"b" * 1000])
    with path.open("r+b") as file:
        file.truncate(places[0][0] + 1000)
    assert list(read_pack(path, places[:1])) == [(places[0], b"a" * 1000)]
    with pytest.raises(InputError, match=r"pack\.tar: ends at 1,512, wanted 1,000 bytes at offset 2,048"):
        list(read_pack(path, places))


def test_members_that_overlap_are_a_damaged_table(tmp_path: Path) -> None:
    path = tmp_path / "pack.tar"
    ((offset, _),) = write(path, [b"a" * 1000])
    for members in ([(offset, 1000), (offset + 1, 10)], [(offset, 10), (offset, 11)], [(-1, 5)], [(offset, -1)]):
        with pytest.raises(InputError, match="table of images is damaged"):
            list(read_pack(path, members))
    with pytest.raises(InputError, match=r"none\.tar: cannot be read \(No such file"):
        list(read_pack(tmp_path / "none.tar", [(0, 1)]))
