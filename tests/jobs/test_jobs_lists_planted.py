"""What stands on a list is found among real pictures and named; what does not is left alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jobs_model import DoneHere, runner
from jobs_planted import CLEAN, PLANTED, Planted, write_planted

from carnac.curate.lists.settings import ListsPass
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.tables import read_rows
from carnac.jobs.curate_lists import BLOCKED, search_lists
from carnac.jobs.curate_measure import measure_images
from carnac.jobs.images_found import read_found


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Planted]:
    folder = tmp_path_factory.mktemp("planted")
    return folder, write_planted(folder)


def search(folder: Path, **lists: Any) -> Manifest:
    step = ListsPass(name="lists", kind="lists", **lists)
    run, _ = runner()
    documents = read_manifest(folder / "documents", "documents")
    images = measure_images(run, folder / "curated", documents, read_found(folder / "images"))
    return search_lists(run, step, documents, images, None, folder / "curated/listed/lists")


def found(listed: Manifest) -> dict[str, set[str]]:
    """Return the reasons by URL of what was found."""
    reasons: dict[str, set[str]] = {}
    for entry in listed.parts:
        for row in read_rows(entry.path):
            reasons.setdefault(row["url"], set()).add(row["reason"])
    return reasons


def test_of_planted_pictures_and_urls_all_are_found_and_of_clean_ones_none(
    crawl: tuple[Path, Planted], done: DoneHere
) -> None:
    folder, planted = crawl
    listed = search(
        folder,
        urls=(folder / "urls.txt",),
        domains=(folder / "domains.txt",),
        image_sha256=(folder / "hashes.txt",),
        image_pdq=(folder / "pdq.txt",),
        image_phash=(folder / "phash.txt",),
    )
    reasons = found(listed)
    by = {"sha256": {"listed.sha256"}, "url": {"listed.url"}, "domain": {"listed.domain"}}
    by["near"] = {"listed.pdq", "listed.phash"}
    hits = Counter(kind for url, kind in planted.listed.items() if reasons.get(url, set()) & by[kind])
    assert hits == {"sha256": PLANTED, "near": PLANTED, "url": PLANTED - PLANTED // 4, "domain": PLANTED // 4}
    clean = [url for url in planted.pictures if url not in planted.listed]
    assert len(clean) == CLEAN
    false_positives = [url for url in reasons if url not in planted.listed]
    assert false_positives == []
    assert len([url for url, kind in planted.listed.items() if kind in ("url", "domain")]) == PLANTED
    rows = [row for entry in listed.parts for row in read_rows(entry.path)]
    named = [row for row in rows if row["reason"] == "listed.url"]
    assert all(row["file"] == "urls.txt" and row["entry"].startswith(("http://", "https://")) for row in named)
    hashed = {row["sha256"] for row in rows if row["reason"] in ("listed.sha256", "listed.pdq", "listed.phash")}
    assert (folder / "curated/listed/lists" / BLOCKED).read_text().split() == sorted(hashed)
