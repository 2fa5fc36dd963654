"""What `carnac show` says of the images of a run: states, hosts, rounds, sizes, what another try would ask for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import pytest
from report_images import Written, publish, write_found, write_parts, write_rounds, write_table

from carnac.core.schema import IMAGES
from carnac.engine.state import Pulse, RunState, new_state, write_state
from carnac.engine.unit import Stage
from carnac.report import images_rounds, images_steps, images_table
from carnac.report.folders import STEP_UNIT
from carnac.report.images import read_images
from carnac.report.images_facts import facts
from carnac.report.images_table import read_image_table
from carnac.report.story import STEPS_OF_IMAGES, STEPS_OF_SHARDS, read_story
from carnac.report.text import describe


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    write_found(run, write_table(run / "images")[:20])
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "run")


def cells(folder: Path, title: str) -> list[tuple[str, ...]]:
    """Return the rows of a table of the only folder of images in `folder`."""
    (found,) = (each for each in read_story(folder).folders if each.stage == "images")
    return [row for table in facts(read_images(found)).tables if table.title == title for row in table.rows]


def hosts(folder: Path, urls: Iterable[str]) -> list[tuple[str, int]]:
    """Return the largest hosts of a table of `urls`."""
    rows = [{"url": url, "status": "kept"} for url in urls]
    units = write_parts(folder, "images", IMAGES, [Written(name="images-p0000", rows=rows)])
    publish(folder, "images", units)
    (found,) = read_story(folder).find("images")
    return [(host.name, host.number) for host in read_image_table(found).largest_hosts]


# -- a folder alone


def test_every_state_has_its_number_its_share_its_bytes_and_its_retry(whole: Path) -> None:
    rows = cells(whole / "images", "states")
    assert [row[:3] for row in rows] == [
        ("kept", "20", "52.6 %"),
        ("dropped http_404", "6", "15.8 %"),
        ("dropped timeout", "3", "7.89 %"),
        ("dropped robots_forbidden", "2", "5.26 %"),
        ("dropped truncated_image", "2", "5.26 %"),
        ("dropped connection_failed", "1", "2.63 %"),
        ("deferred retry_after", "4", "10.5 %"),
    ]
    # Of the cut images, which came from an archive, nobody asks again.
    assert [row[5] for row in rows] == ["", "failed", "failed, timeouts", "", "", "failed", "deferred"]
    assert rows[1][3] == "0.01"


def test_the_headline_says_what_was_kept_and_why_the_rest_was_not(whole: Path) -> None:
    text = " ".join(describe(whole).split())
    assert "images: 38 URLs: 20 kept (52.6 %), 14 dropped (6 http_404, 3 timeout, 2 robots_forbidden, " in text
    assert "4 deferred (4 retry_after)" in text
    assert "hosts with most URLs" not in text  # that is told of the folder alone
    assert describe(whole, brief=True).startswith("images: 38 URLs: 20 kept")


def test_what_another_try_would_ask_for_is_counted(whole: Path) -> None:
    text = describe(whole / "images")
    assert "again, with --retry: failed 10, timeouts 3, deferred 4, all 16 URLs: carnac run RECIPE --retry fai" in text


def test_the_command_names_the_recipe_that_lies_there(run: Path) -> None:
    recipe = run / "images" / "recipe.toml"
    recipe.write_text('job = "images"\n')
    (found,) = read_story(run / "images").folders
    assert read_images(found).command == f"carnac run {recipe} --retry"


def test_hosts_are_those_with_most_urls_and_those_with_most_failures(whole: Path) -> None:
    largest = cells(whole / "images", "hosts with most URLs")
    assert [(*row[:5], row[6]) for row in largest[:3]] == [
        ("h1.example", "10", "4", "6", "", "http_404"),
        ("h2.example", "6", "4", "2", "", "robots_forbidden"),
        ("busy.example", "4", "", "", "4", "retry_after"),
    ]
    failing = cells(whole / "images", "hosts with most URLs that gave no image")
    assert [row[0] for row in failing[:4]] == ["h1.example", "busy.example", "slow.example", "h2.example"]


def test_a_host_is_one_however_its_urls_are_written(tmp_path: Path) -> None:
    urls = [
        "http://h.example/a",
        "https://H.EXAMPLE:8080/b",
        "http://user:word@h.example?c",
        "http://h.example.#d",
        "http://[2001:db8::1]:80/e",
        "data:image/png;base64,AAAA",
        "//h.example/f",
    ]
    assert hosts(tmp_path, urls) == [("h.example", 4), ("", 2), ("[2001:db8::1]", 1)]


def test_formats_and_sizes_are_those_of_kept_images(whole: Path) -> None:
    assert [row[:3] for row in cells(whole / "images", "formats")] == [("image/jpeg", "20", "100 %")]
    assert [row[:2] for row in cells(whole / "images", "sizes")] == [
        ("64 to 127", "5"),
        ("128 to 255", "5"),
        ("256 to 511", "10"),
    ]
    assert [row[0] for row in cells(whole / "images", "bytes")] == ["0 to 2", "3 to 9"]


def test_rounds_tell_what_was_asked_and_what_came_of_it(whole: Path) -> None:
    assert [(*row[:10], row[11]) for row in cells(whole / "images", "rounds of fetching")] == [
        ("1", "2", "40", "10", "18", "8", "4", "7", "62", "8", ""),
        ("2", "1", "2", "2", "", "", "", "", "2", "", "timeouts"),
    ]


def test_of_many_units_some_are_looked_at(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_rounds, "MAX_UNITS", 2)
    assert "fetching: 3 units, of which 2 are looked at" in describe(whole / "images")


def test_what_fetching_and_reading_archives_lost_is_told(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = describe(whole)
    assert "archived (images): 1 records lost\n  second_record_of_url: 1\n    a.warc.gz@7  again" in text
    assert "fetched (images): 1 records lost\n  out_of_memory: 1\n    http://h1.example/9.jpg  900 MB" in text
    monkeypatch.setattr(images_steps, "MAX_FOOTERS", 2)
    assert "fetched (images), 2 of its 3 units: 1 records lost" in describe(whole)


def test_samples_are_of_different_hosts(tmp_path: Path) -> None:
    rows = [
        {"url": f"http://h{n // 3}.example/{n}", "status": "dropped", "reason": "timeout", "detail": f"after {n} s"}
        for n in range(12)
    ]
    units = write_parts(tmp_path, "images", IMAGES, [Written(name="images-p0000", rows=rows)])
    publish(tmp_path, "images", units)
    (manifest,) = read_story(tmp_path).find("images")
    (state,) = read_image_table(manifest).states
    assert [(sample.url, sample.detail) for sample in state.samples] == [
        (f"http://h{n}.example/{3 * n}", f"after {3 * n} s") for n in range(3)
    ]


# -- bounds


def test_a_large_table_is_looked_at_in_part_and_says_so(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_table, "MAX_ROWS", 12)
    text = describe(whole / "images")
    assert "images: 38 URLs: 20 kept" in text
    assert "states, in the first 12 of 38 URLs" in text


def test_of_more_hosts_than_are_kept_in_mind_the_large_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_table, "MAX_HOSTS", 50)
    monkeypatch.setattr(images_table, "ROWS_AT_ONCE", 64)
    small = [f"http://small{n}.example/a" for n in range(400)]
    large = [f"http://large{n % 10}.example/{n}" for n in range(400)]
    found = hosts(tmp_path, [url for pair in zip(small, large, strict=True) for url in pair])
    assert found == [(f"large{n}.example", 40) for n in range(10)]


def test_a_table_of_an_older_carnac_is_told_too(tmp_path: Path) -> None:
    older = IMAGES
    for name in ("detail", "location", "rounds", "received_bytes", "received_sha256", "phash"):
        older = older.remove(older.get_field_index(name))
    rows = [{"url": "http://h.example/a", "status": "kept", "length": 5_000_000, "width": 9, "height": 3}]
    units = write_parts(tmp_path, "images", older, [Written(name="~rest", rows=rows, counts={"kept": 1})])
    publish(tmp_path, "images", units)
    text = describe(tmp_path)
    assert "images: 1 URLs: 1 kept (100 %)" in text
    assert "stored: 5.00 MB" in text
    assert "--retry:" not in text  # nobody was asked


# -- inner steps


def test_the_names_of_steps_and_their_units_are_those_of_the_jobs() -> None:
    names = ("archives", "fetch", "found", "plan", "scores", "wanted")
    modules = [*(import_module(f"carnac.jobs.images_{name}") for name in names)]
    shards = [import_module(f"carnac.jobs.shards_{name}") for name in ("card", "gather")]
    images, others = (
        {value.name for module in group for value in vars(module).values() if isinstance(value, Stage)}
        for group in (modules, shards)
    )
    assert images - {"images"} == set(STEPS_OF_IMAGES)
    assert others - {"shards"} == set(STEPS_OF_SHARDS)
    for name in ("r0001-p0000-u0000", "r9999-p1023-u9999", "archived~a.warc", "archived~b~2"):
        assert STEP_UNIT.fullmatch(name)
    for name in ("images-p0000", "~rest", "a~2", "00000-a"):
        assert not STEP_UNIT.fullmatch(name)


def test_steps_do_not_clutter_a_story_but_are_shown_by_name(whole: Path) -> None:
    assert [folder.name for folder in read_story(whole).folders] == ["documents", "curated/masks/rules", "images"]
    assert [folder.name for folder in read_story(whole / "images").folders] == ["."]
    assert describe(whole / "images" / "found").splitlines()[1].split()[:3] == ["found", ".", "20"]


def dead(stage: str, num_units: int, num_done: int) -> RunState:
    """Return the last word of a run whose process is gone."""
    state = new_state(stage, num_units, num_done)
    return RunState(**{**{name: getattr(state, name) for name in RunState.__slots__}, "process_started": 1.0})


def test_a_step_in_which_a_run_stopped_is_told(run: Path) -> None:
    write_state(run / "images" / "urls", dead("urls", 8, 3))
    text = describe(run)
    assert re.search(r"^urls +images/urls +stopped", text, re.MULTILINE)
    assert "urls (images/urls): stopped: process" in text
    assert "3 of 8 units done" in text


def test_a_run_that_still_fetches_tells_its_rounds(tmp_path: Path) -> None:
    write_rounds(tmp_path / "images")
    Pulse(tmp_path / "images", new_state("fetched", 40, 3))
    text = describe(tmp_path)
    assert re.search(r"^images +images +running +0 ", text, re.MULTILINE)
    assert "images: running the step fetched: process" in text
    assert "3 of 40 units done" in text
    alone = describe(tmp_path / "images")
    assert "images: no URL has its final state yet" in alone
    assert [row[:4] for row in cells(tmp_path / "images", "rounds of fetching")] == [
        ("1", "2", "40", "10"),
        ("2", "1", "2", "2"),
    ]


def test_a_run_that_was_killed_before_its_table_is_told(run: Path) -> None:
    (run / "images" / "manifest.json").unlink()
    for part in (run / "images").glob("images-*.parquet"):
        part.unlink()
    write_state(run / "images", dead("fetched", 40, 3))
    (found,) = (each for each in read_story(run).folders if each.stage == "images")
    assert (found.status, found.num_parts, len(found.steps), found.num_done) == ("stopped", 0, 5, 3)
    assert "images: stopped at the step fetched: process" in describe(run)
