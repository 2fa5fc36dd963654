"""The benchmark of packed training runs, and every way of it trains on the same: a ratio of two things says nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from train.__main__ import main
from train.pinned import SIZES
from train.rows import draw_rows
from train.speed import COMPARED, PLAIN, ratio, ways_of
from train.waiting import batch_seconds, run_training, write_shards

from carnac.core.batch import Batch

TINY = SIZES["tiny"]


def pieces_of(batch: Batch) -> dict[int, tuple[list[int], int]]:
    """Return the token ids and the number of pictures of each piece."""
    found = {}
    for number, piece in enumerate(batch.provenance):
        inside = batch.segment[batch.image_slots[:, 0], batch.image_slots[:, 1]] == number
        found[piece.row] = (batch.input_ids[batch.segment == number].tolist(), int(inside.sum()))
    return found


def test_packed_and_padded_rows_hold_the_same_pieces_with_a_picture_per_row() -> None:
    for rows in draw_rows(TINY, 0.8, batches=3):
        assert pieces_of(rows.packed) == pieces_of(rows.padded)
        assert len(rows.packed.pixels) == len(rows.packed.input_ids) == TINY.rows
        assert rows.packed.label_tokens == rows.padded.label_tokens
        assert (rows.padded.positions[:, 0] == 0).all()
        assert len(np.unique(rows.packed.segment)) > TINY.rows


def test_every_way_has_the_same_loss() -> None:
    losses = {name: way.run() for name, way in ways_of(TINY, 0.4, batches=2).items() if name != PLAIN}
    assert len(losses) == 5
    first = next(iter(losses.values()))
    assert losses == pytest.approx(dict.fromkeys(losses, first), rel=1e-5)


def test_a_ratio_is_taken_round_by_round() -> None:
    facts = ratio({"fast": [4.0, 9.0, 8.0], "slow": [2.0, 3.0, 4.0]}, "fast", "slow")
    assert (facts["ratio"], facts["lowest"], facts["highest"], facts["rounds"]) == (2.0, 2.0, 3.0, 3)


def test_figures_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, threads = tmp_path / "figures.json", torch.get_num_threads()
    words = ["--size", "tiny", "--spread", "0.4", "--batches", "1", "--rounds", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["train", *words])
    main()
    torch.set_num_threads(threads)
    (result,) = json.loads(out.read_text())["results"]
    assert list(result["ratios"]) == [f"{way} v. {other}" for way, other in COMPARED]


def test_a_real_run_says_how_long_it_waited(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", TINY, samples=256)
    lines = run_training(tmp_path, TINY, steps=3)
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert all(0 < line["waiting_seconds"] < line["seconds"] for line in lines)
    assert sum(line["images"] for line in lines) > 0
    assert batch_seconds(tmp_path, TINY, steps=3) > 0
