from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_builder import make_batch, make_model
from train_run import SETTINGS, make_parts, plan, run

from carnac.core.batch import Batch
from carnac.core.errors import RunError
from carnac.train.loop import describe_accident, take_step
from carnac.train.metrics import read_metrics
from carnac.train.optimizer import make_optimizer
from carnac.train.rows import micro_batches
from carnac.train.settings import TrainSettings

ROWS = [[(23, 2), (9, 0)], [(40, 1)], [(18, 0)], [(5, 0), (30, 3)], [(28, 0)]]


def gradients(micro_rows: int | None) -> tuple[float, npt.NDArray[np.float32]]:
    """Return (loss, gradients as one vector) of the first step."""
    model = make_model()
    optimizer = make_optimizer(model, SETTINGS.optimizer)
    wanted = SETTINGS.model_copy(update={"micro_rows": micro_rows})
    outcome = take_step(model, optimizer, make_batch(ROWS), wanted, 0)
    parts = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return outcome.loss, torch.cat(parts).numpy()


@pytest.mark.parametrize("micro_rows", [1, 2, 3, 9])
def test_accumulated_gradients_are_those_of_the_whole_batch(micro_rows: int) -> None:
    (loss, whole), (part_loss, parts) = gradients(None), gradients(micro_rows)
    assert part_loss == pytest.approx(loss, rel=1e-6)
    assert np.abs(parts - whole).max() <= 1e-6


@given(st.integers(1, 6), st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_micro_batches_are_the_batch_cut(size: int, seed: int) -> None:
    batch = make_batch(ROWS, seed=seed)
    parts = list(micro_batches(batch, size))
    for name in ("input_ids", "labels", "positions", "segment", "pixels"):
        assert (np.concatenate([getattr(part, name) for part in parts]) == getattr(batch, name)).all()
    for number, part in enumerate(parts):
        assert part.provenance == batch.provenance
        for (row, first, count), pixels in zip(part.image_slots, part.pixels, strict=True):
            here = np.s_[row, first : first + count]
            assert (part.input_ids[here] == 2).all()
            assert (part.pixels[part.image_of_token[here]] == pixels).all()
            assert (batch.pixels[batch.image_of_token[number * size + row, first]] == pixels).all()
        assert ((part.image_of_token < 0) == (batch.image_of_token[number * size :][: len(part.labels)] < 0)).all()


def test_images_out_of_row_order_go_with_their_rows() -> None:
    batch = make_batch(ROWS)
    order = np.array([3, 0, 5, 1, 4, 2])
    back = np.append(np.argsort(order), -1)
    mixed = dataclasses.replace(
        batch,
        image_slots=batch.image_slots[order],
        pixels=batch.pixels[order],
        image_of_token=back[batch.image_of_token],
    )
    for part, same in zip(micro_batches(mixed, 2), micro_batches(batch, 2), strict=True):
        found = [pixels.sum() for pixels in part.pixels[part.image_of_token[part.image_of_token >= 0]]]
        wanted = [pixels.sum() for pixels in same.pixels[same.image_of_token[same.image_of_token >= 0]]]
        assert found == wanted


def test_a_step_is_logged_as_it_was(tmp_path: Path) -> None:
    watch = run(tmp_path)
    assert [record.step for record in watch.records] == list(range(9))
    record, batch = watch.records[4], plan(4)
    assert record.label_tokens == batch.label_tokens
    assert record.tokens == sum(piece.tokens for piece in batch.provenance)
    assert (record.images, record.pieces) == (4, 5)
    assert record.seconds >= record.waiting_seconds >= 0
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows == [json.loads(each.to_json()) for each in watch.records]


def test_loss_falls_on_a_batch_seen_again(tmp_path: Path) -> None:
    wanted = SETTINGS.model_copy(update={"steps": 40})
    losses = [record.loss for record in run(tmp_path, wanted, batches=lambda _: plan(0)).records]
    assert losses[0] == pytest.approx(np.log(128), rel=0.05)
    assert losses[-1] < 0.6 * losses[0]


def test_the_logged_rate_is_the_one_used(tmp_path: Path) -> None:
    parts = make_parts()
    take_step(parts.model, parts.optimizer, plan(0), SETTINGS, 1)  # type: ignore[arg-type]
    assert [group["lr"] for group in parts.optimizer.param_groups] == pytest.approx([2e-3, 2e-3])


class Sampling(torch.nn.Module):
    """A model whose loss is drawn at random."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 2))

    def loss(self, batch: Batch, label_tokens: int, z_loss: float) -> tuple[torch.Tensor, torch.Tensor]:
        per_token = torch.rand(batch.labels.shape)
        return (self.weight.sum() * per_token.sum()) / label_tokens, per_token


def test_draws_of_a_step_depend_on_seed_step_and_micro_step_alone() -> None:
    model = Sampling()

    def draw(step: int, **changes: int) -> npt.NDArray[np.float32]:
        wanted = TrainSettings.model_validate({**SETTINGS.model_dump(), **changes})
        torch.manual_seed(step + 77)
        optimizer = make_optimizer(model, wanted.optimizer)
        return take_step(model, optimizer, make_batch([[(9, 0)], [(9, 0)]]), wanted, step).per_token

    assert (draw(5) == draw(5)).all()
    assert (draw(5) != draw(6)).any()
    assert (draw(5) != draw(5, seed=4)).any()
    in_two = draw(5, micro_rows=1)
    assert (in_two[0] != in_two[1]).any()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_pieces(tmp_path: Path) -> None:
    def poisoned(step: int) -> Batch:
        batch = plan(step)
        if step == 4:
            batch.pixels[0] = np.nan
        return batch

    with pytest.raises(RunError) as caught:
        run(tmp_path, batches=poisoned)
    message = str(caught.value)
    assert message.startswith("step 4: the loss is nan")
    assert "rows [0]: part row 0 tokens 0-24; part row 1 tokens 0-9." in message
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 2, 3]


def test_an_accident_leaves_the_weights_of_the_step_before() -> None:
    parts, batch = make_parts(), plan(0)
    before = [parameter.detach().clone() for parameter in parts.model.parameters()]
    batch.pixels[:] = np.inf
    with pytest.raises(RunError, match="the loss is nan"):
        take_step(parts.model, parts.optimizer, batch, SETTINGS, 0)  # type: ignore[arg-type]
    assert all(torch.equal(one, two) for one, two in zip(before, parts.model.parameters(), strict=True))
    assert not parts.optimizer.state


def test_an_accident_of_the_whole_batch_names_a_few_pieces() -> None:
    batch = make_batch([[(4, 0)] * 6, [(4, 0)] * 6])
    message = describe_accident(7, 2.0, float("inf"), batch, np.zeros(batch.labels.shape, np.float32))
    assert "gradient's length inf" in message
    assert "all rows" in message
    assert "part row 7 tokens 0-4 and 4 more" in message
