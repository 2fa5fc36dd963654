"""Full disks, read-only folders and records that misbehave, in real runs of real stages."""

from __future__ import annotations

import random

import pytest
from faults.chain import SUBJECTS, Chain
from faults.culprits import poison
from faults.obstacles import fill_disk, forbid

STAGES = {subject.name: subject for subject in SUBJECTS}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The chain, never disturbed."""
    made = Chain(tmp_path_factory.mktemp("obstacles") / "chain")
    made.finish()
    return made


@pytest.mark.parametrize("name", ["documents", "images", "repeats", "shards", "model"])
def test_a_full_disk_ends_in_a_sentence_and_room_ends_the_run(chain: Chain, name: str) -> None:
    assert fill_disk(chain, STAGES[name], random.Random(name)).wrong == ""


@pytest.mark.parametrize(("name", "which"), [("documents", "folder"), ("masks", "parent"), ("images", "folder")])
def test_a_read_only_output_ends_in_a_sentence(chain: Chain, name: str, which: str) -> None:
    assert forbid(chain, STAGES[name], which).wrong == ""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("documents", "raises"),
        ("documents", "segfaults"),
        ("images", "hangs"),
        ("signals", "spins"),
        ("shards", "eats memory"),
        ("pieces", "segfaults"),
    ],
)
def test_a_record_that_misbehaves_costs_itself_and_is_named(chain: Chain, name: str, kind: str) -> None:
    assert poison(chain, STAGES[name], kind, random.Random(f"{name} {kind}")).wrong == ""


@pytest.mark.parametrize(("name", "kind"), [("repeat_keys", "raises"), ("masks", "segfaults"), ("tokenizer", "raises")])
def test_a_unit_that_misbehaves_is_named_at_the_end(chain: Chain, name: str, kind: str) -> None:
    assert poison(chain, STAGES[name], kind, random.Random(f"{name} {kind}")).wrong == ""
