"""What a sweep recipe comes to before anything runs: its kinds of runs, and every mistake where it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from carnac.core.errors import RecipeError
from carnac.jobs.sweep import SweepRecipe, check
from carnac.jobs.sweep_recipe import kinds_of
from carnac.recipe.load import load_recipes

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
MODEL = {
    "family": "cross_attention",
    "vision": {"type": "siglip_vision_model", "config": {**TOWER, "patch_size": 16}},
    "connector": {"type": "resampler", "latents": 2, "depth": 1},
    "language": {"type": "llama", "config": {**TOWER, "num_key_value_heads": 2, "max_position_embeddings": 64}},
}
AXIS = {"key": "training.optimizer.rates.connector", "values": [0.001, 1]}
BARE = {"name": "bare", "changes": {"model.cross_attention.qk_norms": False, "model.connector.qk_norms": False}}


def make(**fields: Any) -> SweepRecipe:
    told = {
        "job": "sweep",
        "shards": "shards",
        "heldout": "heldout",
        "plan": "plan",
        "output": "sweep",
        "pictures": {"size_px": 32, "patch_px": 16},
        "mix": {"row_tokens": 64, "rows_per_batch": 2},
        "model": MODEL,
        "training": {"steps": 10, "optimizer": {"learning_rate": 1e-3}},
        "variant": [{"name": "normed"}, BARE],
        "axis": AXIS,
        **fields,
    }
    told = {name: value for name, value in told.items() if value is not None}
    return SweepRecipe.model_validate_json(json.dumps(told), by_alias=True, by_name=False)


def test_a_kind_is_the_recipe_with_a_variants_changes_and_a_value_of_the_axis() -> None:
    kinds = list(kinds_of(make()))
    assert [kind.name for kind in kinds] == ["normed-0.001", "normed-1", "bare-0.001", "bare-1"]
    models = [kind.recipe.model for kind in kinds]
    assert [model.blocks.qk_norms for model in models if model] == [True, True, False, False]
    assert [model.connector.qk_norms for model in models if model] == [True, True, False, False]  # type: ignore[union-attr]
    assert [kind.recipe.training.optimizer.rates["connector"] for kind in kinds] == [0.001, 1, 0.001, 1]
    assert {kind.recipe.training.optimizer.learning_rate for kind in kinds} == {1e-3}


def test_a_table_in_a_change_replaces_the_table() -> None:
    mlp = {"name": "mlp", "changes": {"model.family": "autoregressive", "model.connector": {"type": "mlp"}}}
    _, kind = kinds_of(make(variant=[{"name": "a"}, mlp], axis=None))
    assert kind.recipe.model is not None
    assert kind.recipe.model.connector.model_dump(exclude_unset=True) == {"type": "mlp"}
    assert kind.name == "mlp"


def test_whole_numbers_of_an_axis_stay_whole() -> None:
    (one, _) = kinds_of(make(variant=[BARE], axis={"key": "model.cross_attention.every", "values": [1, 2]}))
    assert one.recipe.model is not None
    assert one.recipe.model.blocks.every == 1


def test_near_values_of_an_axis_have_names_of_their_own() -> None:
    found = kinds_of(make(variant=[BARE], axis={**AXIS, "values": [0.1234567, 0.1234568, 0.5, 1e30]}))
    assert [kind.name for kind in found] == ["bare-0.1234567", "bare-0.1234568", "bare-0.5", "bare-1e30"]


def test_every_run_is_measured_at_its_end_and_where_the_recipe_says() -> None:
    training = {"steps": 10, "optimizer": {"learning_rate": 1e-3}}
    (kind, *_) = kinds_of(make(training=training))
    monitor = kind.recipe.training.monitor
    assert (monitor.evaluation_every_steps, monitor.grounding_every_steps) == (10, None)
    (kind, *_) = kinds_of(make(training={**training, "monitor": {"evaluation_every_steps": 4}}))
    assert kind.recipe.training.monitor.evaluation_every_steps == 4


def test_a_sound_sweep_has_no_mistake() -> None:
    assert check(make()) == []


def test_mistakes_stand_where_they_are_written() -> None:
    wrong = {
        "name": "wrong",
        "changes": {
            "model.cross_attention.qk_norm": False,
            "model.connector.depth": 0,
            "model.vision.folder": "nowhere",
        },
    }
    found = dict(check(make(variant=[{"name": "normed"}, wrong], axis={**AXIS, "values": [-1.0, 0.1]})))
    place = ("variant", 1, "changes")
    assert found[*place, "model.cross_attention.qk_norm"] == "unknown key. Did you mean 'qk_norms'?"
    assert "greater than or equal to 1" in found[*place, "model.connector.depth"]
    assert "wanted one of type" in found[*place, "model.vision.folder"]
    assert "the rate of connector is -1.0" in found["axis", "values"]


def test_a_mistake_of_all_variants_is_told_once_where_it_is_written() -> None:
    (mistake,) = check(make(pictures={"size_px": 32, "patch_px": 8}))
    assert mistake[0] == ("model", "vision", "config", "patch_size")
    assert "pictures.patch_px is 8" in mistake[1]


@pytest.mark.parametrize(
    ("changes", "key", "said"),
    [
        ({"output": "x"}, "output", "begins with a table. Known: mix, model"),
        ({"modle.family": "x"}, "modle.family", "Did you mean 'model'?"),
        ({"model": {}}, "model", 'the whole table; wanted a dotted key in quotes, such as "model.family"'),
        ({"training.seed": 3}, "training.seed", "num_seeds"),
        ({"training.monitor": {}}, "training.monitor", "the same for all"),
        ({"training.optimizer.rates": {}}, "training.optimizer.rates", "the axis sets"),
    ],
)
def test_what_is_no_setting_to_compare_is_refused(changes: dict[str, Any], key: str, said: str) -> None:
    ((location, sentence),) = check(make(variant=[{"name": "a"}, {"name": "b", "changes": changes}]))
    assert location == ("variant", 1, "changes", key)
    assert said in sentence


def test_an_axis_of_no_setting_is_refused() -> None:
    ((location, sentence),) = check(make(axis={"key": "num_seeds", "values": [1, 2]}))
    assert (location, "begins with a table" in sentence) == (("axis", "key"), True)
    ((location, sentence),) = check(make(axis={"key": "training.optimizer.learnin_rate", "values": [1, 2]}))
    assert (location, sentence) == (("axis", "key"), "unknown key. Did you mean 'learning_rate'?")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"variant": [{"name": "a"}, {"name": "a"}]}, "two variants are called a"),
        ({"shards": None}, "wanted either shards"),
        ({"axis": {**AXIS, "values": [2, 1]}}, "do not rise"),
        ({"measures": ["speed"]}, "heldout_loss"),
        ({"variant": []}, "at least 1"),
    ],
)
def test_what_does_not_hold_together_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make(**fields)


def test_a_recipes_mistake_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(
        'job = "sweep"\nshards = "a"\nheldout = "b"\nplan = "c"\noutput = "d"\n'
        '[[variant]]\nname = "one"\n[[variant]]\nname = "two"\nchanges = { "model.connector.depth" = 0 }\n'
        "[pictures]\nsize_px = 32\npatch_px = 16\n"
        '[model]\nfamily = "cross_attention"\n[model.vision]\ntype = "siglip_vision_model"\n'
        '[model.connector]\ntype = "resampler"\n[model.language]\ntype = "llama"\n'
        "[training]\nsteps = 2\n[training.optimizer]\nlearning_rate = 1e-3\n"
    )
    (loaded,), mistakes = load_recipes([path], {"sweep": SweepRecipe}, {})
    assert mistakes == []
    found = [loaded.mistake(location, sentence) for location, sentence in check(loaded.settings)]  # type: ignore[arg-type]
    assert [(mistake.line, mistake.key) for mistake in found] == [(10, "variant.1.changes.model.connector.depth")]
    assert "wanted" in str(RecipeError(found))
