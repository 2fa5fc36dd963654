"""Shards from packs: the samples that a random read for each image gives, made without one."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from jobs_model import DoneHere, runner
from jobs_shards_inputs import HELD_OUT, Size, expected_samples, rows_of, write_inputs, write_parts
from story_runs import carnac, command, digests

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.core.schema import DOCUMENTS, FOUND, REPEATS
from carnac.core.taken_down import MARK, RECORD, TakenDown
from carnac.engine.buckets import bucket_of
from carnac.engine.manifest import read_manifest
from carnac.engine.part import Part
from carnac.engine.run import EarlyEnd
from carnac.engine.storage import remove
from carnac.engine.unit import Stage, Unit
from carnac.jobs import shards, shards_gather
from carnac.jobs.shards_images import Segment
from carnac.shards.settings import GatherSettings, SplitSettings
from carnac.shards.split import SPLITS

SIZE = Size(parts=3, documents=60, image_bytes=8000)
LEFT = {"train", "heldout", "recipe.toml", "card", "card.json", "CARD.md"}


def recipe_of(folder: Path, **changes: Any) -> shards.ShardsRecipe:
    fields: dict[str, Any] = {
        "job": "shards",
        **{name: folder / name for name in ("documents", "images", "masks")},
        "output": folder / "shards",
        "split": SplitSettings(held_out=HELD_OUT),
        "gather": GatherSettings(group_mb=1, buffer_mb=1),
    }
    return shards.ShardsRecipe(**{**fields, **changes})


def run(folder: Path, **changes: Any) -> None:
    shards.run(recipe_of(folder, **changes), runner()[0])


def check_samples(folder: Path, limit: int | None = None) -> None:
    for split in SPLITS:
        assert rows_of(folder / "shards" / split) == expected_samples(folder, split, limit)


@pytest.fixture
def inputs(tmp_path: Path, done: DoneHere) -> Path:
    """A folder with what the job reads."""
    write_inputs(tmp_path, SIZE)
    return tmp_path


def test_samples_are_those_of_random_reads(inputs: Path) -> None:
    assert shards_gather.num_groups_of(inputs / "images" / "packs", 1_000_000) == 8
    run(inputs)
    check_samples(inputs)
    images = [image for row in rows_of(inputs / "shards" / "train")["train-crawl-00001"] for image in row["images"]]
    assert sum(image is not None for image in images) > 50


def test_what_was_gathered_is_gone_when_both_splits_are_done_and_not_made_again(inputs: Path, done: DoneHere) -> None:
    run(inputs)
    assert sum(name.startswith("gather/") for name in done.units) == 8
    assert {path.name for path in (inputs / "shards").iterdir()} == LEFT
    done.units.clear()
    run(inputs)
    assert done.units == []


@pytest.mark.parametrize("number", [0, 1, 5, 11])
def test_a_run_that_ends_while_it_cleans_up_is_cleaned_up_after(
    inputs: Path, done: DoneHere, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    left = number

    def remove_some(place: Place) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        remove(place)

    with monkeypatch.context() as patch:
        patch.setattr(shards_gather, "remove", remove_some)
        with pytest.raises(KeyboardInterrupt):
            run(inputs)
    assert (inputs / "shards" / "gather").exists()
    assert (inputs / "shards" / "gather" / "routes" / "manifest.json").exists() == (number == 0)
    done.units.clear()
    run(inputs)
    assert done.units == []
    assert {path.name for path in (inputs / "shards").iterdir()} == LEFT
    check_samples(inputs)


def test_what_is_not_ours_stays(inputs: Path) -> None:
    (inputs / "shards" / "gather").mkdir(parents=True)
    (inputs / "shards" / "gather" / "notes.txt").write_text("mine")
    run(inputs)
    assert [path.name for path in (inputs / "shards" / "gather").iterdir()] == ["notes.txt"]


def test_a_lost_shard_costs_only_the_packs_of_its_documents(tmp_path: Path, done: DoneHere) -> None:
    write_inputs(tmp_path, Size(documents=6, packs=60))
    run(tmp_path)
    shard = next((tmp_path / "shards" / "train").glob("train-crawl-00001-*.parquet"))
    before = digests(tmp_path / "shards")
    shard.unlink()
    needed = {row["pack"] for row in rows_of(tmp_path / "images" / "found")["crawl-00001"]}
    needless = [pack for pack in (tmp_path / "images" / "packs").iterdir() if pack.name not in needed]
    assert len(needless) > 20
    for pack in needless:
        pack.unlink()
    done.units.clear()
    run(tmp_path)
    assert done.units == ["routes/crawl-00001", "gather/group-00", "shards/train-crawl-00001"]
    assert digests(tmp_path / "shards") == before


def test_each_pack_is_read_once_front_to_back(inputs: Path, done: DoneHere) -> None:
    """Packs as pipes: what seeks in one fails, and who opens one again waits for ever."""
    packs = inputs / "images" / "packs"
    fed: list[str] = []
    groups = shards_gather.num_groups_of(packs, 1_000_000)

    def feed(pipe: Path, content: bytes) -> None:
        pipe.write_bytes(content)
        fed.append(pipe.name)

    expected = {split: expected_samples(inputs, split) for split in SPLITS}
    threads = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_gather, "num_groups_of", lambda *_: groups)
        for pack in sorted(packs.iterdir()):
            content = pack.read_bytes()
            pack.unlink()
            os.mkfifo(pack)
            threads.append(threading.Thread(target=feed, args=(pack, content), daemon=True))
            threads[-1].start()
        run(inputs)
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(fed) == sorted(pack.name for pack in packs.iterdir())
    assert {split: rows_of(inputs / "shards" / split) for split in SPLITS} == expected


def test_bytes_read_are_those_of_the_packs(inputs: Path, done: DoneHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own count of what this process reads while a group is gathered."""
    read: dict[str, int] = {}
    gather_images = shards_gather.GATHER_STAGE.work
    assert gather_images is not None

    def counted(unit: Unit, part: Part) -> None:
        before = _bytes_read()
        gather_images(unit, part)
        read[unit.name] = _bytes_read() - before

    write_inputs(inputs / "large", Size(parts=2, documents=200, packs=6, image_bytes=40_000))
    stage = shards_gather.GATHER_STAGE
    monkeypatch.setattr(shards_gather, "GATHER_STAGE", _with_work(stage, counted))
    run(inputs / "large", gather=GatherSettings(group_mb=20))
    packs = {path.name: path.stat().st_size for path in (inputs / "large" / "images" / "packs").iterdir()}
    assert len(read) > 1
    assert sum(packs.values()) > 50_000_000
    groups = {name: bucket_of(name, len(read)) for name in packs}
    for number in range(len(read)):
        size = sum(packs[name] for name, group in groups.items() if group == number)
        assert read[f"group-{number:02d}"] <= 1.05 * size + 200_000  # routes, the sources of modules


def _bytes_read() -> int:
    (line,) = (line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar:"))
    return int(line.split()[1])


def _with_work(stage: Stage, work: Callable[[Unit, Part], None]) -> Stage:
    return dataclasses.replace(stage, work=work)


def test_a_limit_counts_documents_of_a_split(inputs: Path) -> None:
    run(inputs, limit=3)
    check_samples(inputs, limit=3)
    assert all(len(rows) <= 3 for split in SPLITS for rows in rows_of(inputs / "shards" / split).values())


def test_copies_follow_their_root(inputs: Path) -> None:
    kept = {row["id"] for row in rows_of(inputs / "masks")["crawl-00000"] if row["keep"]}
    run(inputs)
    heldout = [row["id"] for row in rows_of(inputs / "shards" / "heldout")["heldout-crawl-00000"]]
    train = [row["id"] for row in rows_of(inputs / "shards" / "train")["train-crawl-00000"]]
    assert {*heldout, *train} <= kept
    # A copy by text of a copy by URL of what is held out.
    copies = [(train[0], "elsewhere"), ("elsewhere", heldout[0])]
    rows = [{"kind": "text", "key": "k", "id": a, "unit": "u", "row": 0, "root": b} for a, b in copies]
    write_parts(inputs / "repeats", "repeats", REPEATS, {"text-00000": rows})
    run(inputs, repeats=inputs / "repeats")
    now = [row["id"] for row in rows_of(inputs / "shards" / "heldout")["heldout-crawl-00000"]]
    assert set(now) == {*heldout, train[0]}


def test_a_damaged_image_costs_its_documents_alone_and_can_be_tried_again(tmp_path: Path) -> None:
    write_inputs(tmp_path, SIZE)
    expected = expected_samples(tmp_path, "train")["train-crawl-00000"]
    victim = next(row for row in expected if any(row["images"]))
    sha256 = next(image["path"] for image in victim["images"] if image is not None).partition(".")[0]
    found = next(row for row in rows_of(tmp_path / "images" / "found")["crawl-00000"] if row["sha256"] == sha256)
    with (tmp_path / "images" / "packs" / found["pack"]).open("r+b") as pack:
        pack.seek(found["offset"] + 7)
        pack.write(b"\0\0\0")
    out = carnac(tmp_path, "run", "shards.toml")
    assert "records lost" in out or "record lost" in out
    assert "damaged_image" in out
    rows = rows_of(tmp_path / "shards" / "train")["train-crawl-00000"]
    assert rows == [row for row in expected if not any(image and sha256 in image["path"] for image in row["images"])]
    lost = read_manifest(tmp_path / "shards" / "train").ledgers()[0].quarantine
    assert victim["id"] in {record.record.partition("@")[0] for record in lost}
    assert not (tmp_path / "shards" / "gather").exists()
    record = next(record.record for record in lost if record.record.startswith(victim["id"]))
    out, _ = command(tmp_path, "run", "shards.toml", "--record", record).communicate()
    assert f"{record}: lost by shards" in out
    assert "RecordError: damaged_image" in out  # read from the pack itself: the gathered images are gone


def test_a_pack_cut_short_is_a_sentence_and_what_is_done_is_kept(tmp_path: Path) -> None:
    write_inputs(tmp_path, SIZE)
    pack = max((tmp_path / "images" / "packs").iterdir(), key=lambda path: path.stat().st_size)
    content = pack.read_bytes()
    pack.write_bytes(content[: len(content) // 2])
    out = carnac(tmp_path, "run", "shards.toml", code=1)
    assert f"{pack.name}: ends at" in out
    assert "remove the images folder and run its recipe again" in out
    pack.write_bytes(content)
    carnac(tmp_path, "run", "shards.toml")
    check_samples(tmp_path)


def test_images_found_for_other_documents_are_refused(inputs: Path) -> None:
    found = rows_of(inputs / "images" / "found")
    for change in ({"id": "f" * 32}, {"row": 1000}, {"block": 1000}):
        changed = {unit: [{**row} for row in rows] for unit, rows in found.items()}
        changed["crawl-00001"][-1] |= change
        write_parts(inputs / "images" / "found", "found", FOUND, changed)
        with pytest.raises(InputError, match=r"other documents\. Run the recipe that writes the images"):
            run(inputs)


def test_a_dry_run_says_what_is_missing_and_makes_nothing(inputs: Path) -> None:
    doing, out = runner(dry_run=True)
    with pytest.raises(EarlyEnd):
        shards.run(recipe_of(inputs), doing)
    assert "shards: 3 units, 0 done, 3 to do" in out.getvalue()
    assert not (inputs / "shards").exists()


def test_what_was_taken_down_is_in_no_new_shard(inputs: Path) -> None:
    expected = {split: expected_samples(inputs, split) for split in SPLITS}
    train = expected["train"]["train-crawl-00000"]
    images = [image["path"][:64] for row in train for image in row["images"] if image is not None]
    urls = [url for row in train[5:] for url in json.loads(row["metadata"])["image_urls"] if url is not None]
    page = json.loads(train[-1]["metadata"])["url"]
    record = TakenDown.of(urls=[urls[0], page], images=[images[0]])
    (inputs / "images" / RECORD).write_bytes(record.to_json())
    run(inputs)
    rows = rows_of(inputs / "shards" / "train")["train-crawl-00000"]
    assert [row["id"] for row in rows] == [row["id"] for row in train[:-1]]
    metadata = json.dumps([row["metadata"] for row in rows])
    assert urls[0] not in metadata
    assert page not in metadata
    assert images[0] not in {image["path"][:64] for row in rows for image in row["images"] if image is not None}
    assert len(images) > len([image for row in rows for image in row["images"] if image is not None])


def test_a_take_down_between_gathering_and_shards_gathers_anew(
    inputs: Path, done: DoneHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = expected_samples(inputs, "train")["train-crawl-00000"]

    def stop(_: Unit, __: Part) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shards, "STAGE", _with_work(shards.STAGE, stop))
        with pytest.raises(KeyboardInterrupt):
            run(inputs)
    before = [name for name in done.units if name.startswith("gather/")]
    image = next(image for row in expected for image in row["images"] if image is not None)
    (inputs / "shards" / RECORD).write_bytes(TakenDown.of(images=[image["path"][:64]]).to_json())
    done.units.clear()
    run(inputs)
    assert [name for name in done.units if name.startswith("gather/")] == before
    rows = rows_of(inputs / "shards" / "train")["train-crawl-00000"]
    assert [row["id"] for row in rows] == [row["id"] for row in expected]
    taken = [shown for row in rows for shown in row["images"] if shown is not None]
    wanted = [shown for row in expected for shown in row["images"] if shown is not None]
    assert taken == [shown for shown in wanted if shown != image]


def test_a_page_that_a_take_down_blanked_gives_no_sample(inputs: Path) -> None:
    """The record may lie elsewhere: what is left of a row says enough."""
    documents = next((inputs / "documents").glob("crawl-00000-*.parquet"))
    table = pq.read_table(documents).to_pylist()
    expected = expected_samples(inputs, "train")["train-crawl-00000"]
    victim = next(row for row in table if row["id"] == expected[0]["id"])
    victim["url"] = MARK
    rows = {**rows_of(inputs / "documents"), "crawl-00000": table}
    write_parts(inputs / "documents", "documents", DOCUMENTS, rows)
    found = rows_of(inputs / "images" / "found")
    for row in found["crawl-00000"]:
        if row["id"] == victim["id"]:
            row |= {"url": MARK, "sha256": None, "pack": None, "offset": None, "length": None}
    write_parts(inputs / "images" / "found", "found", FOUND, found)
    run(inputs)
    assert rows_of(inputs / "shards" / "train")["train-crawl-00000"] == expected[1:]


def test_a_segment_is_read_forward_in_any_steps(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    (tmp_path / "file").write_bytes(content)
    for buffer_bytes in (1, 100, 100_000):
        segment = Segment(tmp_path / "file", 300, 9000, buffer_bytes)
        read = [segment.take(length) for length in (0, 1, 99, 250, 8350)]
        assert b"".join(read) == content[300:9000]
        with pytest.raises(InputError, match="which the next run makes again"):
            segment.take(1)
    with pytest.raises(InputError, match="cannot be read"):
        Segment(tmp_path / "none", 0, 10, 10).take(1)
