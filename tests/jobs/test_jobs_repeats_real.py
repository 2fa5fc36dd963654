"""The search for repeats on real pages, in real processes: held to a scan of the pages, and killed midway."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from jobs_repeats import Crawl, Page, Scan, name_of
from story_runs import RECIPES, all_rows, carnac, command, digests, kill_tree

from carnac.curate.repeats.settings import RepeatKind
from carnac.curate.texts.digests import normalise
from carnac.engine.manifest import read_manifest
from carnac.engine.tables import read_table

REPEATS_RECIPE = """
job = "curate"
documents = "out/tiny/documents"
output = "curated"
max_memory_mb = 100

[[pass]]
name = "repeats"
kind = "repeats"
by = ["paragraph", "image_url", "image_in_document", "url", "text", "image_set"]
keep = "latest"
max_paragraph_copies = 2
max_image_copies = 2
"""
BY: tuple[RepeatKind, ...] = ("paragraph", "image_url", "image_in_document", "url", "text", "image_set")


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crawl of the tiny recipe's archives, one of them twice: each of its pages repeats another."""
    folder = tmp_path_factory.mktemp("crawled")
    archives = sorted((RECIPES / "data").glob("*.warc.gz"))
    for archive in archives:
        shutil.copy(archive, folder)
    shutil.copy(archives[0], folder / "again.warc.gz")
    carnac(folder, "run", str(RECIPES / "01-crawl.toml"), "--set", "warcs=['*.warc.gz']")
    (folder / "repeats.toml").write_text(REPEATS_RECIPE)
    (folder / "two.toml").write_text(re.sub(r"(?m)^by = .*", 'by = ["paragraph", "url"]', REPEATS_RECIPE))
    return folder


def ids_of(folder: Path) -> dict[str, list[str]]:
    """Return the ids of the documents of every part."""
    parts = read_manifest(folder / "out/tiny/documents").parts
    return {entry.unit: read_table(entry.path, ["id"])["id"].to_pylist() for entry in parts}


def real_pages(folder: Path) -> Crawl:
    """Read the crawl as a scan sees it: texts by what makes them equal, URLs without fragments."""
    crawl: Crawl = {}
    for entry in read_manifest(folder / "out/tiny/documents").parts:
        rows = read_table(entry.path, ["url", "fetched_at", "texts", "images"]).to_pylist()
        crawl[entry.unit] = [
            Page(
                row["url"].partition("#")[0],
                tuple(
                    (image.partition("#")[0], None) if text is None else normalise(text)
                    for text, image in zip(row["texts"], row["images"], strict=True)
                ),
                row["fetched_at"],
            )
            for row in rows
        ]
    return crawl


def test_on_real_pages_small_buckets_find_what_one_does_and_what_a_scan_of_the_pages_finds(crawled: Path) -> None:
    carnac(crawled, "run", "repeats.toml", "--set", "output='one'")
    carnac(crawled, "run", "repeats.toml", "--set", "output='many'", "--set", "rows_per_bucket=300", "--workers", "2")
    one, many = digests(crawled / "one"), digests(crawled / "many")
    assert len(many["repeats/repeats"]) > len(one["repeats/repeats"])
    assert many["masks/repeats"] == one["masks/repeats"]
    found = all_rows(crawled / "many/repeats/repeats")
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, all_rows(crawled / "one/repeats/repeats")))
    crawl = real_pages(crawled)
    places = {(row["kind"], row["unit"], row["row"], row["block"]) for row in found}
    expected = Scan(crawl).search(BY, "latest")
    assert places == {place[:4] for place in expected}
    names = {name_of(unit, row): name for unit, ids in ids_of(crawled).items() for row, name in enumerate(ids)}
    roots = {place[:4]: names.get(str(place[4])) for place in expected}
    assert {place: root for place, root in roots.items() if root} == {
        (row["kind"], row["unit"], row["row"], row["block"]): row["root"] for row in found if row["root"]
    }
    kinds = Counter(row["kind"] for row in found)
    assert kinds["url"] > 20
    assert kinds["paragraph"] > 200


def any_file(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


def test_a_search_killed_midway_ends_as_one_that_was_not(crawled: Path) -> None:
    arguments = ("run", "two.toml", "--set", "rows_per_bucket=300", "--workers", "2", "--set")
    carnac(crawled, *arguments, "output='whole'")
    for number, wanted in enumerate(("keys/paragraph/*.parquet", "url-*.parquet")):
        folder = crawled / f"killed-{number}" / "repeats" / "repeats"
        process = command(crawled, *arguments, f"output='killed-{number}'")
        assert kill_tree(process, partial(any_file, folder, wanted)), wanted
        carnac(crawled, *arguments, f"output='killed-{number}'")
        assert digests(folder.parents[1]) == digests(crawled / "whole")
        assert not list(folder.rglob("*.tmp"))
