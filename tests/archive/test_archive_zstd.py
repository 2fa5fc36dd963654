"""`.warc.zst`, with and without a dictionary, damaged here; beside it pages whose body came zstd-encoded."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from test_archive_records import archive as plain_archive
from test_archive_records import http, read, record, told, urls

from carnac.archive.records import Damage, Response
from carnac.archive.zstd_frames import DICTIONARY_MAGIC, MAX_DICTIONARY_BYTES, MAX_WINDOW_BYTES

SAMPLES = [record(f"http://a.example/{n}", http(b"<p>some words of page %d</p>" % n * 8)) for n in range(400)]
DICTIONARY = zstandard.train_dictionary(4000, [*SAMPLES])


def skippable(content: bytes, magic: bytes = DICTIONARY_MAGIC) -> bytes:
    return magic + struct.pack("<I", len(content)) + content


def archive(*, start: bytes = b"", dictionary: zstandard.ZstdCompressionDict | None = None) -> tuple[bytes, list[int]]:
    """Five records, a frame each, after `start`; and where each begins, with the end as the last."""
    plain, offsets = plain_archive(compressed=False)
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True, dict_data=dictionary)
    stored, places = start, [len(start)]
    for begin, end in pairwise(offsets):
        stored += compressor.compress(plain[begin:end])
        places.append(len(stored))
    return stored, places


def test_a_frame_is_a_record(tmp_path: Path) -> None:
    stored, offsets = archive()
    found = read(tmp_path, stored)
    assert told(found) == urls(range(5), tuple(offsets))
    assert all(isinstance(item, Response) and len(item.payload) == 4000 for item in found)


@pytest.mark.parametrize("is_packed", [False, True], ids=["as it is", "compressed"])
def test_a_dictionary_at_the_start_serves_all_frames(tmp_path: Path, is_packed: bool) -> None:
    content = DICTIONARY.as_bytes()
    start = skippable(zstandard.compress(content) if is_packed else content)
    stored, offsets = archive(start=start, dictionary=DICTIONARY)
    assert told(read(tmp_path, stored)) == urls(range(5), tuple(offsets))
    # Without it not one frame can be read: the test would see a reader that passes it over.
    assert {item.reason for item in read(tmp_path, stored[len(start) :]) if isinstance(item, Damage)} == {"not_a_warc"}


def test_other_skippable_frames_are_passed_over(tmp_path: Path) -> None:
    stored, offsets = archive()
    extra = skippable(b"a note", magic=b"\x50\x2a\x4d\x18")
    found = read(tmp_path, extra + stored[: offsets[2]] + extra + stored[offsets[2] :] + extra)
    assert [item.url for item in found] == [f"http://a.example/{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no dictionary at all", "the dictionary cannot be read"),
        (b"\x28\xb5\x2f\xfd" + b"zstandard", "the dictionary cannot be read"),
    ],
)
def test_a_damaged_dictionary_is_named_and_costs_what_needs_it(tmp_path: Path, content: bytes, said: str) -> None:
    whole, _ = archive()
    stored, _ = archive(start=skippable(content), dictionary=DICTIONARY)
    damage, *found = read(tmp_path, stored + whole)
    assert isinstance(damage, Damage)
    assert (damage.offset, damage.reason) == (0, "damaged_record")
    assert said in damage.detail
    assert [item.url for item in found] == [f"http://a.example/{number}" for number in range(5)]


def test_a_dictionary_without_end_is_not_read(tmp_path: Path) -> None:
    (damage,) = read(tmp_path, DICTIONARY_MAGIC + struct.pack("<I", MAX_DICTIONARY_BYTES + 1) + b"x" * 100)
    assert isinstance(damage, Damage)
    assert "at most" in damage.detail


def test_one_frame_for_the_whole_file(tmp_path: Path) -> None:
    plain, _ = plain_archive(compressed=False, num_records=60)  # 240 KB: more than a block
    found = read(tmp_path, zstandard.compress(plain))
    assert told(found) == [(0, f"http://a.example/{number}") for number in range(60)]


@pytest.mark.parametrize("level", [1, 3, 19])
@pytest.mark.parametrize("content", [b"", b"x", bytes(400_000), random.Random(4).randbytes(400_000)])
def test_frames_of_all_kinds_of_blocks_end_where_they_end(tmp_path: Path, level: int, content: bytes) -> None:
    """Raw blocks, runs of one byte, compressed ones; with and without content size, checksum, in streams."""
    one = record("http://a.example/0", http(content))
    stored = b""
    for size, checksum in ((True, True), (True, False), (False, True), (False, False)):
        compressor = zstandard.ZstdCompressor(level=level, write_content_size=size, write_checksum=checksum)
        stored += compressor.compress(one)
        stream = compressor.compressobj()
        stored += stream.compress(one[:100]) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        stored += stream.compress(one[100:]) + stream.flush()
    found = read(tmp_path, stored)
    assert [len(item.payload) for item in found if isinstance(item, Response)] == [len(content)] * 8


@pytest.mark.parametrize("place", ["magic", "head", "block", "middle", "checksum"])
def test_flipped_byte_costs_only_its_record(tmp_path: Path, place: str) -> None:
    stored, offsets = archive()
    start, stop = offsets[2:4]
    flipped = {
        "magic": start,
        "head": start + 4,
        "block": start + 9,
        "middle": (start + stop) // 2,
        "checksum": stop - 2,
    }
    damaged = bytearray(stored)
    damaged[flipped[place]] ^= 0x08
    found = told(read(tmp_path, bytes(damaged)))
    whole = tuple(offsets)
    assert found == [*urls([0, 1], whole), (start, "damaged_record"), *urls([3, 4], whole)]


@pytest.mark.parametrize("kept_bytes", [2, 5, 40, 900])
def test_truncated_archive_keeps_what_is_whole(tmp_path: Path, kept_bytes: int) -> None:
    stored, offsets = archive()
    found = read(tmp_path, stored[: offsets[2] + kept_bytes])
    expected = "truncated_archive" if kept_bytes > 4 else "damaged_record"
    assert told(found) == [*urls([0, 1], tuple(offsets)), (offsets[2], expected)]


def test_random_damage_never_raises_and_keeps_what_is_untouched(tmp_path: Path) -> None:
    stored, offsets = archive()
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
        assert found[-1] == "http://a.example/4"
        assert "http://a.example/3" in found


def test_a_frame_that_demands_too_much_memory_is_refused(tmp_path: Path) -> None:
    one = record("http://a.example/0", http(b"x" * 1000))
    parameters = zstandard.ZstdCompressionParameters(window_log=28, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    greedy = stream.compress(one) + stream.flush()
    assert zstandard.get_frame_parameters(greedy).window_size > MAX_WINDOW_BYTES
    damage, sound = read(tmp_path, greedy + zstandard.compress(one))
    assert isinstance(damage, Damage)
    assert "memory" in damage.detail.lower()
    assert isinstance(sound, Response)


def test_bodies_that_came_zstd_encoded_are_decoded(tmp_path: Path) -> None:
    packed = zstandard.compress(b"<p>hello</p>")
    stored = b"".join(
        record(f"http://a.example/{number}", http(body, "Content-Type: text/html\r\nContent-Encoding: zstd"))
        for number, body in enumerate(
            (packed, packed + packed, b"<p>decoded</p>", packed[:-3], b"\x28\xb5\x2f\xfdxxxx")
        )
    )
    found = read(tmp_path, stored)
    assert [item.reason if isinstance(item, Damage) else item.payload for item in found] == [
        b"<p>hello</p>",
        b"<p>hello</p>" * 2,
        b"<p>decoded</p>",
        "undecodable_payload",
        "undecodable_payload",
    ]


def test_bombs_stay_small_in_memory(tmp_path: Path) -> None:
    """400 MB of zeros: as a record's frame, and as the body of a page."""
    head = record("http://a.example/0", http(b""))[:-4]
    told_length = f"Content-Length: {len(http(b''))}".encode()
    head = head.replace(told_length, f"Content-Length: {len(http(b'')) + (400 << 20)}".encode())
    stream = zstandard.ZstdCompressor().compressobj()
    first = stream.compress(head) + b"".join(stream.compress(bytes(1 << 20)) for _ in range(400))
    first += stream.compress(b"\r\n\r\n") + stream.flush()
    body = zstandard.ZstdCompressor().compressobj()
    packed = b"".join(body.compress(bytes(1 << 20)) for _ in range(400)) + body.flush()
    second = record("http://a.example/1", http(packed, "Content-Encoding: zstd"))
    (tmp_path / "bombs").write_bytes(first + zstandard.compress(second))
    script = (
        "import sys, pathlib\n"
        "from carnac.archive.records import read_responses\n"
        "found = list(read_responses(pathlib.Path(sys.argv[1]), max_payload_bytes=1_000_000))\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(*[item.reason for item in found], status.partition('VmHWM:')[2].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "bombs"], capture_output=True, text=True, check=True
    )
    *reasons, peak_kib = done.stdout.split()
    assert reasons == ["payload_too_large"] * 2
    assert int(peak_kib) < 100_000, peak_kib
