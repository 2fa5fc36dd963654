"""What goes wrong with a store ends in a sentence, in bounded time, and the next run mends it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_chain import below, files_of, run_chain, stages_of, write_recipes
from store_server import Bucket
from story_runs import RECIPES, carnac, command

# The chain's own recipes on 30 pages: what is tested here is how a run ends.
FEW = ("--limit", "30")


def crawl(folder: Path, output: str, warcs: str | None = None) -> str:
    """Write the crawl recipe and return its path."""
    return write_recipes(folder / "recipes", output, warcs)[0]


def test_a_server_that_is_down_is_named(mortal: Bucket, tmp_path: Path) -> None:
    recipe = crawl(tmp_path, f"{mortal.url}/out")
    mortal.server.kill()
    out = carnac(tmp_path, "run", recipe, *FEW, code=1)  # ends by itself: the helper waits five minutes at most
    assert f"{mortal.url}/out/documents: the store does not answer" in out
    assert mortal.server.url in out
    assert "units done" not in out


def test_a_server_killed_in_the_middle_of_a_run_ends_it_and_the_next_run_is_whole(
    mortal: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # who waits for a store that is gone? Not this test
    disk = tmp_path / "disk"
    disk.mkdir()
    run_chain(disk, write_recipes(disk / "recipes", "out"), *FEW)
    recipes = write_recipes(tmp_path / "recipes", f"{mortal.url}/out")
    process = command(tmp_path, "run", *recipes, *FEW)
    while sum("/out/images/" in line for line in mortal.requests() if line.startswith("PUT 200")) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    mortal.server.kill()
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 1, out
    assert "Traceback" not in out
    assert "the store does not answer" in out
    # It comes back, here with nothing in it: what it held is done again.
    mortal.server.start()
    again = Bucket(mortal.server, mortal.name)
    run_chain(tmp_path, recipes, *FEW)
    assert stages_of(below(again.objects(), "out/")) == stages_of(files_of(disk / "out"))


def test_a_bucket_that_is_not_there_is_named(bucket: Bucket, tmp_path: Path) -> None:
    out = carnac(tmp_path, "run", crawl(tmp_path, "s3://no-such-bucket/out"), *FEW, code=1)
    assert "s3://no-such-bucket/out/documents: there is no such bucket" in out
    recipe = crawl(tmp_path, "out", "s3://no-such-bucket/*.warc.gz")
    out = carnac(tmp_path, "run", recipe, *FEW, code=1)
    assert "s3://no-such-bucket/*.warc.gz: there is no bucket 'no-such-bucket'" in out


def test_without_credentials_a_run_says_which_are_wanted(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = crawl(tmp_path, f"{bucket.url}/out")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    out = carnac(tmp_path, "run", recipe, *FEW, code=1)
    assert "no credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID" in out


@pytest.mark.parametrize(("refused", "at"), [("^PUT .*parquet", "unit skimage"), ("^GET .*list-type", "documents")])
def test_what_is_denied_is_named_and_done_once_it_is_allowed(
    bucket: Bucket, tmp_path: Path, refused: str, at: str
) -> None:
    recipe = crawl(tmp_path, f"{bucket.url}/out")
    bucket.tell("refuse", refused)
    out = carnac(tmp_path, "run", recipe, *FEW, code=1)
    assert "the store refuses it (AccessDenied)" in out
    assert at in out
    bucket.tell("refuse", "")
    assert not any(name.endswith((".parquet", ".tmp")) for name in bucket.objects())
    assert "2 of 2 units done" in carnac(tmp_path, "run", recipe, *FEW)
    assert sum(name.endswith(".parquet") for name in bucket.objects()) == 2


@pytest.mark.parametrize("url", ["memory://out", "ftp://host/out", "s3://", "s3://bucket/a/../b", "file://host/out"])
def test_a_place_that_cannot_be_is_a_mistake_of_the_recipe(tmp_path: Path, url: str) -> None:
    out = carnac(tmp_path, "run", crawl(tmp_path, url), code=2)
    assert "01-crawl.toml:" in out
    assert "output: " in out
    assert "wanted" in out


def test_without_its_library_a_store_names_the_extra(tmp_path: Path) -> None:
    hook = (
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 's3fs': raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
        "from carnac.cli import main\n"
        "main()\n"
    )
    recipe = crawl(tmp_path, "s3://bucket/out")
    done = subprocess.run(
        [sys.executable, "-c", hook, "run", recipe],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'carnac[s3]'" in done.stderr
    assert "Traceback" not in done.stderr
    disk = subprocess.run(
        [sys.executable, "-c", hook, "run", crawl(tmp_path, "out"), *FEW, "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert disk.returncode == 0, disk.stderr
    assert RECIPES.is_dir()
