"""WebDataset tars of image-text pairs, written by tarfile, damaged here."""

from __future__ import annotations

import json
import random
import tarfile
from pathlib import Path

import pytest
from jobs_tars import Member, tar

from carnac.archive.pairs import Pair, read_pair_images, read_pairs
from carnac.archive.records import Damage, Response


def pair(number: int, image: bytes = b"an image") -> list[Member]:
    facts = {"url": f"https://a.example/{number}.jpg", "caption": f"number {number}"}
    return [(f"set/{number:04}.jpg", image), (f"set/{number:04}.json", json.dumps(facts).encode())]


def read(folder: Path, content: bytes, max_image_bytes: int = 1 << 20) -> list[Pair | Damage]:
    (folder / "00000.tar").write_bytes(content)
    return list(read_pairs(folder / "00000.tar", max_image_bytes=max_image_bytes))


def told(found: list[Pair | Damage]) -> list[str]:
    return [item.reason if isinstance(item, Damage) else item.url for item in found]


def urls(*numbers: int) -> list[str]:
    return [f"https://a.example/{number}.jpg" for number in numbers]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_pairs_come_in_order(tmp_path: Path, form: int) -> None:
    members = [member for number in range(5) for member in pair(number, b"x" * number * 700)]
    found = read(tmp_path, tar(members, form))
    assert told(found) == urls(*range(5))
    assert [(item.caption, len(item.image)) for item in found if isinstance(item, Pair)] == [
        (f"number {number}", number * 700) for number in range(5)
    ]
    responses = list(read_pair_images(tmp_path / "00000.tar", max_payload_bytes=1 << 20))
    assert all(isinstance(item, Response) for item in responses)
    assert [(item.url, item.offset) for item in responses] == [
        (item.url, item.offset) for item in found if isinstance(item, Pair)
    ]


def test_what_makes_a_pair(tmp_path: Path) -> None:
    name = "n" * 150  # longer than a plain header takes
    members = [
        ("a.PNG", b"png"), ("a.txt", b" A caption. \n"), ("a.cls", b"7"),
        ("b/c.d.jpg", b"no"),  # the suffix is all after the first dot
        (f"{name}.webp", b"webp"), (f"{name}.json", b'{"text": "T", "url": "x", "page_url": "http://p.example/"}'),
        ("e.txt", b"alone"),
        ("f.jpg", b"alone"),
        ("g.jpg", b"x"), ("g.json", b"{nonsense"),
        ("h.jpg", b"x"), ("h.json", b"[1]"),
        ("i.jpg", b"x"), ("i.txt", b"  "), ("i.json", b'{"caption": 3}'),
        ("j.jpg", b"x" * 2000), ("j.txt", b"large"),
        ("k.jpg", b"x"), ("k.txt", b"in the text"), ("k.json", b'{"caption": "in the facts"}'),
    ]  # fmt: skip
    found = read(tmp_path, tar(members), max_image_bytes=1000)
    assert told(found) == [
        "tar://00000.tar/a.PNG",
        f"tar://00000.tar/{name}.webp",
        "no_image",
        "no_caption",
        "bad_metadata",
        "bad_metadata",
        "no_caption",
        "payload_too_large",
        "tar://00000.tar/k.jpg",
    ]
    first, second, last = (item for item in found if isinstance(item, Pair))
    assert (first.caption, second.caption, last.caption) == ("A caption.", "T", "in the text")
    assert (first.page_url, second.page_url) == (None, "http://p.example/")


@pytest.mark.parametrize(
    "content", [b"", b"no tar" * 1000, b"\x1f\x8b\x08" + bytes(2000), bytes(5)], ids=["empty", "text", "gzip", "zeros"]
)
def test_what_is_no_tar_is_named(tmp_path: Path, content: bytes) -> None:
    assert told(read(tmp_path, content)) == ["not_a_tar"]


def test_a_damaged_header_costs_its_pair(tmp_path: Path) -> None:
    whole = tar([member for number in range(4) for member in pair(number)], tarfile.USTAR_FORMAT)
    damaged = bytearray(whole)
    damaged[4 * 512 + 3] ^= 1  # of the second pair's image: two blocks a member
    assert told(read(tmp_path, bytes(damaged))) == [*urls(0), "damaged_record", "no_image", *urls(2, 3)]


@pytest.mark.parametrize("kept", [100, 600, 700, 1500, 5000])
def test_a_truncated_tar_keeps_what_is_whole(tmp_path: Path, kept: int) -> None:
    whole = tar([member for number in range(2) for member in pair(number, b"x" * 3000)], tarfile.USTAR_FORMAT)
    start = 512 + 3072 + 1024  # of the second pair
    found = told(read(tmp_path, whole[: start + kept]))
    assert found[0] == urls(0)[0]
    assert len(found) > 1
    assert set(found[1:]) <= {"truncated_archive", "damaged_record", "no_caption", *urls(1)}


def test_tars_joined_end_to_end_are_one(tmp_path: Path) -> None:
    assert told(read(tmp_path, tar(pair(1)) + tar(pair(2)))) == urls(1, 2)


def test_random_damage_never_raises(tmp_path: Path) -> None:
    whole = tar([member for number in range(4) for member in pair(number, random.Random(number).randbytes(900))])
    noise = random.Random(3)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(noise.choice((1, 3))):
            place = noise.randrange(len(damaged))
            if noise.random() < 0.7:
                damaged[place] = noise.randrange(256)
            else:
                del damaged[place : place + noise.randrange(1, 900)]
        for item in read(tmp_path, bytes(damaged)):
            assert isinstance(item, Pair | Damage)
