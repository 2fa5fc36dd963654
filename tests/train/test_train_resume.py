"""Going on from a checkpoint: what is compared, what is told, and what stops the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from train_run import SETTINGS, make_parts, plan, run, state_at

from carnac.core.errors import InputError, RunError
from carnac.model.build import build_model
from carnac.model.language import Vocabulary
from carnac.model.parts import part_of
from carnac.model.precision import prepare_model
from carnac.model.settings import AdapterSettings
from carnac.model.weights import load_weights, save_model
from carnac.train.checkpoint import (
    Parts,
    PlanPosition,
    RunState,
    norms,
    read_state,
    write_checkpoint,
    write_state,
)
from carnac.train.loop import take_step
from carnac.train.optimizer import make_optimizer, rates_at
from carnac.train.resume import Resumed, differences, resume
from carnac.train.settings import ComputeSettings, OptimizerSettings, ScheduleSettings, TrainSettings

STATE = RunState(
    next_step=3,
    key="0123456789abcdef",
    settings={"training": {"seed": 3, "optimizer": {"learning_rate": 1e-3, "betas": [0.9, 0.95]}}, "model": {}},
    plan=PlanPosition(digest="d1" * 32, next_row=24, next_pieces="a7" * 32),
    random=9182736455463728190,
)


def go_on(path: Path, parts: Parts, state: Callable[[int], RunState] = state_at) -> Resumed:
    return resume(path, parts, state, partial(rates_at, parts.optimizer, settings=SETTINGS))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """Return the folder of a finished run of nine steps with checkpoints before 6 and 9."""
    return run(tmp_path / "finished").folder


def test_resuming_says_what_it_compared(finished: Path) -> None:
    parts = make_parts()
    resumed = go_on(finished / "step-00000006", parts)
    assert resumed.next_step == 6
    assert resumed.lines[0] == "resumed at step 6 from step-00000006"
    assert all(line.endswith(", as saved") for line in resumed.lines[1:])
    assert resumed.lines[-1].startswith(f"  torch {torch.__version__} on cpu with ")
    said = [line.strip().rpartition(" ")[0].rpartition(" ")[0].rpartition(" ")[0] for line in resumed.lines[1:]]
    rates = ["learning rate of model"]
    assert said[-5:-1] == [*rates, "norm of weights", "norm of exp_avg", "norm of exp_avg_sq"]
    assert norms(parts) == read_state(finished / "step-00000006")["norms"]
    assert min(norms(parts).values()) > 0


def save(folder: Path, state: RunState = STATE) -> Path:
    """Write a checkpoint of a run of one step under `state`."""
    parts = make_parts()
    take_step(parts.model, parts.optimizer, plan(0), SETTINGS, state.next_step - 1)  # type: ignore[arg-type]
    return write_checkpoint(folder, parts, state, keep_last=2)


def test_settings_plan_and_randomness_are_compared_and_told(tmp_path: Path) -> None:
    resumed = go_on(save(tmp_path), make_parts(), lambda _: STATE)
    assert resumed.lines[1:7] == (
        "  5 settings, as saved",
        "  key 0123456789abcdef, as saved",
        "  plan d1d1d1d1d1d1d1d1, as saved",
        "  next row 24, as saved",
        "  next pieces a7a7a7a7a7a7a7a7, as saved",
        "  seed of the next step 9182736455463728190, as saved",
    )


def test_another_machine_is_told_and_no_reason_to_stop(tmp_path: Path) -> None:
    path = save(tmp_path)
    write_state(path, {**read_state(path), "computed_by": "torch 9.9 on an abacus"})
    last = go_on(path, make_parts(), lambda _: STATE).lines[-1]
    assert "; saved by torch 9.9 on an abacus: from here on losses may differ" in last


def test_the_settings_that_differ_are_named(tmp_path: Path) -> None:
    path = save(tmp_path)
    training = {"seed": 3, "optimizer": {"learning_rate": 2e-3, "betas": [0.9, 0.99]}, "micro_rows": 4}
    other = dataclasses.replace(STATE, key="f" * 16, settings={"training": training, "model": {}})
    with pytest.raises(RunError) as caught:
        go_on(path, make_parts(), lambda _: other)
    assert str(caught.value).splitlines()[:4] == [
        f"{path}: made with other settings:",
        "  training.optimizer.learning_rate: 0.001 -> 0.002",
        "  training.optimizer.betas.1: 0.95 -> 0.99",
        "  training.micro_rows: (not there) -> 4",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": "f" * 16}, r"made by another run .* its inputs differ"),
        (
            {"key": "f" * 16, "plan": PlanPosition(digest="e2" * 32, next_row=24)},
            r"the plan is another one.*d1d1.*e2e2",
        ),
        ({"plan": PlanPosition(digest="d1" * 32, next_row=16, next_pieces="a7" * 32)}, "next row was 24 .* is 16 now"),
        ({"plan": PlanPosition(digest="d1" * 32, next_row=24, next_pieces="b" * 64)}, "next pieces was a7a7.* is bbb"),
        ({"plan": None}, "plan was d1d1.* is None now"),
        ({"random": 5}, "seed of the next step was 9182736455463728190 .* is 5 now"),
    ],
)
def test_another_run_or_another_place_in_it_is_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    state = dataclasses.replace(STATE, **changes)  # type: ignore[arg-type]
    with pytest.raises(RunError, match=f"(?i){words}"):
        go_on(save(tmp_path), make_parts(), lambda _: state)


def test_nothing_is_touched_before_the_runs_are_found_equal(tmp_path: Path) -> None:
    path, parts = save(tmp_path), make_parts()
    before = norms(parts)
    with pytest.raises(RunError):
        go_on(path, parts, lambda _: dataclasses.replace(STATE, random=5))
    assert norms(parts) == before


def test_differences_are_those_of_values_not_of_their_kinds_of_table() -> None:
    saved = {"a": {"b": [1, 2], "c": None}, "d": {}, "e": 1.0, "long": [1]}
    assert differences(saved, saved) == []
    assert differences(saved, {**saved, "d": {"x": "y"}, "long": []}) == [
        "d: {} -> (not there)",
        "long.0: 1 -> (not there)",
        'd.x: (not there) -> "y"',
        "long: (not there) -> []",
    ]


def test_another_runs_checkpoint_is_refused(finished: Path) -> None:
    state = dataclasses.replace(state_at(9), key="f" * 16)
    with pytest.raises(RunError, match=r"made by another run .* write this run to another folder"):
        go_on(finished / "step-00000009", make_parts(), lambda _: state)


def test_a_rate_that_restarts_is_noticed(finished: Path) -> None:
    parts = make_parts()
    with pytest.raises(RunError, match=r"learning rate of model was .* nothing was resumed"):
        resume(finished / "step-00000009", parts, state_at, lambda _: rates_at(parts.optimizer, 0, SETTINGS))


def test_a_rate_of_a_part_that_is_gone_is_noticed(finished: Path) -> None:
    with pytest.raises(RunError, match="there is a learning rate of model when saved and none now"):
        resume(finished / "step-00000009", make_parts(), state_at, lambda _: {})


def test_weights_that_were_not_restored_are_noticed(finished: Path) -> None:
    silent = dataclasses.replace(make_parts(), read_model=lambda _: None)
    with pytest.raises(RunError, match="norm of weights was"):
        go_on(finished / "step-00000009", silent)


def test_a_checkpoint_of_another_architecture_is_refused_by_the_name_of_its_file(finished: Path) -> None:
    from model_builder import make_model

    model = make_model(intermediate_size=64)
    other = dataclasses.replace(make_parts(), model=model, read_model=partial(load_weights, model))
    with pytest.raises(InputError, match=r"step-00000009/model\.safetensors: weights of another model: .* wanted"):
        go_on(finished / "step-00000009", other)


HALVED = TrainSettings(
    steps=8,
    threads=1,
    optimizer=OptimizerSettings(learning_rate=3e-3, rates={"adapters": 1e-2}),
    schedule=ScheduleSettings(kind="stable_decay", warmup_steps=2),
    compute=ComputeSettings(precision="bf16", activation_checkpointing=True),
)


def make_halved() -> Parts:
    """Return a model of frozen backbones in bfloat16 with trained adapters that drop out."""
    from model_builder import VOCABULARY, make_settings

    adapters = AdapterSettings(rank=4, dropout=0.2, dora=True, language=("q_proj", "up_proj"))
    settings = make_settings().model_copy(update={"trained": ("connector",), "adapters": adapters})
    model = build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), 32, seed=4)
    prepare_model(model, device=torch.device("cpu"), bf16=True, activation_checkpointing=True)
    return Parts(
        model=model,
        optimizer=make_optimizer(model, HALVED.optimizer, part_of),
        write_model=partial(save_model, model),
        read_model=partial(load_weights, model),
    )


def steps_of(parts: Parts, steps: range) -> list[tuple[float, float]]:
    parts.model.train()
    made = [take_step(parts.model, parts.optimizer, plan(step), HALVED, step) for step in steps]  # type: ignore[arg-type]
    return [(each.loss, each.gradient_norm) for each in made]


def test_halved_weights_and_adapters_resume_to_the_bit_too(tmp_path: Path) -> None:
    whole = make_halved()
    wanted = steps_of(whole, range(8))
    first = make_halved()
    found = steps_of(first, range(5))
    path = write_checkpoint(tmp_path, first, state_at(5), keep_last=1)
    second = make_halved()
    resumed = resume(path, second, state_at, partial(rates_at, second.optimizer, settings=HALVED))
    assert "  learning rate of adapters 0.01, as saved" in resumed.lines
    assert "  learning rate of connector 0.003, as saved" in resumed.lines
    assert found + steps_of(second, range(5, 8)) == wanted
    pairs = zip(whole.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
