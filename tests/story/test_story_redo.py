"""What a changed setting does again: only what depends on it; nothing where the outcome stayed. Units are counted."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from story_runs import DATA, digests, run_recipes

ARCHIVES = 2  # of recipes/tiny: so many units has every map stage


def parts(out: Path) -> set[Path]:
    return {path.relative_to(out) for path in out.rglob("*.parquet")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run_recipes(folder, DATA, "--limit", "30")
    return folder


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A run of its own, which is the whole one moved: a folder may be moved."""
    return shutil.copytree(whole, tmp_path / "run") / "out" / "tiny"


def redo(out: Path, *arguments: str) -> Counter[str]:
    """Run the chain again and return how many units each folder got anew."""
    before = parts(out)
    run_recipes(out.parents[1], DATA, "--limit", "30", *arguments)
    return Counter(str(path.parent) for path in parts(out) - before)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--workers", "1"),
        ("--set", "limits.cpu_seconds=5.0", "--set", "limits.memory_mb=3000", "--set", "limits.max_lost_share=0.9"),
        ("--set", "max_memory_mb=300"),
        ("--set", "http.timeout_seconds=3"),
    ],
    ids=["nothing", "workers", "limits", "memory cap", "http without fetch"],
)
def test_what_changes_no_output_redoes_nothing(out: Path, arguments: tuple[str, ...]) -> None:
    before = digests(out)
    assert redo(out, *arguments) == Counter()
    assert digests(out) == before


def test_a_rule_redoes_what_depends_on_it(out: Path) -> None:
    new = redo(out, "--set", "pass.1.rules.0.min=200")
    assert {name: new[name] for name in ("documents", "images", "curated/signals", "curated/masks/blocks")} == {
        "documents": 0,
        "images": 0,
        "curated/signals": 0,
        "curated/masks/blocks": 0,
    }
    assert new["curated/masks/documents"] == ARCHIVES
    assert new["curated/masks/repeats"] == ARCHIVES
    assert new["shards/train"] + new["shards/heldout"] > 0
    assert redo(out) == Counter(), "the parts of the first settings are still there"


def test_a_rule_that_drops_the_same_documents_stops_after_the_masks(out: Path) -> None:
    # The name of a reason holds its threshold, and every later mask holds the names; no reader but those reads them.
    new = redo(out, "--set", "pass.1.rules.0.max=20001")
    masks = {"curated/masks/documents": ARCHIVES, "curated/masks/repeats": ARCHIVES}
    assert new == Counter({**masks, "curated/funnel/parts": ARCHIVES, "curated/funnel": 1})


def test_another_split_redoes_the_shards_alone(out: Path) -> None:
    new = redo(out, "--set", "split.seed=5")
    assert new == Counter({"shards/train": ARCHIVES, "shards/heldout": ARCHIVES, "shards/card/parts": ARCHIVES})
