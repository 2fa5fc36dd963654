"""Real runs of every stage, killed: a handful of what `scripts/bench faults` does."""

from __future__ import annotations

import random

import pytest
from faults.chain import SUBJECTS, TRAIN, Chain, Subject
from faults.kills import kill

STAGES = {subject.name: subject for subject in SUBJECTS}
SECONDS = 0.3  # of the stage, in which the moment is drawn: no stage is through before on the machines seen
# A run of the training recipe takes seconds to import torch: of its stages only what a user may meet most.
HANDFUL = [
    *((subject.name, "worker") for subject in SUBJECTS if subject.recipe != TRAIN),
    *((subject.name, "whole tree") for subject in SUBJECTS),
    ("documents", "parent"),
    ("repeats", "parent"),
    ("images", "fork server"),
    ("shards", "SIGTERM"),
]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The chain, never disturbed."""
    made = Chain(tmp_path_factory.mktemp("kills") / "chain")
    made.finish()
    return made


@pytest.mark.parametrize(("name", "victim"), HANDFUL)
def test_after_a_kill_one_clean_run_gives_what_an_uninterrupted_one_gives(chain: Chain, name: str, victim: str) -> None:
    subject: Subject = STAGES[name]
    verdict = kill(chain, subject, victim, SECONDS, random.Random(f"{name} {victim}"))
    assert verdict.wrong == ""
