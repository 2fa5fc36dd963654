"""kill -9 of the whole tree of processes, then the same command: the same output as an uninterrupted run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from story_runs import DATA, RECIPES, all_rows, command, digests, kill_tree, overrides, run_recipes

WITH_TRAIN = [*DATA, "05-train.toml"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same recipes, never killed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_recipes(folder, WITH_TRAIN)
    return folder / "out" / "tiny"


def something_half_written(folder: Path) -> Callable[[], bool]:
    return lambda: any(folder.rglob(".*.tmp"))


def lines_at_least(path: Path, count: int) -> Callable[[], bool]:
    return lambda: path.is_file() and path.read_bytes().count(b"\n") >= count


def test_kill_in_every_stage(uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "tiny"
    moments = {
        "01-crawl.toml": something_half_written(out / "documents"),
        "02-images.toml": something_half_written(out / "images"),
        "03-curate.toml": something_half_written(out / "curated"),
        "04-shards.toml": something_half_written(out / "shards"),
        # Between two checkpoints (every 4 steps) and after the first: steps 4 to 6 are done again.
        "05-train.toml": lines_at_least(out / "model" / "metrics.jsonl", 7),
    }
    for name, moment in moments.items():
        killed = kill_tree(command(tmp_path, "run", str(RECIPES / name), *overrides([name])), moment)
        assert killed, f"{name} ended before it could be killed"
        assert not (out / {"05-train.toml": "model"}.get(name, "none") / "manifest.json").exists()
        printed = run_recipes(tmp_path, [name])
        if name == "05-train.toml":
            assert "resumed at step 4" in printed
    assert not list(out.rglob(".*.tmp"))
    assert digests(out) == digests(uninterrupted)
    # Equal to the bit, not only nearly: the losses, the rates, the gradients, and the digest of the weights.
    assert all_rows(out / "model") == all_rows(uninterrupted / "model")
    for path in uninterrupted.rglob("*.tar"):
        assert (out / path.relative_to(uninterrupted)).read_bytes() == path.read_bytes()


def test_kill_of_the_training_again_and_again(uninterrupted: Path, tmp_path: Path) -> None:
    run_recipes(tmp_path, DATA)
    model = tmp_path / "out" / "tiny" / "model"
    for lines in (2, 6, 10):
        process = command(tmp_path, "run", str(RECIPES / "05-train.toml"), *overrides(["05-train.toml"]))
        assert kill_tree(process, lines_at_least(model / "metrics.jsonl", lines))
    run_recipes(tmp_path, ["05-train.toml"])
    assert all_rows(model) == all_rows(uninterrupted / "model")
