from __future__ import annotations

import dataclasses
import errno
import hashlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from train_run import SETTINGS, Run, make_parts, plan, run, state_at

from carnac.core.errors import InputError, RunError
from carnac.model.weights import load_model
from carnac.train.checkpoint import (
    Parts,
    RunState,
    digest_pieces,
    latest,
    list_checkpoints,
    optimizer_tensors,
    read_state,
    restore_optimizer,
    sweep,
    write_checkpoint,
    write_state,
)
from carnac.train.loop import take_step
from carnac.train.metrics import read_metrics
from carnac.train.optimizer import rates_at
from carnac.train.resume import Resumed, resume
from carnac.train.run_folder import step_of


def go_on(path: Path, parts: Parts, state: Callable[[int], RunState] = state_at) -> Resumed:
    return resume(path, parts, state, partial(rates_at, parts.optimizer, settings=SETTINGS))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def copy(whole: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole.folder, tmp_path / "moved"))


def trace(rows: list[dict[str, float]]) -> list[tuple[float, ...]]:
    """Everything of the metrics but the clock."""
    return [tuple(value for name, value in row.items() if "seconds" not in name) for row in rows]


def assert_same_run(one: Path, two: Path) -> None:
    assert trace(read_metrics(one / "metrics.jsonl")) == trace(read_metrics(two / "metrics.jsonl"))
    for checkpoint in list_checkpoints(one):
        for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
            assert (checkpoint / name).read_bytes() == (two / checkpoint.name / name).read_bytes()


def test_the_same_run_twice_is_the_same_to_the_bit(whole: Run, tmp_path: Path) -> None:
    run(tmp_path)
    assert_same_run(whole.folder, tmp_path)


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_stopped_and_resumed_equals_uninterrupted_to_the_bit(whole: Run, tmp_path: Path, stop: int) -> None:
    def interrupted(step: int) -> object:
        if step == stop:
            raise KeyboardInterrupt
        return plan(step)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, batches=interrupted)  # type: ignore[arg-type]
    assert run(tmp_path).records[0].step == stop // 3 * 3
    assert_same_run(whole.folder, tmp_path)


def test_a_run_killed_in_the_middle_of_saving_goes_on_to_the_same_end(whole: Run, tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("train_run.py")), str(tmp_path)]
    killed = subprocess.run([*program, "6"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000003"]
    left = [path.name for path in tmp_path.glob(".step-00000006-*")]
    assert len(left) == 1
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(range(6))
    subprocess.run(program, check=True)
    assert not list(tmp_path.glob(".*"))
    assert_same_run(whole.folder, tmp_path)


def test_a_finished_run_does_nothing_again(whole: Run, copy: Path) -> None:
    assert run(copy).records == []
    assert_same_run(whole.folder, copy)


def test_the_newest_are_kept(whole: Run) -> None:
    assert [path.name for path in list_checkpoints(whole.folder)] == ["step-00000006", "step-00000009"]
    assert latest(whole.folder) == whole.folder / "step-00000009"


def test_a_checkpoint_is_a_model_folder(whole: Run) -> None:
    model = load_model(whole.folder / "step-00000009")
    pairs = zip(model.parameters(), whole.parts.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_a_moved_run_goes_on_to_the_same_end(whole: Run, tmp_path: Path) -> None:
    def interrupted(step: int) -> object:
        if step == 5:
            raise KeyboardInterrupt
        return plan(step)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "here", batches=interrupted)  # type: ignore[arg-type]
    (tmp_path / "far").mkdir()
    moved = (tmp_path / "here").rename(tmp_path / "far" / "away")
    assert str(tmp_path) not in (moved / "step-00000003" / "state.json").read_text()
    assert run(moved).records[0].step == 3
    assert_same_run(whole.folder, moved)


def test_pieces_have_a_digest_of_what_and_where_they_are() -> None:
    pieces = plan(0).provenance
    assert digest_pieces(pieces) == digest_pieces(plan(0).provenance)
    assert len({digest_pieces(pieces), digest_pieces(pieces[::-1]), digest_pieces(pieces[1:]), digest_pieces([])}) == 4
    other = dataclasses.replace(pieces[0], start=1)
    assert digest_pieces(pieces) != digest_pieces([other, *pieces[1:]])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "config.json"])
def test_a_damaged_file_is_named_and_the_last_good_checkpoint_offered(
    copy: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(copy / "step-00000009" / name)
    with pytest.raises(InputError, match="the last good one is step-00000006") as caught:
        latest(copy)
    assert str(copy / "step-00000009" / name) in str(caught.value)
    with pytest.raises(InputError, match=name):
        go_on(copy / "step-00000009", make_parts())


def test_following_the_offer_ends_in_the_same_run(whole: Run, copy: Path) -> None:
    truncate(copy / "step-00000009" / "state.json")
    with pytest.raises(InputError, match=r"state\.json: missing or damaged"):
        run(copy)
    shutil.rmtree(copy / "step-00000009")
    run(copy)
    assert_same_run(whole.folder, copy)


def test_every_byte_of_the_state_counts(whole: Run, tmp_path: Path) -> None:
    path = Path(shutil.copytree(whole.folder / "step-00000009", tmp_path / "step-00000009"))
    content = (path / "state.json").read_bytes()
    harmless = []
    for place in range(0, len(content), 7):
        (path / "state.json").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            read_state(path)
        except InputError as error:
            assert str(path / "state.json") in str(error)  # noqa: PT017 -- many of them
        else:
            harmless.append(content[place : place + 1])
    assert set(harmless) <= {b" ", b"\n"}
    (path / "state.json").write_bytes(content)
    assert read_state(path)["step"] == 9


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "carnac-checkpoint-1"}', "\xff"])
def test_a_state_of_something_else_is_refused(copy: Path, content: str) -> None:
    (copy / "step-00000009" / "state.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"step-00000009/state\.json: .* the last good one is step-00000006"):
        latest(copy)


def test_without_a_good_one_the_run_starts_again(copy: Path) -> None:
    for checkpoint in list_checkpoints(copy):
        (checkpoint / "state.json").write_text("[]")
    with pytest.raises(InputError, match="there is no older one"):
        latest(copy)


def rewrite_moments(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.update({"exp_avg/other": torch.zeros(1)}), "1 unknown, first exp_avg/other"),
        (lambda tensors: tensors.pop("exp_avg_sq/connector.up.bias"), "those of connector.up.bias are missing"),
        (lambda tensors: tensors.update({"exp_avg/connector.up.bias": torch.zeros(3)}), "of another shape"),
    ],
)
def test_moments_that_do_not_fit_are_refused(
    copy: Path, change: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    rewrite_moments(copy / "step-00000009" / "optimizer.safetensors", change)
    with pytest.raises(InputError, match=words):
        restore_optimizer(make_parts(), copy / "step-00000009")


def test_lost_moments_are_noticed_even_with_a_right_digest(copy: Path) -> None:
    path = copy / "step-00000009"
    saved = read_state(path)
    names = [f"{moment}/connector.up.bias" for moment in ("exp_avg", "exp_avg_sq", "step")]
    rewrite_moments(path / "optimizer.safetensors", lambda tensors: [tensors.pop(name) for name in names])
    data = (path / "optimizer.safetensors").read_bytes()
    state = {**saved, "digests": {**saved["digests"], "optimizer.safetensors": hashlib.sha256(data).hexdigest()}}
    write_state(path, state)
    with pytest.raises(RunError, match="norm of exp_avg was"):
        go_on(path, make_parts())


def test_frozen_and_unused_weights_have_no_moments() -> None:
    parts = make_parts()
    for name, parameter in parts.model.named_parameters():
        parameter.requires_grad_(not name.startswith("vision"))
    unused = torch.nn.Parameter(torch.ones(2))
    parts.model.register_parameter("unused", unused)
    parts.optimizer.add_param_group({"params": [unused], "part": "model", "peak": 1e-3})
    take_step(parts.model, parts.optimizer, plan(0), SETTINGS, 0)  # type: ignore[arg-type]
    names = {name.partition("/")[2] for name in optimizer_tensors(parts)}
    assert names == {name for name, _ in parts.model.named_parameters() if not name.startswith(("vision", "unused"))}


def test_sweeping_leaves_the_rest(tmp_path: Path) -> None:
    sweep(tmp_path / "nowhere")
    for name in (".step-00000003-12", ".step-00000006-old-9", "step-00000006", "other"):
        (tmp_path / name).mkdir()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "step-00000006"]
    assert list_checkpoints(tmp_path / "nowhere") == []


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (99999999, 100000000, 5):
        (tmp_path / f"step-{step:08d}").mkdir()
    assert [int(path.name[5:]) for path in list_checkpoints(tmp_path)] == [5, 99999999, 100000000]


@pytest.mark.parametrize(
    ("last", "every", "kept"),
    [(1, None, [9]), (2, 4, [4, 8, 9]), (1, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9]), (3, 5, [5, 7, 8, 9])],
)
def test_the_newest_and_every_nth_are_kept(tmp_path: Path, last: int, every: int | None, kept: list[int]) -> None:
    parts = make_parts()
    for step in range(1, 10):
        write_checkpoint(tmp_path, parts, state_at(step), keep_last=last, keep_every=every)
    assert [step_of(path) for path in list_checkpoints(tmp_path)] == kept


def test_a_save_that_the_disk_refuses_leaves_nothing_and_keeps_the_last_one(copy: Path) -> None:
    def refuse(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    parts = dataclasses.replace(make_parts(), write_model=refuse)
    before = sorted(path.name for path in copy.iterdir())
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(copy, parts, state_at(9), keep_last=1)
    assert sorted(path.name for path in copy.iterdir()) == before
    assert latest(copy) == copy / "step-00000009"
