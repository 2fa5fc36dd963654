"""Objects whole or absent, listings that are never old, and how many requests all of it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from store_server import Bucket
from store_stage import do_units
from store_writer import is_sealed, sealed

from carnac.core.errors import InputError
from carnac.core.places import BLOCK_BYTES, Place, open_binary, place_of, read_bytes
from carnac.core.stores import PUT_BYTES
from carnac.engine.ledger import FOOTER_BYTES, read_ledger
from carnac.engine.manifest import read_manifest
from carnac.engine.part import Part
from carnac.engine.storage import (
    commit,
    list_files,
    make_folder,
    remove,
    scratch,
    size_of,
    temporary_path,
    write_file,
)
from carnac.engine.tables import open_part, read_rows, read_table
from carnac.engine.unit import outside_digest, outside_digests
from carnac.jobs.inputs import find_files


@pytest.fixture(autouse=True)
def scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))


def writer(url: str, count: int, megabytes: float) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("store_writer.py")
    return subprocess.Popen(
        [sys.executable, str(script), url, str(count), str(megabytes)], stdout=subprocess.PIPE, text=True
    )


def test_what_another_process_writes_is_seen_at_once_and_whole(bucket: Bucket) -> None:
    folder = place_of(f"{bucket.url}/out")
    assert list_files(folder) == {}
    met = 0
    with writer(f"{bucket.url}/out", 20, 0.5) as process:
        assert process.stdout is not None
        for number, line in enumerate(process.stdout):
            there = list_files(folder)
            assert line.strip() in there, "committed, but in no listing"
            assert len(there) >= number + 1
            for name, size in there.items():
                content = read_bytes(folder / name)
                assert is_sealed(content)
                assert len(content) == size
                met += 1
    assert process.returncode == 0
    assert met >= 20
    assert len(list_files(folder)) == 20
    assert list(scratch().iterdir()) == [], "what is sent leaves nothing on the disk"


def test_an_object_of_many_pieces_is_whole_or_absent(bucket: Bucket, tmp_path: Path) -> None:
    final = place_of(f"{bucket.url}/out/large.bin")
    content = sealed(2 * PUT_BYTES + 1000)
    temporary = temporary_path(final)
    temporary.write_bytes(content)
    bucket.tell("refuse", "partNumber=2")
    with pytest.raises(PermissionError, match="the store refuses it"):
        commit(temporary, final)
    assert bucket.objects() == {}
    assert bucket.uploads() == [], "an upload that failed is aborted: its pieces would be paid for"
    bucket.tell("refuse", "")
    commit(temporary, final)
    assert size_of(final) == len(content)
    assert is_sealed(read_bytes(final))
    assert not temporary.exists()


def test_a_kill_in_an_upload_of_many_pieces_leaves_no_object(bucket: Bucket) -> None:
    bucket.tell("slow", "0.5")
    process = writer(f"{bucket.url}/out", 1, 2 * PUT_BYTES / 1e6 + 1)
    while not any("partNumber=2" in line for line in bucket.requests("begun")):
        assert process.poll() is None
    process.kill()
    process.communicate()
    bucket.tell("slow", "")
    assert list_files(place_of(f"{bucket.url}/out")) == {}
    # Its pieces stay until the bucket's own rule removes them (docs/11-stores.md).
    assert bucket.uploads() == ["out/00000.bin"]
    assert len(list(scratch().iterdir())) == 1, "what the next run sweeps"
    with writer(f"{bucket.url}/out", 1, 2 * PUT_BYTES / 1e6 + 1) as again:
        again.communicate()
    assert is_sealed(read_bytes(place_of(f"{bucket.url}/out/00000.bin")))


def test_a_folder_of_2000_objects_is_listed_whole(bucket: Bucket) -> None:
    names = [f"{number:05d}.parquet" for number in range(2000)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: bucket.put(f"many/{name}", name.encode()), names))
    bucket.put("many/sub/one.tar", b"12")
    bucket.put("many2/other", b"")
    bucket.put("many/", b"")  # how a console marks a folder
    before = len(bucket.requests())
    found = list_files(place_of(f"{bucket.url}/many/"))
    assert found == dict.fromkeys(names, 13) | {"sub/one.tar": 2}
    assert len(bucket.requests()) - before == 3
    assert len(find_files([f"{bucket.url}/many/*.parquet"])) == 2000


def test_names_are_what_they_are(bucket: Bucket) -> None:
    folder = place_of(f"{bucket.url}/a b/\u00fc#?%20+&")
    for name in ("x y.txt", "\u00e9~1-2_3.txt", "%2F.txt", "a+b=c.txt"):
        write_file(folder / name, name.encode())
        assert read_bytes(folder / name) == name.encode()
    assert list_files(folder).keys() == {"x y.txt", "\u00e9~1-2_3.txt", "%2F.txt", "a+b=c.txt"}
    assert "a b/\u00fc#?%20+&/x y.txt" in bucket.objects()
    remove(folder / "x y.txt")
    remove(folder / "x y.txt")
    assert "x y.txt" not in list_files(folder)
    make_folder(folder)
    with pytest.raises(FileNotFoundError):
        read_bytes(folder / "x y.txt")
    with pytest.raises(FileNotFoundError):
        size_of(folder / "x y.txt")


def requests_of_parts(bucket: Bucket, since: int) -> list[str]:
    # How often a run says what it is at hangs on the time it takes.
    return [line for line in bucket.requests()[since:] if ".run.json" not in line]


def test_requests_grow_by_three_a_unit_and_by_two_for_a_file_beside(bucket: Bucket) -> None:
    counts: dict[tuple[int, bool], int] = {}
    for beside in (False, True):
        for count in (2, 6):
            before = len(bucket.requests())
            do_units(place_of(f"{bucket.url}/{count}{beside}"), count, beside=beside)
            counts[count, beside] = len(requests_of_parts(bucket, before))
    # Is the unit known to kill (one GET), its part (one PUT), its footer (one GET).
    assert counts[6, False] - counts[2, False] == 4 * 3
    # With a file beside: its PUT, and a look whether another part stands over it.
    assert counts[6, True] - counts[2, True] == 4 * 5


def test_a_run_with_nothing_to_do_asks_nothing_of_its_units(bucket: Bucket) -> None:
    counts = {}
    for count in (2, 8):
        folder = place_of(f"{bucket.url}/{count}")
        first = do_units(folder, count)
        before = len(bucket.requests())
        assert do_units(folder, count) == first
        lines = bucket.requests()[before:]
        assert not any(".parquet" in line for line in lines)
        assert not any(line.startswith(("PUT", "POST", "DELETE")) for line in lines)
        counts[count] = len(lines)
    assert counts[2] == counts[8] <= 5


def test_a_part_is_read_by_three_requests_a_row_group(bucket: Bucket) -> None:
    folder = place_of(f"{bucket.url}/read")
    manifest = do_units(folder, 1)
    part = manifest.parts[0].path
    before = len(bucket.requests())
    assert [row["number"] for row in read_rows(part, ["number"])] == [0, 1, 2]
    assert len(bucket.requests()) - before <= 3
    before = len(bucket.requests())
    assert read_ledger(part).rows == 3
    assert len(bucket.requests()) - before == 1
    assert read_manifest(folder, "counted").rows == 3
    assert read_table(part).num_rows == 3


def test_a_footer_longer_than_the_first_request_is_read(bucket: Bucket, tmp_path: Path) -> None:
    from store_stage import STAGE

    unit = STAGE.unit("long", None, settings={}, inputs=[])
    for folder in (place_of(f"{bucket.url}/long"), tmp_path):
        with Part(STAGE, unit, folder) as part:
            part.write({"unit": "long", "number": 1})
            for number in range(500):
                part.quarantine(f"record {number}", "bad", "x" * 400, is_loss=False)
    there = place_of(f"{bucket.url}/long") / unit.file_name
    assert pq.read_metadata(tmp_path / unit.file_name).serialized_size > FOOTER_BYTES
    ledger = read_ledger(there)
    assert len(ledger.quarantine) == 500
    assert ledger.digest == read_ledger(tmp_path / unit.file_name).digest
    remove(there)
    with pytest.raises(InputError, match="not a part that carnac wrote"):
        read_ledger(there)
    with pytest.raises(InputError, match="cannot be read"), open_part(there):
        pass


def test_a_large_file_is_read_in_blocks_once(bucket: Bucket) -> None:
    content = os.urandom(int(2.5 * BLOCK_BYTES))
    bucket.put("large.bin", content)
    before = len(bucket.requests())
    with open_binary(place_of(f"{bucket.url}/large.bin")) as file:
        read = b""
        while chunk := file.read(1 << 20):
            read += chunk
            if len(read) > 100:  # as a reader of records steps back to where the next one begins
                file.seek(len(read) - 100)
                assert file.read(100) == read[-100:]
    assert read == content
    assert len(bucket.requests()) - before == 1 + 3
    assert read_bytes(place_of(f"{bucket.url}/large.bin"), -10) == content[-10:]
    assert read_bytes(place_of(f"{bucket.url}/large.bin"), 5, 9) == content[5:9]


def test_inputs_are_known_by_their_etag_from_one_listing(bucket: Bucket) -> None:
    for number in range(20):
        bucket.put(f"crawl/{number:02d}.warc.gz", f"content {number}".encode())
    files = find_files([f"{bucket.url}/crawl/*.warc.gz"])
    assert [file.name for file in files] == [f"{number:02d}.warc.gz" for number in range(20)]
    before = len(bucket.requests())
    digests = outside_digests(files)
    assert len(bucket.requests()) - before == 1
    assert digests == [outside_digest(file) for file in files]
    bucket.put("crawl/00.warc.gz", b"content X")  # as long as before
    later = outside_digests(files)
    assert later[0] != digests[0]
    assert later[1:] == digests[1:]
    assert find_files([str(files[3])]) == [files[3]]
    with pytest.raises(InputError, match="a folder\\."):
        find_files([f"{bucket.url}/crawl"])
    with pytest.raises(InputError, match="no such object"):
        find_files([f"{bucket.url}/none/*.warc.gz"])
    gone: list[Place] = [place_of(f"{bucket.url}/crawl/gone.warc.gz")]
    with pytest.raises(InputError, match=r"gone.warc.gz: cannot be read \(No such file"):
        outside_digests(gone)
