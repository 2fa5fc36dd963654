"""What was taken down is in no byte of the output any more, all else is as it was, and no later run brings it back."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from jobs_takedown import (
    CDN,
    CHAIN,
    GONE,
    MARK,
    STORE,
    WARCS,
    Asked,
    asked_of,
    everything_in,
    own_image,
    page_url,
    picture,
    rows_by_part,
    run,
    write_crawl,
)
from store_server import Bucket
from story_runs import all_rows, carnac

from carnac.engine import storage
from carnac.engine.spool import Spool
from carnac.jobs.takedown import take_down
from carnac.jobs.takedown_entries import entries_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A run before and after the take-down, and what was asked for."""

    before: Path
    after: Path
    asked: Asked
    said: str

    def gone_images(self) -> set[str]:
        """The sha256 values of the stored bytes that have to go, told without carnac's own rules."""
        gone = set()
        for row in all_rows(self.before / STORE / "images"):
            named = row["url"] in self.asked.images or any(name in row["url"] for name in GONE)
            hashed = row["sha256"] in self.asked.hashes or row["received_sha256"] in self.asked.received
            if row["status"] == "kept" and (named or hashed):
                gone.add(row["sha256"])
        return gone

    def is_gone_page(self, row: dict[str, Any]) -> bool:
        urls = (row["url"], row["canonical_url"] or "")
        return row["url"] in self.asked.pages or any(name in url for url in urls for name in GONE)


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the four data recipes; not to be changed."""
    folder = tmp_path_factory.mktemp("crawled")
    write_crawl(folder)
    run(folder)
    return folder


@pytest.fixture(scope="module")
def taken(crawled: Path, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """The run, and a copy of it after the take-down; neither to be changed."""
    after = tmp_path_factory.mktemp("taken") / "run"
    shutil.copytree(crawled, after)
    asked = asked_of(crawled)
    said = carnac(after, "takedown", "out", "--list", str(asked.list_file(after.parent)))
    return Taken(before=crawled, after=after, asked=asked, said=said)


@pytest.fixture
def again(taken: Taken, tmp_path: Path) -> Path:
    """A copy of the run after the take-down, to go on with."""
    shutil.copytree(taken.after, tmp_path / "run")
    return tmp_path / "run"


def found_in(folder: Path, asked: Asked) -> list[str]:
    wanted = [text.encode() for text in asked.strings()]
    return [
        f"{name}: {text.decode()}"
        for name, content in everything_in(folder)
        for text in wanted
        if text in content or text.replace(b"&", b"&amp;") in content
    ]


def images_in(folder: Path) -> set[str]:
    """Return the sha256 of all image bytes in packs and shards."""
    found = set()
    for pack in folder.rglob("*.tar"):
        with tarfile.open(pack) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert stream is not None
                found.add(hashlib.sha256(stream.read()).hexdigest())
    for split in ("train", "heldout"):
        for row in all_rows(folder / STORE / "shards" / split):
            found |= {hashlib.sha256(image["bytes"]).hexdigest() for image in row["images"] if image}
    return found


def test_nothing_of_it_is_in_any_byte_of_the_output(taken: Taken) -> None:
    assert found_in(taken.before / "out", taken.asked), "the search finds nothing: it proves nothing"
    assert found_in(taken.after / "out", taken.asked) == []
    gone = taken.gone_images()
    assert len(gone) > 150
    assert gone < images_in(taken.before)
    assert gone.isdisjoint(images_in(taken.after))


def test_images_that_stay_stay_where_they_were_in_packs_as_long_as_before(taken: Taken) -> None:
    gone = taken.gone_images()
    for pack in (taken.before / STORE / "images/packs").iterdir():
        before, after = pack.read_bytes(), (taken.after / STORE / "images/packs" / pack.name).read_bytes()
        assert len(before) == len(after)
        with tarfile.open(pack) as tar:
            for member in tar:
                place = slice(member.offset_data, member.offset_data + member.size)
                is_gone = member.name.partition(".")[0] in gone
                assert after[place] == (bytes(member.size) if is_gone else before[place])


def test_documents_keep_their_rows_and_blocks(taken: Taken) -> None:
    gone, shown = taken.gone_images(), {row["url"]: row["sha256"] for row in all_rows(taken.before / STORE / "images")}
    before = rows_by_part(taken.before / STORE / "documents")
    after = rows_by_part(taken.after / STORE / "documents")
    assert list(before) == list(after)
    num_pages = 0
    for name, rows in before.items():
        assert len(rows) == len(after[name])
        for row, left in zip(rows, after[name], strict=True):
            assert left["id"] == row["id"]
            assert left["kinds"] == row["kinds"]
            if taken.is_gone_page(row):
                num_pages += 1
                assert left["url"] == MARK
                assert {text for text in left["texts"] if text} == set()
                assert {url for url in left["images"] if url} <= {MARK}
                assert left["title"] is left["canonical_url"] is None
                continue
            lost = [
                url is not None and (shown[url] in gone or any(name in url for name in GONE)) for url in row["images"]
            ]
            wanted = [MARK if is_lost else url for url, is_lost in zip(row["images"], lost, strict=True)]
            assert left["images"] == wanted
            assert [
                node and node["alt"] for node, is_lost in zip(left["image_nodes"], lost, strict=True) if is_lost
            ] == [None for is_lost in lost if is_lost]
            if row["url"] == page_url(20, 1):
                assert left["texts"] != row["texts"]
                assert [
                    text and text.replace(GONE[0], MARK).replace(own_image(6, 0), MARK) for text in row["texts"]
                ] == (left["texts"])
            else:
                assert left["texts"] == row["texts"]
            plain = [column for column in row if column not in ("texts", "images", "image_nodes")]
            assert [left[column] for column in plain] == [row[column] for column in plain]
    assert num_pages == 50 + 5 * 10 + 1


def test_signals_masks_and_repeats_are_the_same_files(taken: Taken) -> None:
    curated = taken.before / STORE / "curated"
    for path in curated.rglob("*.parquet"):
        # What the funnel shows of pages, and hashes of images that were taken down.
        if path.parent.name in ("excerpts", "image_signals"):
            continue
        assert path.read_bytes() == (taken.after / STORE / "curated" / path.relative_to(curated)).read_bytes()


def test_the_table_of_images_says_what_was_taken_down(taken: Taken) -> None:
    gone = taken.gone_images()
    pairs = list(zip(all_rows(taken.before / STORE / "images"), all_rows(taken.after / STORE / "images"), strict=True))
    for row, left in pairs:
        if row["sha256"] in gone or row["url"] in taken.asked.images or any(name in row["url"] for name in GONE):
            assert {name: value for name, value in left.items() if value is not None} == {
                "url": MARK,
                "status": "dropped",
                "reason": "taken_down",
            }
        else:
            assert left == row
    assert sum(row != left for row, left in pairs) > 150


def test_samples_of_pages_go_and_others_lose_their_image(taken: Taken) -> None:
    gone = taken.gone_images()
    pages = {row["id"] for row in all_rows(taken.before / STORE / "documents") if taken.is_gone_page(row)}
    num_merged = 0
    for split in ("train", "heldout"):
        after = {row["id"]: row for row in all_rows(taken.after / STORE / "shards" / split)}
        for row in all_rows(taken.before / STORE / "shards" / split):
            if row["id"] in pages:
                assert row["id"] not in after
                continue
            left = after.pop(row["id"])
            names = [image["path"].partition(".")[0] for image in row["images"] if image]
            assert [image["path"].partition(".")[0] for image in left["images"] if image] == [
                name for name in names if name not in gone
            ]
            assert all(
                (text is None) != (image is None) for text, image in zip(left["texts"], left["images"], strict=True)
            )
            assert not any(a and b for a, b in zip(left["texts"], left["texts"][1:], strict=False)), "texts not merged"
            assert len(json.loads(left["metadata"])["image_urls"]) == len(left["texts"]) == len(left["roles"])
            if gone.isdisjoint(names) and json.loads(row["metadata"])["url"] != page_url(20, 1):
                assert left == row
            num_merged += len(left["texts"]) < len(row["texts"])
        assert not after
    assert num_merged > 20


def test_only_shards_have_new_digests(taken: Taken) -> None:
    for path in (taken.before / "out").rglob("manifest.json"):
        before = json.loads(path.read_bytes())
        after = json.loads((taken.after / "out" / path.relative_to(taken.before / "out")).read_bytes())
        for old, new in zip(before["parts"], after["parts"], strict=True):
            assert old["key"] == new["key"]
            assert (
                new["bytes"]
                == (taken.after / "out" / path.relative_to(taken.before / "out")).with_name(new["file"]).stat().st_size
            )
            is_changed = before["stage"] == "shards" and new["counts"].get("taken_down", 0) > 0
            assert (old["digest"] != new["digest"]) == is_changed


def test_tables_keep_their_form(taken: Taken) -> None:
    for path in (taken.before / "out").rglob("*.parquet"):
        other = taken.after / "out" / path.relative_to(taken.before / "out")
        assert pq.read_schema(path).equals(pq.read_schema(other), check_metadata=True)
        before, after = pq.read_metadata(path).metadata, pq.read_metadata(other).metadata
        others = before.keys() - {b"carnac.ledger", b"ARROW:schema"}  # the schema was compared as it is read
        assert before.keys() == after.keys()
        assert {name: before[name] for name in others} == {name: after[name] for name in others}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_command_again_changes_nothing(taken: Taken, again: Path) -> None:
    before = files_of(again / "out")
    said = carnac(again, "takedown", "out", "--list", str(taken.asked.list_file(again)))
    assert "rows" not in said
    assert files_of(again / "out") == before


def test_a_dry_run_says_what_goes_and_changes_nothing(taken: Taken, tmp_path: Path) -> None:
    shutil.copytree(taken.before / "out", tmp_path / "out")
    before = files_of(tmp_path / "out")
    said = carnac(tmp_path, "takedown", "out", "--list", str(taken.asked.list_file(tmp_path)), "--dry-run")
    assert files_of(tmp_path / "out") == before
    *done, searched = taken.said.splitlines()
    assert said.replace("would be", "were").splitlines() == done
    assert "files searched, nothing of it is left" in searched


def test_the_recipes_run_again_find_all_done(taken: Taken, again: Path) -> None:
    before = files_of(again / "out")
    said = run(again)
    # The data card is counted anew: it tells what the shards hold now.
    done = [line for line in said.splitlines() if "units done in" in line]
    assert all(line.startswith("card") for line in done), said
    after = files_of(again / "out")
    assert "tiny/curated/funnel.json" not in before
    del after["tiny/curated/funnel.json"]  # drawn again, from what is left
    del after["tiny/documents/manifest.json"], before["tiny/documents/manifest.json"]  # the archives lie elsewhere
    card = ("tiny/shards/card", "tiny/shards/CARD.md")
    assert before["tiny/shards/card.json"] != after["tiny/shards/card.json"]
    after, before = (
        {name: content for name, content in files.items() if not name.startswith(card)} for files in (after, before)
    )
    assert after == before
    assert found_in(again / "out", taken.asked) == []


def test_stages_made_anew_do_not_bring_it_back(taken: Taken, again: Path) -> None:
    gone = taken.gone_images()
    for part in [*(again / STORE / "documents").glob("*.parquet"), *(again / STORE / "images/found").glob("*.parquet")]:
        part.unlink()
    run(again)
    assert found_in(again / "out", taken.asked) == []
    assert gone.isdisjoint(images_in(again))
    # Other settings make other bytes of the same images: they are known by the bytes that came, and by their URLs.
    carnac(again, "run", CHAIN[1], "--workers", "2", "--set", "inspect.store='original'")
    carnac(again, "run", CHAIN[0], WARCS, "--workers", "2", "--set", "extract.max_page_bytes=1000000")
    run(again)
    assert found_in(again / "out", taken.asked) == []
    assert gone.isdisjoint(images_in(again))
    kept = [row for row in all_rows(again / STORE / "images") if row["status"] == "kept"]
    assert len(kept) > 300
    assert any(CDN in row["url"] for row in kept)


def take_down_and_die(folder: Path, asked: Asked, num_renames: int) -> bool:
    """Take down in a process of its own that is killed before its last rename; say whether it was."""
    child = os.fork()
    if child == 0:
        renames = 0
        rename = storage.rename

        def counted(temporary: Path, final: Path) -> None:
            nonlocal renames
            renames += 1
            if renames > num_renames:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(temporary, final)

        storage.rename = counted
        entries = entries_of({"url": (*asked.pages, *asked.images), "domain": asked.domains}, [])
        entries = dataclasses.replace(entries, sha256s=(*asked.received, *asked.hashes))
        code = 1
        with contextlib.suppress(BaseException):
            code = len(take_down([folder], entries, dry_run=False, say=lambda _: None))
        os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def test_killed_again_and_again_it_ends_with_the_same_files(taken: Taken, tmp_path: Path) -> None:
    shutil.copytree(taken.before / "out", tmp_path / "out")
    kills = 0
    # In each folder it writes that it works there, the first time also the record; then seven files more each time.
    num_folders = sum(1 for path in (taken.after / "out").rglob("takedown.json"))
    while take_down_and_die(tmp_path / "out", taken.asked, num_folders + 7):
        kills += 1
    assert kills >= 5
    assert files_of(tmp_path / "out") == files_of(taken.after / "out")


def test_what_is_on_its_way_to_packs_and_shards_goes_too(taken: Taken, tmp_path: Path) -> None:
    shutil.copytree(taken.before, tmp_path / "run")
    folder = tmp_path / "run"
    shutil.rmtree(folder / STORE / "shards")
    keep_gathered = "import carnac.cli, carnac.jobs.shards as s; s.remove_gathered = lambda _: None; carnac.cli.main()"
    subprocess.run(
        [sys.executable, "-c", keep_gathered, "run", CHAIN[3]], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    carnac(folder, "show", "out", "--html", "out/page.html")
    images = folder / STORE / "images"
    with Spool(images / ".r0001-p0000-u0000-0123456789abcdef.spool") as spool:
        spool.add([({"url": own_image(6, 0)}, picture(60))])
    culprit = [{"record": own_image(6, 0), "reason": "too_slow", "detail": "1 s", "limit": 1.0}]
    (images / ".r0001-p0000-u0000-0123456789abcdef.culprits.json").write_text(json.dumps(culprit))
    assert list((folder / STORE / "shards/gather").rglob("*.images"))
    said = carnac(folder, "takedown", "out", "--list", str(taken.asked.list_file(tmp_path)))
    for name in ("page.html", ".spool", "shards/gather"):
        assert name in said
    assert found_in(folder / "out", taken.asked) == []
    assert not (folder / STORE / "shards/gather").exists()
    assert not list((folder / "out").rglob("*.spool"))
    assert taken.gone_images().isdisjoint(images_in(folder))
    payloads = [content for _, content in everything_in(folder / "out")]
    assert not any(picture(60)[-200:] in content for content in payloads)


def test_what_cannot_be_cleaned_is_told_at_the_end(taken: Taken, again: Path) -> None:
    (again / "out/notes.bin").write_bytes(b"\0\0see http://" + GONE[3].encode() + b"/x.jpg\0")
    said = carnac(again, "takedown", "out", "--domain", GONE[3], code=1)
    assert "notes.bin: names one of them" in said
    assert said.count("names one") == 1


def test_a_run_in_a_store_is_cleaned_like_one_on_a_disk(taken: Taken, bucket: Bucket, tmp_path: Path) -> None:
    for name, content in files_of(taken.before / "out").items():
        bucket.put(f"web/out/{name}", content)
    said = carnac(tmp_path, "takedown", f"{bucket.url}/web/out", "--list", str(taken.asked.list_file(tmp_path)))
    assert said.replace(f"{bucket.url}/web/", "") == taken.said
    left = {name.removeprefix("web/out/"): content for name, content in bucket.objects().items()}
    assert left == files_of(taken.after / "out")
