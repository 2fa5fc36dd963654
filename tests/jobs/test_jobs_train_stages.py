"""Stages that start from a model: adapters, then merged at a larger size, then exported; and what is not done again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs_model import MODEL_SETTINGS, DoneHere, document, row, runner, write_model, write_shards

from carnac.core.errors import InputError, RunError
from carnac.engine.manifest import read_manifest
from carnac.jobs.export import export_model
from carnac.jobs.models import open_model
from carnac.jobs.train import TrainRecipe, check, run
from carnac.jobs.train_start import read_start
from carnac.mix.rows import PlanRows
from carnac.train.metrics import read_metrics

STAGES: list[dict[str, Any]] = [
    {
        "name": "adapters",
        "steps": 6,
        "trained": ["connector"],
        "adapters": {"rank": 2, "vision": ["q_proj"], "language": ["q_proj", "down_proj"]},
        "optimizer": {"learning_rate": 1e-2},
    },
    {"name": "on", "steps": 3},
    {"name": "merged", "steps": 4, "merge_adapters": True, "size_px": 64, "row_tokens": 96},
]


def make_recipe(folder: Path, **fields: Any) -> TrainRecipe:
    told: dict[str, Any] = {
        "job": "train",
        "shards": folder / "shards",
        "plan": folder / "plan",
        "output": folder / "model",
        "mix": {"row_tokens": 64, "rows_per_batch": 2, "workers": 0},
        "training": {
            "steps": 4,
            "threads": 1,
            "optimizer": {"learning_rate": 1e-3},
            "checkpoints": {"every_steps": 2},
            "monitor": {"grounding_every_steps": 2},
        },
        "init_from": folder / "base",
        **fields,
    }
    told = {name: value for name, value in told.items() if value is not None}
    return TrainRecipe.model_validate_json(json.dumps(told, default=str), by_alias=True)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return a folder with a model to start from and shards."""
    write_model(tmp_path / "base")
    write_shards(tmp_path / "shards", [document(number) for number in range(8)])
    return tmp_path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(open_model(folder).model.state_dict())


def test_adapters_then_a_larger_merged_model_then_llava_with_its_proof(base: Path, done: DoneHere) -> None:
    recipe = make_recipe(base, stage=STAGES)
    assert check(recipe) == []
    run(recipe, runner()[0])
    first, second, last = (open_model(base / "model" / name).model for name in ("before/adapters", "before/on", "."))
    assert first.settings.adapters is not None
    assert second.settings.adapters == first.settings.adapters
    assert last.settings.adapters is None
    assert (first.image_size_px, last.image_size_px) == (32, 64)
    inputs = open_model(base / "model").inputs
    assert (inputs.pictures.size_px, inputs.row_tokens) == (64, 96)
    # What a stage does not train is that of the one before, to the bit; what it trains is not.
    ours, before = weights(base / "model/before/adapters"), weights(base / "base")
    same = {name for name in before if torch.equal(before[name], ours[name if name in ours else _wrapped(name)])}
    assert {name.partition(".")[0] for name in before.keys() - same} == {"connector"}
    on = weights(base / "model/before/on")
    assert {name.partition(".")[0] for name in on if not torch.equal(on[name], ours[name])} >= {"connector", "language"}
    # The second stage packs the same rows: it goes on behind the 12 of the first.
    assert len(PlanRows(read_manifest(base / "plan/on/rows").parts[0].path)) == 18
    exported = export_model(base / "model", "llava", base / "llava")
    assert exported.parity["passed"]
    done.units.clear()
    run(recipe, runner()[0])
    assert done.units == []
    assert [row["step"] for row in read_metrics(base / "model/before/on/metrics.jsonl")] == [0, 1, 2]


def _wrapped(name: str) -> str:
    """Return what peft calls a weight that has an adapter."""
    owner, _, last = name.rpartition(".")
    return f"{owner}.base_layer.{last}"


@pytest.mark.usefixtures("done")
def test_a_change_to_a_later_stage_leaves_the_earlier_ones(base: Path) -> None:
    run(make_recipe(base, stage=STAGES[:2]), runner()[0])
    kept = (base / "model/before/adapters/model.safetensors").stat().st_mtime_ns
    shutil.rmtree(base / "model/checkpoints")
    out = runner()
    run(make_recipe(base, stage=[STAGES[0], {"name": "on", "steps": 2}]), out[0])
    assert (base / "model/before/adapters/model.safetensors").stat().st_mtime_ns == kept
    assert [row["step"] for row in read_metrics(base / "model/metrics.jsonl")] == [0, 1]


@pytest.mark.usefixtures("done")
def test_another_rate_in_a_run_under_way_is_named(base: Path) -> None:
    recipe = make_recipe(base)
    run(recipe, runner()[0])
    (base / "model/model.safetensors").unlink()
    told = recipe.training.model_copy(
        update={"optimizer": recipe.training.optimizer.model_copy(update={"learning_rate": 2e-3})}
    )
    with pytest.raises(RunError, match=r"training\.optimizer\.learning_rate: 0\.001 -> 0\.002"):
        run(recipe.model_copy(update={"training": told}), runner()[0])


@pytest.mark.usefixtures("done")
def test_a_checkpoint_and_an_exported_folder_are_starts_too(base: Path) -> None:
    run(make_recipe(base), runner()[0])
    exported = export_model(base / "model", "llava", base / "llava").folder
    checkpoint = base / "model/checkpoints/step-00000002"
    for number, folder in enumerate((checkpoint, exported)):
        start = read_start(folder)
        assert (start.pictures.size_px, start.pictures.square_tokens) == (32, 4)
        output = {"init_from": folder, "plan": base / f"plan{number}", "output": base / f"again{number}"}
        recipe = make_recipe(base, **output)
        assert check(recipe) == []
        run(recipe, runner()[0])
        model = open_model(base / f"again{number}").model
        assert model.settings.trained == start.settings.trained
        kept = TrainRecipe.model_validate_json(
            json.dumps(recipe.model_dump(mode="json", by_alias=True, exclude_none=True)), by_alias=True
        )
        assert kept == recipe


@pytest.mark.usefixtures("done")
def test_the_first_loss_of_a_start_is_that_of_its_model(base: Path) -> None:
    recipe = make_recipe(base, training={"steps": 30, "threads": 1, "optimizer": {"learning_rate": 3e-3}})
    run(recipe, runner()[0])
    losses = [row["loss"] for row in read_metrics(base / "model/metrics.jsonl")]
    again = make_recipe(base, init_from=base / "model", output=base / "again", plan=base / "plan2")
    run(again, runner()[0])
    assert losses[0] == pytest.approx(5.77, abs=0.3)  # the logarithm of 320 tokens
    assert read_metrics(base / "again/metrics.jsonl")[0]["loss"] < losses[0] - 1


@pytest.mark.usefixtures("done")
def test_all_stages_share_a_tokenizer_of_all_sources(tmp_path: Path) -> None:
    write_shards(tmp_path / "pages", [document(number) for number in range(6)])
    write_shards(tmp_path / "pairs", [row("p", ["zigzag zigzag zigzag zigzag", document(1)["texts"][2]])] * 4)
    sources = [{"name": name, "shards": tmp_path / name} for name in ("pages", "pairs")]
    told = [{"name": "one", "weights": {"pages": 1.0}}, {"name": "two", "weights": {"pages": 0.5, "pairs": 0.5}}]
    recipe = make_recipe(
        tmp_path,
        init_from=None,
        shards=None,
        source=sources,
        stage=told,
        model=MODEL_SETTINGS.model_dump(mode="json"),
        pictures={"size_px": 32, "patch_px": 16},
        tokenizer={"vocabulary_size": 320},
    )
    run(recipe, runner()[0])
    words = open_model(tmp_path / "model").tokenizer
    assert len(words.encode("zigzag")) < len("zigzag")
    assert words.to_json() == open_model(tmp_path / "model/before/one").tokenizer.to_json()
    first, second = (read_metrics(tmp_path / "model" / name / "metrics.jsonl") for name in ("before/one", "."))
    assert {name for each in first for name in each["sources"]} == {"pages"}
    assert {name for each in second for name in each["sources"]} == {"pages", "pairs"}


@pytest.mark.usefixtures("done")
def test_marks_that_the_start_lacks_are_refused(base: Path) -> None:
    pictures = {"marks": "idefics3", "max_tiles": 2}
    with pytest.raises(InputError, match=r"tokenizer\.json: lacks 7 marks of pictures of 2 x 2 tiles"):
        run(make_recipe(base, pictures=pictures, mix={"row_tokens": 128, "workers": 0}), runner()[0])
