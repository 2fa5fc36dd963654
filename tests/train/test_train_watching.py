"""What a step tells beyond its loss: each source's, the loss with other images, speed, TensorBoard's scalars."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_builder import make_batch, make_model
from train_run import SETTINGS, make_parts, plan

from carnac.core.batch import IGNORED, Batch
from carnac.train.grounding import compare, exchange_images
from carnac.train.loop import Run, take_step, train
from carnac.train.metrics import GroundingRecord, SourceRecord, StepRecord
from carnac.train.optimizer import make_optimizer
from carnac.train.progress import Speed
from carnac.train.settings import MonitorSettings, TrainSettings
from carnac.train.sources import records_by_source
from carnac.train.tensorboard import TensorBoard, scalars

ROWS = [[(23, 2), (9, 0)], [(40, 1)], [(18, 0)], [(5, 0), (30, 3)], [(28, 0)]]


def from_sources(batch: Batch, names: list[str]) -> Batch:
    pieces = [
        dataclasses.replace(piece, source=names[number % len(names)]) for number, piece in enumerate(batch.provenance)
    ]
    return dataclasses.replace(batch, provenance=tuple(pieces))


@given(st.integers(0, 20), st.lists(st.sampled_from(["pairs", "web", "talk"]), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_what_the_sources_gave_is_what_their_pieces_hold(seed: int, names: list[str]) -> None:
    batch = from_sources(make_batch(ROWS, seed=seed), names)
    losses = np.random.default_rng(seed).random(batch.labels.shape, dtype=np.float32)
    found = records_by_source(batch, losses)
    assert list(found) == sorted({piece.source for piece in batch.provenance})
    for name, record in found.items():
        mine = np.array([number for number, piece in enumerate(batch.provenance) if piece.source == name])
        inside = np.isin(batch.segment, mine)
        labelled = inside & (batch.labels != IGNORED)
        assert record.tokens == inside.sum()
        assert record.label_tokens == labelled.sum()
        assert record.loss == pytest.approx(losses[labelled].mean(dtype=np.float64))
        assert record.images == sum(piece.images for piece in batch.provenance if piece.source == name)


def test_a_source_without_labels_has_no_loss() -> None:
    batch = make_batch([[(9, 1)]])
    batch.labels[:] = IGNORED
    assert records_by_source(batch, np.zeros(batch.labels.shape, np.float32)) == {
        "web": SourceRecord(loss=None, label_tokens=0, tokens=9, images=1)
    }


@given(st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_every_image_is_exchanged_for_one_of_another_sample(step: int) -> None:
    batch = make_batch(ROWS)
    exchanged = exchange_images(batch, 3, step)
    assert exchanged is not None
    for (row, first, _), pixels in zip(batch.image_slots, exchanged.pixels, strict=True):
        (place,) = [number for number, other in enumerate(batch.pixels) if (other == pixels).all()]
        there = batch.image_slots[place]
        assert batch.segment[row, first] != batch.segment[there[0], there[1]]
    again = exchange_images(batch, 3, step)
    assert again is not None
    assert (again.pixels == exchanged.pixels).all()


def test_windows_of_one_sample_and_copies_of_one_picture_are_no_others() -> None:
    batch = make_batch([[(23, 1), (9, 1)]])
    one_sample = tuple(dataclasses.replace(piece, row=7) for piece in batch.provenance)
    assert exchange_images(dataclasses.replace(batch, provenance=one_sample), 0, 0) is None
    batch.pixels[1] = batch.pixels[0]
    assert exchange_images(batch, 0, 0) is None
    assert exchange_images(make_batch([[(9, 0)]]), 0, 0) is None


def test_grounding_is_the_mean_over_labels_after_an_image() -> None:
    batch = make_batch(ROWS)
    right = np.full(batch.labels.shape, 2.0, np.float32)
    other = np.where(batch.image_of_token >= 0, 3.0, 99.0).astype(np.float32)
    found = compare(batch, right, other)
    assert found is not None
    assert (found.right, found.other) == (2.0, 3.0)
    assert found.label_tokens == ((batch.labels != IGNORED) & (batch.image_of_token >= 0)).sum()
    assert compare(make_batch([[(9, 0)]]), np.zeros((1, 9), np.float32), np.zeros((1, 9), np.float32)) is None


def step_of(step: int, every: int | None, **changes: Any) -> tuple[Any, GroundingRecord | None]:
    wanted = SETTINGS.model_copy(update={"monitor": MonitorSettings(grounding_every_steps=every), **changes})
    model = make_model(seed=3, attention_dropout=0.5)
    optimizer = make_optimizer(model, wanted.optimizer)
    model.train()
    outcome = take_step(model, optimizer, make_batch(ROWS), wanted, step)
    return model.state_dict(), outcome.grounding


@pytest.mark.parametrize("micro_rows", [None, 2])
def test_a_look_at_other_images_moves_no_weight(micro_rows: int | None) -> None:
    (looked, grounding), (not_looked, none) = (
        step_of(4, 4, micro_rows=micro_rows),
        step_of(4, None, micro_rows=micro_rows),
    )
    assert none is None
    assert grounding is not None
    assert grounding.right != grounding.other
    assert all(torch.equal(looked[name], not_looked[name]) for name in looked)
    assert step_of(5, 4)[1] is None
    assert step_of(4, 4)[1] == step_of(4, 4)[1]


def test_the_z_loss_is_told_apart_from_the_loss() -> None:
    parts, batch = make_parts(), plan(0)
    model: Any = parts.model
    outcome = take_step(model, parts.optimizer, batch, SETTINGS, 0)
    with torch.no_grad():
        bare, penalised = (float(make_model(seed=3).loss(batch, batch.label_tokens, z)[0]) for z in (0.0, 1e-4))
    assert outcome.loss == pytest.approx(bare, rel=1e-6)
    assert outcome.z_loss == pytest.approx(penalised - bare, rel=1e-3)
    # Near the logarithm of 128 squared, of random weights.
    assert outcome.z_loss == pytest.approx(1e-4 * math.log(128) ** 2, rel=0.05)


def test_a_batch_without_labels_moves_neither_weights_nor_moments() -> None:
    parts, batch = make_parts(), plan(0)
    model: Any = parts.model
    take_step(model, parts.optimizer, batch, SETTINGS, 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moments = [state["exp_avg"].clone() for state in parts.optimizer.state.values()]
    batch.labels[:] = IGNORED
    outcome = take_step(model, parts.optimizer, batch, SETTINGS, 1)
    assert (outcome.loss, outcome.gradient_norm) == (0.0, 0.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(
        torch.equal(one, state["exp_avg"]) for one, state in zip(moments, parts.optimizer.state.values(), strict=True)
    )


class Told:
    """A watch that remembers."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []
        self.saved: list[int] = []

    def on_step(self, record: StepRecord, batch: Batch, per_token: Any) -> None:
        self.records.append(record)

    def save(self, next_step: int) -> None:
        self.saved.append(next_step)


class EverySecond:
    """An evaluation that says at which step it was asked."""

    every_steps = 2

    def __call__(self, model: Any, step: int) -> Mapping[str, float]:
        return {"asked_after": float(step)}


class Asked:
    """Requests at given steps, in the order of the looks."""

    def __init__(self, *requests: Any) -> None:
        self.requests, self.settled = list(requests), 0

    def pending(self) -> Any:
        return self.requests.pop(0)

    def settle(self) -> None:
        self.settled += 1


def go(told: Told, **given: Any) -> int | None:
    parts = make_parts()
    model: Any = parts.model
    wanted = TrainSettings.model_validate({**SETTINGS.model_dump(), "steps": 5, "checkpoints": {"every_steps": 3}})
    return train(Run(model=model, optimizer=parts.optimizer, batches=plan, settings=wanted, watch=told, **given))


def test_evaluations_come_every_so_many_steps_and_at_the_end() -> None:
    told = Told()
    assert go(told, evaluations=[EverySecond()], flops=lambda _: 2e9, peak_flops=1e12) is None
    assert [record.evaluation for record in told.records] == [
        None,
        {"asked_after": 1.0},
        None,
        {"asked_after": 3.0},
        {"asked_after": 4.0},
    ]
    assert told.saved == [3, 5]
    first = told.records[0]
    assert first.flops == 2e9
    assert first.mfu == pytest.approx(2e9 / first.seconds / 1e12)
    assert (first.rows, first.stand_ins) == (3, 0)
    assert first.grounding is not None
    assert [record.grounding for record in told.records[1:]] == [None] * 4


def test_a_save_is_done_and_the_run_goes_on_a_stop_is_done_and_it_ends() -> None:
    told, asked = Told(), Asked(None, "save", None, "stop")
    assert go(told, listener=asked) == 4
    assert told.saved == [2, 3, 4]
    assert asked.settled == 2
    assert len(told.records) == 4


def record(step: int, **fields: Any) -> StepRecord:
    given = {
        "loss": 2.0,
        "learning_rate": 1e-3,
        "gradient_norm": 1.0,
        "label_tokens": 100,
        "tokens": 1000,
        "images": 10,
    }
    return StepRecord(**{"step": step, "pieces": 3, "seconds": 0.5, "waiting_seconds": 0.05, **given, **fields})


def test_the_note_beside_the_bar_is_of_the_last_steps() -> None:
    speed = Speed()
    assert speed.note(record(0)) == "loss 2.000  2,000 tokens/s  20.0 images/s  waiting 10%"
    assert "MFU 50%" in speed.note(record(1, flops=1e6, mfu=1.0))
    for step in range(2, 30):
        note = speed.note(record(step, loss=4.0, flops=2e12))
    assert note == "loss 4.000  2,000 tokens/s  20.0 images/s  4 TFLOP/s  waiting 10%"


def test_a_line_leaves_out_what_its_step_did_not_measure() -> None:
    bare = json.loads(record(0).to_json())
    assert bare["mfu"] is None
    assert not {"grounding", "evaluation"} & bare.keys()
    full = record(
        1,
        sources={"web": SourceRecord(loss=1.0, label_tokens=2, tokens=3, images=0)},
        grounding=GroundingRecord(right=1.0, other=2.0, label_tokens=5),
        evaluation={"heldout_loss": 3.0},
    )
    found = json.loads(full.to_json())
    assert found["sources"] == {"web": {"loss": 1.0, "label_tokens": 2, "tokens": 3, "images": 0}}
    assert found["grounding"] == {"right": 1.0, "other": 2.0, "label_tokens": 5}
    assert found["evaluation"] == {"heldout_loss": 3.0}
    tags = dict(scalars(full))
    assert (tags["loss_of/web"], tags["grounding/gap"], tags["evaluation/heldout_loss"]) == (1.0, 1.0, 3.0)


def test_tensorboard_reads_what_was_written_and_hides_what_a_dead_run_wrote_too_far(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with TensorBoard(tmp_path, 0) as board:
        for step in range(4):
            board.append(record(step, loss=float(step)))
    with TensorBoard(tmp_path, 2) as board:
        board.append(record(2, loss=7.0))
    found = accumulator.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(0, 0.0), (1, 1.0), (2, 7.0)]
