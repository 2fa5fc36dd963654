"""Damaged files and bombs in real guarded children: each costs at most itself, and none more than the limits."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from images_mutations import FILES, FilesTask, files_unit

from carnac.engine.ledger import read_ledger
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.images.settings import ImageSettings, Store
from carnac.recipe.settings import Limits

REASONS = {"empty", "not_an_image", "unsupported_type", "too_many_pixels", "truncated_image", "undecodable"}
# On two quiet cores a mutated file took 8 ms at most, a bomb 0.7 s (100,000 chunks), a picture of 50 M pixels 1.8 s and
# 835 MB (WebP; the others 460), all included that a worker holds.
SMALL = Limits(cpu_seconds=10, wait_seconds=600, memory_mb=300)
LARGE = Limits(cpu_seconds=60, wait_seconds=600, memory_mb=1000)


def outcomes(folder: Path, tasks: list[FilesTask], limits: Limits) -> dict[str, str]:
    """Take the files of `tasks` in guarded children; return what each came to. None may be lost."""
    units = [files_unit(f"{number:05d}", task) for number, task in enumerate(tasks)]
    runner = Runner(reporter=TerminalReporter(io.StringIO()), workers=2, limits=limits)
    runner.do(FILES, units, folder)
    found: dict[str, str] = {}
    for unit in units:
        path = folder / unit.file_name
        assert read_ledger(path).quarantine == (), unit.name
        found |= {f"{unit.name} {row['file']}": row["outcome"] for row in pq.read_table(path).to_pylist()}
    return found


def test_5000_mutated_files_end_in_a_picture_or_a_reason(tmp_path: Path) -> None:
    tasks = [FilesTask(number=1000, seed=seed) for seed in range(4)]
    tasks += [FilesTask(number=500, seed=4, store="original"), FilesTask(number=500, seed=5, store="reencoded")]
    found = Counter(outcomes(tmp_path, tasks, SMALL).values())
    assert found.total() == 5000
    assert found.keys() <= REASONS | {"taken"}
    # Nearly all doors are tried, and the deepest often.
    assert found["taken"] > 700
    assert min(found[reason] for reason in REASONS - {"empty"}) > 30


@pytest.mark.parametrize("store", ["clean", "original", "reencoded"])
def test_bombs_cost_neither_memory_nor_time(tmp_path: Path, store: Store) -> None:
    found = outcomes(tmp_path, [FilesTask(with_bombs=True, store=store)], SMALL)
    assert len(found) == 18
    for name, came_to in found.items():
        if "pixels" in name and "fewer" not in name:
            assert came_to == ("unsupported_type" if "tiff" in name else "too_many_pixels"), name
        elif "frame beyond" in name or "large canvas" in name:
            assert came_to == "too_many_pixels", name
        else:
            assert came_to in ("taken", "undecodable", "unsupported_type"), name


@pytest.mark.parametrize("store", ["clean", "reencoded"])
def test_the_largest_pictures_allowed_fit_in_the_memory_of_a_worker(tmp_path: Path, store: Store) -> None:
    found = outcomes(tmp_path, [FilesTask(giant_pixels=ImageSettings().max_pixels, store=store)], LARGE)
    assert len(found) == 7
    assert set(found.values()) == {"taken"}
