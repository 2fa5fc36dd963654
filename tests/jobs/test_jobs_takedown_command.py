"""What the command refuses, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from jobs_takedown import GONE, STORE, cdn_image, rows_by_part, run, write_crawl
from story_runs import carnac

from carnac.engine.state import new_state, write_state


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the four data recipes; not to be changed."""
    folder = tmp_path_factory.mktemp("crawled")
    write_crawl(folder)
    run(folder)
    return folder


def test_a_url_that_only_begins_alike_stays(crawled: Path, tmp_path: Path) -> None:
    shutil.copytree(crawled / "out", tmp_path / "out")
    carnac(tmp_path, "takedown", "out", "--url", cdn_image(7, 1).partition("?")[0], "--domain", "ite7.example")
    before, after = rows_by_part(crawled / "out"), rows_by_part(tmp_path / "out")
    assert after == before


def test_a_run_that_works_there_is_waited_for(crawled: Path, tmp_path: Path) -> None:
    shutil.copytree(crawled / "out", tmp_path / "out")
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        state = dataclasses.replace(
            new_state("images", 10, 3), process=other.pid, process_started=psutil.Process(other.pid).create_time()
        )
        write_state(tmp_path / STORE / "images", state)
        said = carnac(tmp_path, "takedown", "out", "--domain", GONE[0], code=1)
        assert "another run works here" in said
        assert not list((tmp_path / "out").rglob("takedown.json"))
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "nothing to take down"),
        (("--url", "ftp://a.test/x"), "wanted a URL"),
        (("--url", "a.test/x"), "wanted a URL"),
        (("--domain", "https://a.test/"), "wanted a domain"),
        (("--domain", "com"), "wanted a domain"),
        (("--sha256", "ab" * 31), "64 hex digits"),
        (("--list", "none.txt"), "cannot be read"),
        (("--list", "bad.txt"), "bad.txt, line 2"),
    ],
)
def test_a_mistake_ends_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], wanted: str) -> None:
    (tmp_path / "bad.txt").write_text("a.test\nurl nothing at all\n")
    (tmp_path / "out").mkdir()
    assert wanted in carnac(tmp_path, "takedown", "out", *arguments, code=1)


def test_a_folder_that_carnac_did_not_write_is_refused(tmp_path: Path) -> None:
    assert "holds nothing that carnac wrote" in carnac(tmp_path, "takedown", ".", "--domain", "a.test", code=1)
