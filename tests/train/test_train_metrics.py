from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from carnac.train.curve import draw_loss, smooth
from carnac.train.metrics import MetricsFile, StepRecord, read_metrics, truncate_metrics


def record(step: int, label_tokens: int = 100) -> StepRecord:
    return StepRecord(
        step=step,
        loss=5.0 + 3 * 0.9**step + (0 if label_tokens else 1e9),
        learning_rate=1e-3,
        gradient_norm=1.0,
        label_tokens=label_tokens,
        tokens=120,
        images=2,
        pieces=3,
        seconds=0.5,
        waiting_seconds=0.1,
    )


def write(path: Path, steps: range) -> None:
    with MetricsFile(path) as metrics:
        for step in steps:
            metrics.append(record(step))


def test_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    write(path, range(3))
    write(path, range(3, 5))
    assert read_metrics(path) == [json.loads(record(step).to_json()) for step in range(5)]


def test_a_resumed_run_doubles_no_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, range(7))
    truncate_metrics(path, 4)
    write(path, range(4, 9))
    assert [row["step"] for row in read_metrics(path)] == list(range(9))
    assert [each.name for each in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_half_written_line_is_dropped_wherever_the_kill_cut_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, range(3))
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole) - 1):
        path.write_bytes(whole[:cut])
        truncate_metrics(path, 9)
        assert [row["step"] for row in read_metrics(path)] == [0, 1]
        assert path.read_bytes() == whole[:last]


def test_lines_of_something_else_are_not_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'[1]\n{"step": "x"}\n\xff\xfe\n\n{"step": 1}\n')
    assert read_metrics(path) == [{"step": 1}]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=200))
def test_smoothing_is_the_mean_around_each_value(values: list[float]) -> None:
    found, reach = smooth(np.array(values)), len(values) // 40
    wanted = [np.mean(values[max(0, place - reach) : place + reach + 1]) for place in range(len(values))]
    assert np.allclose(found, wanted, atol=1e-8)


def test_the_curve_is_a_picture_with_ink(tmp_path: Path) -> None:
    path = tmp_path / "loss.png"
    draw_loss([dataclasses.asdict(record(step, label_tokens=step % 50)) for step in range(120)], path)
    with Image.open(path) as picture:
        assert picture.size == (1200, 675)
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    line = (np.abs(pixels - (0, 114, 178)).sum(-1) < 30).nonzero()
    # The line runs over the width and falls: a step without labels would have pressed it flat at the bottom.
    assert np.ptp(line[1]) > 800
    assert np.ptp(line[0]) > 300


def test_a_run_of_no_or_one_step_has_a_picture_too(tmp_path: Path) -> None:
    for rows in ([], [dataclasses.asdict(record(0))]):
        draw_loss(rows, tmp_path / "loss.png", title="Short")
        assert (tmp_path / "loss.png").stat().st_size > 5000
