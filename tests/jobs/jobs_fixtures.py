"""Fixtures of the jobs tests; a plugin, since a second conftest module would shadow the first for mypy."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobs_model import DoneHere, write_model


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
