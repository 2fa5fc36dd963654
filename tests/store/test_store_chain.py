"""Crawl to shards with its folders in a store: the same output as on a disk, whatever is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from store_chain import below, files_of, packs_of, run_chain, stages_of, write_recipes
from store_server import Bucket
from story_runs import DATA, RECIPES, command, kill_tree


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the chain, run on a disk."""
    folder = tmp_path_factory.mktemp("disk")
    run_chain(folder, write_recipes(folder / "recipes", "out"))
    return files_of(folder / "out")


def test_the_chain_in_a_store_gives_the_files_of_the_chain_on_a_disk(
    bucket: Bucket, tmp_path: Path, on_disk: dict[str, bytes]
) -> None:
    recipes = write_recipes(tmp_path / "recipes", f"{bucket.url}/a run/\u00e9t\u00e9")
    run_chain(tmp_path, recipes)
    files = below(bucket.objects(), "a run/\u00e9t\u00e9/")
    # Names hold the keys of the units, so they are those of the same work; nothing else is there.
    assert files.keys() == on_disk.keys()
    assert len(stages_of(files)) >= 9
    assert stages_of(files) == stages_of(on_disk)
    packs = [name for name in files if name.endswith(".tar")]
    assert len(packs) == 2
    assert [files[name] for name in packs] == [on_disk[name] for name in packs]
    assert bucket.uploads() == []
    before = len(bucket.requests("begun"))
    out = run_chain(tmp_path, recipes)
    assert "units done" not in out
    again = [line for line in bucket.requests("begun")[before:] if line.split(" ")[0] not in ("GET", "HEAD")]
    assert again == [], "a run with nothing to do changes nothing"


def test_archives_in_the_store_give_the_same_samples(bucket: Bucket, tmp_path: Path, on_disk: dict[str, bytes]) -> None:
    for path in sorted((RECIPES / "data").glob("*.warc.gz")):
        bucket.put(f"crawl/{path.name}", path.read_bytes())
    url = f"{bucket.url}/crawl/skimage-*.warc.gz"
    out = run_chain(tmp_path, write_recipes(tmp_path / "recipes", f"{bucket.url}/out", url))
    assert "s3://" not in out.replace(f"{bucket.url}/", "")
    files = below(bucket.objects(), "out/")
    got, wanted = stages_of(files), stages_of(on_disk)
    # An archive in a store is known by its ETag: other keys, so other names of packs, which stand in the image tables.
    for table in ("images", "images/joined", "images/found"):
        del got[f"{table}/manifest.json"], wanted[f"{table}/manifest.json"]
    assert got == wanted
    assert packs_of(files) == packs_of(on_disk)


def test_the_chain_survives_kills(bucket: Bucket, tmp_path: Path, on_disk: dict[str, bytes]) -> None:
    recipes = write_recipes(tmp_path / "recipes", f"{bucket.url}/out")

    def has_put(number: int) -> Callable[[], bool]:
        before = len(puts(bucket))
        return lambda: len(puts(bucket)) - before >= number

    killed = []
    # PUTs of a run that goes on where the last one died: what a stage is at, its packs and parts, its manifest. Slow
    # ones are under way when the kill comes, quick ones are done or not.
    for number, seconds in ((2, "0.2"), (4, ""), (5, "0.2"), (8, ""), (12, "0.2")):
        bucket.tell("slow", seconds)
        killed.append(kill_tree(command(tmp_path, "run", *recipes, "--workers", "2"), has_put(number)))
    bucket.tell("slow", "")
    assert all(killed)
    run_chain(tmp_path, recipes)
    files = below(bucket.objects(), "out/")
    assert files.keys() == on_disk.keys()
    assert stages_of(files) == stages_of(on_disk)
    assert packs_of(files) == packs_of(on_disk)
    assert bucket.uploads() == []


def puts(bucket: Bucket) -> list[str]:
    """Return the uploads begun."""
    return [line for line in bucket.requests("begun") if line.startswith("PUT ") and "/out/" in line]


def test_what_needs_a_disk_says_so_before_anything_runs(bucket: Bucket, tmp_path: Path) -> None:
    recipe = tmp_path / "train.toml"
    recipe.write_text((RECIPES / "05-train.toml").read_text().replace('"out/tiny', f'"{bucket.url}/out'))
    out = run_chain(tmp_path, [*write_recipes(tmp_path / "recipes", f"{bucket.url}/out"), str(recipe)], code=2)
    assert f"{bucket.url}/out/model: must lie on a disk, not in a store" in out
    assert f"{bucket.url}/out/plan: must lie on a disk, not in a store" in out
    assert bucket.objects() == {}
    assert len(DATA) == 4
    assert not (tmp_path / "s3:").exists()
