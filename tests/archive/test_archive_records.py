"""WARC reading on real bytes, damaged here."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from carnac.archive.records import Damage, Response, read_responses
from carnac.core.errors import InputError

SAMPLE = Path(__file__).parents[2] / "recipes/tiny/data/skimage-00000.warc.gz"
OFFSETS = tuple[int, ...]


def record(url: str, http: bytes, *, kind: str = "response", content_type: str = "application/http") -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-02T03:04:05Z\r\n"
        f"Content-Type: {content_type}; msgtype={kind}\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def http(body: bytes, headers: str = "Content-Type: text/html", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n".encode() + body


def read(folder: Path, content: bytes, max_payload_bytes: int = 1 << 20) -> list[Response | Damage]:
    path = folder / "crawl.bin"  # the name says nothing
    path.write_bytes(content)
    return list(read_responses(path, max_payload_bytes=max_payload_bytes))


def told(found: Sequence[Response | Damage]) -> list[tuple[int, str | None]]:
    return [(item.offset, item.reason if isinstance(item, Damage) else item.url) for item in found]


def archive(*, compressed: bool, num_records: int = 5) -> tuple[bytes, OFFSETS]:
    """Records of text that does not repeat, and where each begins, with the end as the last."""
    noise = random.Random(1)
    stored, offsets = b"", [0]
    for number in range(num_records):
        plain = record(f"http://a.example/{number}", http(bytes(noise.choices(b"abcdefgh <>", k=4000))))
        stored += gzip.compress(plain, mtime=0) if compressed else plain
        offsets.append(len(stored))
    return stored, tuple(offsets)


def urls(numbers: Sequence[int], offsets: OFFSETS) -> list[tuple[int, str | None]]:
    return [(offsets[number], f"http://a.example/{number}") for number in numbers]


def test_sample_is_read_whole() -> None:
    found = list(read_responses(SAMPLE, max_payload_bytes=10_000_000))
    responses = [item for item in found if isinstance(item, Response)]
    assert len(found) == len(responses) == 165
    assert sum(item.media_type == "text/html" for item in responses) == 99
    assert {item.status for item in responses} == {200}
    assert responses[1].offset == 8483
    assert responses[1].payload.startswith(b"\x89PNG")
    assert responses[0].fetched_at == "2026-11-22T15:24:58Z"


@pytest.mark.parametrize("compressed", [True, False])
def test_offsets_are_those_of_the_records(tmp_path: Path, compressed: bool) -> None:
    stored, offsets = archive(compressed=compressed)
    found = read(tmp_path, stored)
    assert told(found) == urls(range(5), offsets)
    assert all(isinstance(item, Response) and len(item.payload) == 4000 for item in found)


def test_headers_are_read_leniently(tmp_path: Path) -> None:
    headers = 'content-type: Text/HTML; Charset="ISO-8859-1"; x=y'
    (item,) = read(tmp_path, record("<http://a.example/>", http(b"hi", headers, "404 Not Found")))
    assert isinstance(item, Response)
    assert (item.url, item.status, item.media_type, item.charset) == (
        "http://a.example/",
        404,
        "text/html",
        "iso-8859-1",
    )


def test_other_records_are_skipped_and_equal_urls_kept(tmp_path: Path) -> None:
    page = record("http://a.example/", http(b"<p>one"))
    stored = b"".join(
        [
            record("http://a.example/", b"GET / HTTP/1.1\r\n\r\n", kind="request"),
            record("dns:a.example", b"1.2.3.4", content_type="text/dns"),
            page,
            record("http://a.example/", b"software: x\r\n", kind="warcinfo", content_type="application/warc-fields"),
            page,
        ]
    )
    found = read(tmp_path, stored)
    assert [item.url for item in found] == ["http://a.example/"] * 2
    assert len({item.offset for item in found}) == 2


def test_one_gzip_member_for_the_whole_file(tmp_path: Path) -> None:
    plain, _ = archive(compressed=False)
    found = read(tmp_path, gzip.compress(plain))
    assert told(found) == [(0, f"http://a.example/{number}") for number in range(5)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty_archive"),
        (b"\0" * 5000, "not_a_warc"),
        (b"<html>no</html>" * 300, "not_a_warc"),
        (gzip.compress(b"no warc" * 300, mtime=0), "not_a_warc"),
        (b"\x1f\x8b\x08", "not_a_warc"),
        (b"\x28\xb5\x2f\xfd" + b"zstandard" * 50, "not_a_warc"),
        (b"WARC/1.0\r\nWARC-Type: resp", "truncated_archive"),
    ],
    ids=["empty", "zeros", "html", "gzip", "three bytes", "zstandard", "cut"],
)
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    assert told(read(tmp_path, content)) == [(0, reason)]


@pytest.mark.parametrize("place", ["magic", "head", "middle", "checksum"])
def test_flipped_byte_costs_only_its_record(tmp_path: Path, place: str) -> None:
    stored, offsets = archive(compressed=True)
    start, stop = offsets[2:4]
    flipped = {"magic": start, "head": start + 25, "middle": (start + stop) // 2, "checksum": stop - 6}[place]
    damaged = bytearray(stored)
    damaged[flipped] ^= 0x10
    expected = [*urls([0, 1], offsets), (start, "damaged_record"), *urls([3, 4], offsets)]
    assert told(read(tmp_path, bytes(damaged))) == expected


def test_damaged_first_and_last_record(tmp_path: Path) -> None:
    stored, offsets = archive(compressed=True)
    damaged = bytearray(stored)
    damaged[0] ^= 0x10
    damaged[-3] ^= 0x10
    expected = [(0, "damaged_record"), *urls([1, 2, 3], offsets), (offsets[4], "damaged_record")]
    assert told(read(tmp_path, bytes(damaged))) == expected


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kept_bytes", [5, 40, 900])
def test_truncated_archive_keeps_what_is_whole(tmp_path: Path, compressed: bool, kept_bytes: int) -> None:
    stored, offsets = archive(compressed=compressed)
    found = read(tmp_path, stored[: offsets[2] + kept_bytes])
    assert told(found) == [*urls([0, 1], offsets), (offsets[2], "truncated_archive")]


@pytest.mark.parametrize("length", [b"1000", b"4100", b"999999", b"x"])
def test_wrong_length_in_a_plain_archive_costs_its_record(tmp_path: Path, length: bytes) -> None:
    stored, offsets = archive(compressed=False)
    true_length = str(len(http(b"x" * 4000))).encode()
    head, tail = stored[: offsets[2]], stored[offsets[2] :]
    found = read(tmp_path, head + tail.replace(b"Length: " + true_length, b"Length: " + length, 1))
    assert [item.reason if isinstance(item, Damage) else item.url for item in found] == [
        "http://a.example/0",
        "http://a.example/1",
        "damaged_record",
        "http://a.example/3",
        "http://a.example/4",
    ]


def test_garbage_between_records_costs_none(tmp_path: Path) -> None:
    stored, offsets = archive(compressed=False)
    found = read(tmp_path, stored[: offsets[2]] + b"garbage\r\n\r\n" + stored[offsets[2] :])
    assert [item.url for item in found if isinstance(item, Response)] == [f"http://a.example/{n}" for n in range(5)]
    assert sum(isinstance(item, Damage) for item in found) == 1


def test_broken_http_costs_its_record_and_names_its_url(tmp_path: Path) -> None:
    stored = record("http://a.example/0", b"no status\r\n\r\nx") + record("http://a.example/1", http(b"x"))
    damage, sound = read(tmp_path, stored)
    assert isinstance(damage, Damage)
    assert (damage.url, damage.reason) == ("http://a.example/0", "damaged_record")
    assert sound.url == "http://a.example/1"


def test_large_payload_is_refused_and_the_next_is_read(tmp_path: Path) -> None:
    stored = record("http://a.example/0", http(b"x" * 5000)) + record("http://a.example/1", http(b"x" * 1000))
    for content in (stored, gzip.compress(stored)):
        found = read(tmp_path, content, max_payload_bytes=1000)
        assert [item.reason if isinstance(item, Damage) else len(item.payload) for item in found] == [
            "payload_too_large",
            1000,
        ]


def test_decompression_bombs_stay_small_in_memory(tmp_path: Path) -> None:
    """400 MB of zeros, once in the record's own compression, once in the HTTP body, once chunked on top."""
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(400)) + bomb.flush()
    chunked = f"{len(packed):x}\r\n".encode() + packed + b"\r\n0\r\n\r\n"
    head = record("http://a.example/0", http(b""))
    length = len(http(b"")) + (400 << 20)
    head = head.replace(f"Content-Length: {len(http(b''))}".encode(), f"Content-Length: {length}".encode())[:-4]
    outer = zlib.compressobj(1, zlib.DEFLATED, 31)
    first = outer.compress(head) + b"".join(outer.compress(bytes(1 << 20)) for _ in range(400))
    first += outer.compress(b"\r\n\r\n") + outer.flush()
    second = record("http://a.example/1", http(packed, "Content-Encoding: gzip"))
    third = record("http://a.example/2", http(chunked, "Transfer-Encoding: chunked\r\nContent-Encoding: gzip"))
    path = tmp_path / "bombs"
    path.write_bytes(first + gzip.compress(second) + gzip.compress(third))
    script = (
        "import sys, pathlib\n"
        "from carnac.archive.records import read_responses\n"
        "found = list(read_responses(pathlib.Path(sys.argv[1]), max_payload_bytes=1_000_000))\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(*[item.reason for item in found], status.partition('VmHWM:')[2].split()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    *reasons, peak_kib = done.stdout.split()
    assert reasons == ["payload_too_large"] * 3
    assert int(peak_kib) < 100_000, peak_kib


def test_unreadable_path_is_an_input_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.warc.gz", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            next(read_responses(path, max_payload_bytes=1000))


@pytest.mark.parametrize("compressed", [True, False])
def test_random_damage_never_raises_and_keeps_what_is_untouched(tmp_path: Path, compressed: bool) -> None:
    stored, offsets = archive(compressed=compressed, num_records=4)
    noise = random.Random(7)
    for _ in range(300):
        damaged = bytearray(stored)
        for _ in range(noise.choice((1, 1, 5))):
            place = noise.randrange(offsets[1], offsets[2])
            if noise.random() < 0.5:
                damaged[place] = noise.randrange(256)
            else:
                del damaged[place : min(place + noise.randrange(1, 60), offsets[2])]
        found = [item.url for item in read(tmp_path, bytes(damaged)) if isinstance(item, Response)]
        assert found[0] == "http://a.example/0"
        assert found[-1] == "http://a.example/3"
