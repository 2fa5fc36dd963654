"""Fixtures of the jobs tests; a plugin, since a second conftest module would shadow the first for mypy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jobs_crawls import CRAWLED, CrawlHere
from jobs_model import DoneHere, write_model
from jobs_web_server import WebServer, web_server

from carnac.core import http_files


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model with random weights; not to be changed."""
    return write_model(tmp_path_factory.mktemp("jobs") / "model")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> DoneHere:
    """The units that were done in this test, in this process."""
    done = DoneHere()
    monkeypatch.setattr("carnac.engine.run.run_units", done.run_units)
    return done


@pytest.fixture
def server() -> Iterator[WebServer]:
    """A server on loopback that holds a crawl as Common Crawl lays it out."""
    with web_server() as running:
        running.files |= CRAWLED.files
        yield running


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CrawlHere:
    """Crawls run in this process, with short pauses between tries."""
    crawl = CrawlHere(output=tmp_path / "documents")
    monkeypatch.setattr("carnac.engine.run.run_units", crawl.run_units)
    monkeypatch.setattr(http_files, "_PAUSES_SECONDS", (0.01, 0.02, 0.03))
    return crawl
