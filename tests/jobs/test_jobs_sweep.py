"""A sweep that runs: what its parts hold, what is done again, what a run that breaks leaves, what the page says."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from jobs_model import DoneHere, document, row, runner, write_shards
from PIL import Image

from carnac.core.errors import InputError
from carnac.engine.manifest import read_manifest
from carnac.engine.run import EarlyEnd
from carnac.engine.tables import read_rows
from carnac.jobs import train
from carnac.jobs.sweep import SweepRecipe, run
from carnac.jobs.train_recipe import TrainRecipe
from carnac.recipe.load import load_recipes
from carnac.report.story import read_story
from carnac.report.sweep import sweeps_text
from carnac.train.metrics import read_metrics
from carnac.train.run_folder import METRICS_FILE

VISION = {
    "type": "siglip_vision_model",
    "config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "patch_size": 16,
    },
}
LANGUAGE = {
    "type": "llama",
    "config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    },
}
CROSS: dict[str, Any] = {
    "family": "cross_attention",
    "vision": VISION,
    "connector": {"type": "resampler", "latents": 2, "depth": 1, "heads": 2, "head_size": 8},
    "language": LANGUAGE,
    "cross_attention": {"every": 1, "gate_start": 1.0, "text_tokens": "mlp"},
}
UNIFORM = {"name": "uniform", "changes": {"model.cross_attention.mask": "uniform"}}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with shards to train on and held-out ones."""
    write_shards(tmp_path / "shards", [document(number) for number in range(8)])
    write_shards(tmp_path / "heldout", [document(number) for number in range(8, 11)])
    return tmp_path


def tables(place: Path) -> dict[str, Any]:
    return {
        "shards": str(place / "shards"),
        "heldout": str(place / "heldout"),
        "plan": str(place / "plan"),
        "tokenizer": {"vocabulary_size": 300},
        "pictures": {"size_px": 32, "patch_px": 16},
        "mix": {"row_tokens": 64, "row_images": 4, "rows_per_batch": 2, "workers": 0},
        "model": CROSS,
        "training": {"steps": 3, "threads": 1, "optimizer": {"learning_rate": 1e-2}},
    }


def make(place: Path, **fields: Any) -> SweepRecipe:
    told = {
        "job": "sweep",
        **tables(place),
        "output": str(place / "sweep"),
        "variant": [{"name": "exact"}, UNIFORM],
        "num_seeds": 2,
        **fields,
    }
    told = {name: value for name, value in told.items() if value is not None}
    return SweepRecipe.model_validate_json(json.dumps(told), by_alias=True, by_name=False)


def ran(recipe: SweepRecipe) -> tuple[dict[str, Any], str]:
    """Return sweep.json and what was printed."""
    told, out = runner()
    run(recipe, told)
    return json.loads((recipe.output / "sweep.json").read_bytes()), out.getvalue()


def rows_of(recipe: SweepRecipe, unit: str) -> list[dict[str, Any]]:
    return list(read_rows(read_manifest(recipe.output, "sweep").part(unit).path))


def test_every_variant_runs_at_every_value_with_every_seed_and_what_is_done_is_not_done_again(
    place: Path, done: DoneHere
) -> None:
    axis = {"key": "training.optimizer.rates.connector", "values": [0.001, 0.01], "label": "rate"}
    recipe = make(place, axis=axis)
    found, printed = ran(recipe)
    runs = [unit for unit in done.units if unit.startswith("sweep/")]
    assert runs == [f"sweep/{kind}-{value}-{seed}" for kind in ("exact", "uniform") for value in ("0.001", "0.01")
                    for seed in (0, 1)]  # fmt: skip
    assert [cell["runs"] for cell in found["table"]] == [2, 2, 2, 2]
    assert all(sentence in printed for sentence in found["verdict"])
    assert [row["step"] for row in rows_of(recipe, "exact-0.001-1")] == [0, 1, 2]
    done.units.clear()
    bounded, _ = ran(make(place, axis=axis, broken_above=0.001))
    assert done.units == []  # judged otherwise, not trained again
    assert [cell["broken"] for cell in bounded["table"]] == [2, 2, 2, 2]
    ran(make(place, axis={**axis, "values": [0.001, 0.02]}))
    assert done.units == [f"sweep/{kind}-0.02-{seed}" for kind in ("exact", "uniform") for seed in (0, 1)]


def test_a_run_is_the_training_of_its_recipe_to_the_bit(place: Path, done: DoneHere) -> None:
    recipe = make(place, num_seeds=1, training={**tables(place)["training"], "seed": 4})
    ran(recipe)
    told = tables(place)
    told["training"]["seed"] = 4
    told["training"]["monitor"] = {"evaluation_every_steps": 3, "grounding_every_steps": None}
    told["model"] = {**CROSS, "cross_attention": {**CROSS["cross_attention"], "mask": "uniform"}}
    by_hand = TrainRecipe.model_validate_json(
        json.dumps({"job": "train", **told, "output": str(place / "model")}), by_alias=True
    )
    train.run(by_hand, runner()[0])
    steps = read_metrics(place / "model" / METRICS_FILE)
    rows = rows_of(recipe, "uniform-4")
    for name in ("step", "loss", "gradient_norm", "label_tokens"):
        assert [row[name] for row in rows] == [step[name] for step in steps]
    assert rows[-1]["heldout_loss"] == steps[-1]["evaluation"]["heldout_loss"]
    assert rows[0]["heldout_loss"] is None


def test_a_token_before_an_image_changes_with_it_only_where_the_mask_leaks(place: Path, done: DoneHere) -> None:
    found, _ = ran(make(place, measures=["earlier_change", "packed_change"]))
    for measure in ("earlier_change", "packed_change"):
        exact, uniform = (cell["measures"][measure] for cell in found["table"])
        assert (exact["least"], exact["most"]) == (0.0, 0.0)
        assert uniform["least"] > 1e-6
    assert [row["earlier_change_most"] for row in rows_of(make(place), "exact-0")] == [None, None, 0.0]
    assert rows_of(make(place), "uniform-0")[-1]["earlier_tokens"] > 0


def test_a_run_that_breaks_is_a_result(place: Path, done: DoneHere) -> None:
    axis = {"key": "training.optimizer.learning_rate", "values": [0.001, 1e30]}
    recipe = make(place, variant=[{"name": "one"}], axis=axis, training={**tables(place)["training"], "steps": 6})
    found, printed = ran(recipe)
    rows = rows_of(recipe, "one-1e30-0")
    assert len(rows) < 6
    assert rows[-1]["loss"] is None
    assert rows[0]["loss"] is not None
    assert [(cell["broken"], cell["not_finite"]) for cell in found["table"]] == [(0, 0), (2, 2)]
    assert "one: runs break at training.optimizer.learning_rate 1e+30 (2 of 2); up to 0.001 every run" in printed


def test_variants_with_other_rows_have_a_plan_of_their_own(place: Path, done: DoneHere) -> None:
    changes = {"model.family": "autoregressive", "model.connector": {"type": "mlp"}}
    mlp = {"name": "autoregressive", "changes": changes}
    told = {**CROSS}
    del told["cross_attention"]
    recipe = make(place, model=told, variant=[{"name": "blocks"}, mlp], num_seeds=1)
    ran(recipe)
    assert [path.name for path in sorted((place / "plan").iterdir())] == ["autoregressive", "blocks"]
    tokens = {
        name: read_manifest(place / "plan" / name / "pieces").counts["tokens"] for name in ("blocks", "autoregressive")
    }
    assert tokens["autoregressive"] == tokens["blocks"] + 8 * 3  # a picture takes four places, or one


def test_the_page_needs_no_other_file_and_writes_names_as_text(place: Path, done: DoneHere) -> None:
    axis = {"key": "training.optimizer.learning_rate", "values": [0.001], "label": "<rate>"}
    recipe = make(place, axis=axis, variant=[{"name": "one"}], num_seeds=1)
    ran(recipe)
    html = (recipe.output / "index.html").read_text()
    assert "&lt;rate&gt;" in html
    assert "<rate>" not in html
    assert "http" not in html
    with Image.open(io.BytesIO((recipe.output / "sweep.png").read_bytes())) as figure:
        assert (figure.format, figure.width > 600) == ("PNG", True)


def test_the_recipe_that_is_kept_is_the_same_sweep(place: Path, done: DoneHere) -> None:
    recipe = make(place, axis={"key": "training.optimizer.learning_rate", "values": [0.001]}, num_seeds=1)
    ran(recipe)
    (kept,), mistakes = load_recipes([recipe.output / "recipe.toml"], {"sweep": SweepRecipe}, {})
    assert mistakes == []
    assert isinstance(kept.settings, SweepRecipe)
    done.units.clear()
    ran(kept.settings)
    assert done.units == []


def test_show_tells_what_a_sweep_found(place: Path, done: DoneHere) -> None:
    recipe = make(place, num_seeds=1)
    found, _ = ran(recipe)
    told = sweeps_text(read_story(recipe.output))
    assert told.splitlines()[:-1][0] == "sweep:"
    assert all(sentence in told for sentence in (*found["verdict"], found["rule"]))
    assert "uniform" in told.partition(found["verdict"][-1])[2]  # the table
    assert found["rule"] not in sweeps_text(read_story(place), brief=True)
    (recipe.output / "sweep.json").write_text('{"verdict": 3}')
    with pytest.raises(InputError, match="damaged"):
        sweeps_text(read_story(recipe.output))


def test_a_dry_run_writes_nothing(place: Path, done: DoneHere) -> None:
    told, out = runner(dry_run=True)
    with pytest.raises(EarlyEnd):
        run(make(place), told)
    assert not (place / "sweep").exists()
    assert not (place / "plan").exists()
    ran(make(place))
    told, out = runner(dry_run=True)
    run(make(place), told)
    assert "sweep: 4 units, 4 done, 0 to do" in out.getvalue()


def test_held_out_samples_without_pictures_have_a_loss_and_no_more(place: Path, done: DoneHere) -> None:
    write_shards(place / "bare", [row(f"t{number}", ["the old mill by the river"]) for number in range(3)])
    found, _ = ran(make(place, heldout=str(place / "bare"), measures=["heldout_loss", "image_gain", "earlier_change"]))
    assert [sorted(cell["measures"]) for cell in found["table"]] == [["heldout_loss"], ["heldout_loss"]]


def test_a_run_without_held_out_shards_is_refused_with_a_sentence(place: Path, done: DoneHere) -> None:
    with pytest.raises(InputError, match="nowhere"):
        run(make(place, heldout=str(place / "nowhere")), runner()[0])
