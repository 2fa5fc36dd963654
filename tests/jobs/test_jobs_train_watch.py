"""What a training job says and leaves beside the model: held-out losses, bad pictures, TensorBoard, its plans."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs_model import MODEL_SETTINGS, document, picture, row, runner, write_shards

from carnac.core.errors import RunError
from carnac.core.schema import SAMPLES
from carnac.engine.manifest import collect_parts, manifest_of, read_manifest, write_manifest
from carnac.engine.part import Part
from carnac.engine.run import EarlyEnd
from carnac.engine.unit import Stage
from carnac.jobs.evaluate import EvaluateRecipe
from carnac.jobs.evaluate import run as evaluate
from carnac.jobs.models import open_model
from carnac.jobs.train import TrainRecipe, check, run
from carnac.jobs.train_evaluation import HeldOutLosses
from carnac.train.metrics import read_metrics
from carnac.train.settings import TrainSettings

TRAINING: dict[str, Any] = {"steps": 4, "threads": 1, "optimizer": {"learning_rate": 1e-3}}


def make_recipe(folder: Path, **fields: Any) -> TrainRecipe:
    told: dict[str, Any] = {
        "job": "train",
        "shards": folder / "shards",
        "plan": folder / "plan",
        "output": folder / "model",
        "tokenizer": {"vocabulary_size": 320},
        "pictures": {"size_px": 32, "patch_px": 16},
        "mix": {"row_tokens": 64, "rows_per_batch": 2, "workers": 0},
        "training": TRAINING,
        "model": MODEL_SETTINGS.model_dump(mode="json"),
        **fields,
    }
    return TrainRecipe.model_validate_json(json.dumps(told, default=str), by_alias=True)


def with_monitor(**fields: Any) -> dict[str, Any]:
    return {**TRAINING, "monitor": fields}


@pytest.mark.usefixtures("done")
def test_held_out_losses_are_those_of_the_job_evaluate(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", [document(number) for number in range(8)])
    bare = row("bare", ["only words, and many of them " * 6])
    write_shards(tmp_path / "heldout", [*(document(number) for number in range(20, 25)), bare])
    recipe = make_recipe(tmp_path, heldout=tmp_path / "heldout", training=with_monitor(evaluation_every_steps=3))
    assert check(recipe) == []
    run(recipe, runner()[0])
    found = [each.get("evaluation") for each in read_metrics(tmp_path / "model/metrics.jsonl")]
    assert [measured is None for measured in found] == [True, True, False, False]
    last = found[-1]
    assert last is not None
    names = {"heldout_loss", "heldout_right_images", "heldout_shuffled_images", "heldout_none_images"}
    assert last.keys() == names
    told = {"job": "evaluate", "model": tmp_path / "model", "shards": tmp_path / "heldout", "output": tmp_path / "out"}
    evaluate(EvaluateRecipe.model_validate(told), runner()[0])
    losses = json.loads((tmp_path / "out/evaluation.json").read_text())["losses"]
    assert {name: last[f"heldout_{name}_images"] for name in losses} == pytest.approx(losses, rel=1e-5)


def test_held_out_samples_without_pictures_have_a_loss_alone(model: Path, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "heldout", [row("a", ["words and words"]), row("b", ["more words"])])
    opened = open_model(model)
    settings = TrainSettings.model_validate(with_monitor(evaluation_every_steps=2))
    losses = HeldOutLosses(read_manifest(shards, "shards"), opened.tokenizer, opened.inputs, settings)
    loaded: Any = opened.model
    loaded.train()
    found = losses(loaded, 1)
    assert found.keys() == {"heldout_loss"}
    assert found["heldout_loss"] == pytest.approx(np.log(320), rel=0.1)
    assert loaded.training


@pytest.mark.usefixtures("done")
def test_more_bad_pictures_than_allowed_stop_the_run_and_a_higher_number_goes_on(tmp_path: Path) -> None:
    broken = picture(1)[:60]
    rows = [row(f"b{number}", [f"Page {number}.", broken, "some words after the picture"]) for number in range(3)]
    write_shards(tmp_path / "shards", [*rows, *(document(number) for number in range(5))])
    mix = {"row_tokens": 64, "rows_per_batch": 2, "workers": 0}
    training = {**TRAINING, "checkpoints": {"every_steps": 1}}
    strict = make_recipe(tmp_path, mix={**mix, "max_bad_samples": 1}, training=training)
    with pytest.raises(RunError, match=r"[23] pieces have had a picture that does not decode, more than mix\.max"):
        run(strict, runner()[0])
    before = read_metrics(tmp_path / "model/metrics.jsonl")
    assert sum(each["stand_ins"] for each in before) > 1
    run(make_recipe(tmp_path, mix={**mix, "max_bad_samples": 9}, training=training), runner()[0])
    after = read_metrics(tmp_path / "model/metrics.jsonl")
    assert [each["loss"] for each in after[: len(before)]] == [each["loss"] for each in before]
    assert len(after) == 4


@pytest.mark.usefixtures("done")
def test_what_is_watched_changes_no_weight_and_no_name_of_a_finished_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    write_shards(tmp_path / "shards", [document(number) for number in range(8)])
    watched = with_monitor(grounding_every_steps=1, tensorboard=True)
    run(make_recipe(tmp_path, training=watched), runner()[0])
    assert list((tmp_path / "model/tensorboard").glob("events.*"))
    first = (tmp_path / "model/model.safetensors").read_bytes()
    told, out = runner()
    run(make_recipe(tmp_path, training=with_monitor(grounding_every_steps=None)), told)
    assert "all done before" in out.getvalue()
    unwatched = {"plan": tmp_path / "plan2", "output": tmp_path / "model2"}
    run(make_recipe(tmp_path, training=with_monitor(grounding_every_steps=None), **unwatched), runner()[0])
    assert (tmp_path / "model2/model.safetensors").read_bytes() == first


def write_conversations(folder: Path) -> Path:
    """Write shards of questions and answers about pictures, as the job `conversations` does."""
    stage = Stage(name="shards", version=1, schema=SAMPLES, work=None)
    folder.mkdir()
    unit = stage.unit("00000-a", None, settings={}, inputs=[])
    with Part(stage, unit, folder) as part:
        for number in range(6):
            talk = row(f"c{number}", [picture(number), "what is it", "the old mill", "is it old", "yes"])
            part.write({**talk, "roles": ["user", "user", "assistant", "user", "assistant"]})
            part.count("conversations")
    entries = collect_parts(folder, [unit])
    write_manifest(manifest_of(stage, folder, entries, {"source": "talk"}, {}))
    return folder


@pytest.mark.usefixtures("done")
def test_conversations_beside_documents_teach_answers_only_and_the_model_knows_it(tmp_path: Path) -> None:
    write_conversations(tmp_path / "talk")
    write_shards(tmp_path / "pages", [document(number) for number in range(8)])
    sources = [
        {"name": "talk", "shards": tmp_path / "talk", "weight": 0.5},
        {"name": "pages", "shards": tmp_path / "pages", "weight": 0.5},
    ]
    told = make_recipe(tmp_path).model_dump(mode="json", by_alias=True, exclude={"shards", "sources"})
    recipe = TrainRecipe.model_validate_json(json.dumps({**told, "source": sources}, default=str), by_alias=True)
    assert check(recipe) == []
    run(recipe, runner()[0])
    assert open_model(tmp_path / "model").inputs.conversations
    totals = {name: Counter[str]() for name in ("talk", "pages")}
    for each in read_metrics(tmp_path / "model/metrics.jsonl"):
        for name, found in each["sources"].items():
            totals[name].update(tokens=found["tokens"] - 4 * found["images"], labels=found["label_tokens"])
    assert totals["talk"]["labels"] < 0.5 * totals["talk"]["tokens"]
    assert totals["pages"]["labels"] > 0.8 * totals["pages"]["tokens"]


@pytest.mark.usefixtures("done")
def test_a_dry_run_says_what_it_would_do_and_does_nothing(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", [document(number) for number in range(8)])
    told, out = runner(dry_run=True)
    with pytest.raises(EarlyEnd):
        run(make_recipe(tmp_path), told)
    assert "tokenizer: 1 units, 0 done, 1 to do" in out.getvalue()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shards"]


@pytest.mark.usefixtures("done")
def test_a_run_says_what_its_plan_holds(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", [document(number) for number in range(8)])
    told, out = runner()
    run(make_recipe(tmp_path), told)
    assert "fill" in out.getvalue()
