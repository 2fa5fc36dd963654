"""The job `shards` in real processes: killed at any moment it goes on to the same bytes; its memory stays flat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs_model import runner
from jobs_shards_inputs import Size, expected_samples, rows_of, write_inputs
from memory import Measured
from story_runs import carnac, command, digests, kill_tree

from carnac.core.places import Place
from carnac.engine.manifest import PartEntry, collect_parts
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit
from carnac.jobs import shards
from carnac.shards.settings import GatherSettings
from carnac.shards.split import SPLITS


def files(folder: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any(folder.glob(pattern))


def test_killed_anywhere_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    sound = tmp_path / "sound"
    size = Size(parts=4, documents=150, image_bytes=6000)
    write_inputs(sound, size)
    carnac(sound, "run", "shards.toml")
    killed = tmp_path / "killed"
    write_inputs(killed, size)
    shards_folder, gather = killed / "shards", killed / "shards" / "gather"
    gathered: dict[str, int] = {}
    moments: dict[str, Callable[[], bool]] = {
        "routes": files(gather, "routes/crawl-*.parquet"),
        "a gather file is being written": files(gather, ".group-*.images.*.tmp"),
        "some are gathered": files(gather, "group-01-*.parquet"),
        "a shard is being written": files(shards_folder, "train/.train-*.tmp"),
        "train is half done": files(shards_folder, "train/train-crawl-00001-*.parquet"),
        "held out is half done": files(shards_folder, "heldout/heldout-crawl-00001-*.parquet"),
    }
    for moment, has_come in moments.items():
        assert kill_tree(command(killed, "run", "shards.toml", "--workers", "1"), has_come), moment
        if moment == "a shard is being written":
            gathered = {path.name: path.stat().st_ino for path in gather.glob("group-*")}
            assert len(gathered) >= 8
    assert {path.name: path.stat().st_ino for path in gather.glob("group-*")} == gathered, "gathered again"
    carnac(killed, "run", "shards.toml")
    assert digests(killed / "shards") == digests(sound / "shards")
    assert sorted(path.name for path in shards_folder.rglob("*")) == sorted(
        path.name for path in (sound / "shards").rglob("*")
    )
    for split in SPLITS:
        assert rows_of(shards_folder / split) == expected_samples(sound, split)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringRunner(Runner):
    """Notes the highest peak of the processes of each stage, in MB."""

    peaks: dict[str, float] = dataclasses.field(default_factory=dict)

    def do(self, stage: Stage, units: Sequence[Unit], folder: Place) -> tuple[PartEntry, ...]:
        """Do the units, each in its own process, and look up its peak."""
        assert stage.work is not None
        entries = Runner.do(self, dataclasses.replace(stage, work=Measured(stage.work)), units, folder)
        assert {entry.unit for entry in entries} == {entry.unit for entry in collect_parts(folder, units)}
        peak = max(entry.counts["peak_kb"] for entry in entries) / 1024
        self.peaks[stage.name] = max(peak, self.peaks.get(stage.name, 0))
        return entries


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    peaks = []
    for number, documents in enumerate((200, 2000)):
        folder = tmp_path / str(number)
        write_inputs(folder, Size(parts=1, documents=documents, packs=4, image_bytes=12_000))
        measuring = MeasuringRunner(reporter=runner()[0].reporter)
        recipe = shards.ShardsRecipe(
            job="shards",
            documents=folder / "documents",
            images=folder / "images",
            masks=folder / "masks",
            output=folder / "shards",
            gather=GatherSettings(group_mb=1000, buffer_mb=4),
        )
        shards.run(recipe, measuring)
        peaks.append(measuring.peaks)
    small, large = peaks
    assert small.keys() == {"routes", "gather", "shards", "card_parts", "card"}
    for stage, peak in small.items():
        assert large[stage] <= 1.15 * peak, f"{stage}: {peak:.0f} MB, {large[stage]:.0f} MB for ten times as much"
