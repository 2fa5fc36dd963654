"""What a train recipe comes to before anything runs: its stages, and every mistake between its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jobs_model import MODEL_SETTINGS, write_model
from pydantic import ValidationError

from carnac.core.errors import InputError
from carnac.jobs.train import TrainRecipe, check
from carnac.jobs.train_model import Given
from carnac.jobs.train_recipe import TrainStage, fit_tokens, stages_of
from carnac.jobs.train_start import read_start
from carnac.sequence.settings import PictureSettings

SOURCES = [{"name": "pages", "shards": "shards/pages"}, {"name": "pairs", "shards": "shards/pairs"}]


def make_recipe(**fields: Any) -> TrainRecipe:
    told: dict[str, Any] = {
        "job": "train",
        "shards": "shards",
        "plan": "plan",
        "output": "model",
        "pictures": {"size_px": 32, "patch_px": 16},
        "mix": {"row_tokens": 64, "rows_per_batch": 2},
        "training": {"steps": 10, "optimizer": {"learning_rate": 1e-3}},
        "model": MODEL_SETTINGS.model_dump(mode="json"),
        **fields,
    }
    told = {name: value for name, value in told.items() if value is not None}
    return TrainRecipe.model_validate_json(json.dumps(told, default=str), by_alias=True)


def stages(**fields: Any) -> list[TrainStage]:
    recipe = make_recipe(**fields)
    assert recipe.model is not None
    return stages_of(recipe, recipe.pictures, recipe.model)


def test_a_recipe_without_stages_is_one_stage_in_its_own_folders() -> None:
    (stage,) = stages(limit=4)
    assert (stage.name, stage.plan, stage.output) == ("", Path("plan"), Path("model"))
    assert (stage.training.steps, stage.first_row) == (4, 0)
    assert [(source.name, source.shards) for source in stage.sources] == [("shards", Path("shards"))]


def test_a_stage_is_as_the_one_before_but_for_what_it_says() -> None:
    first, second, third = stages(
        stage=[
            {"name": "connector", "trained": ["connector"], "optimizer": {"learning_rate": 1e-2}},
            {"name": "larger", "steps": 7, "size_px": 64, "rows_per_batch": 1},
            {"name": "all", "trained": ["connector", "language"], "schedule": {"kind": "linear"}},
        ]
    )
    assert [stage.output for stage in (first, second, third)] == [
        Path("model/before/connector"),
        Path("model/before/larger"),
        Path("model"),
    ]
    assert [stage.plan for stage in (first, second, third)] == [
        Path("plan/connector"),
        Path("plan/larger"),
        Path("plan/all"),
    ]
    assert [stage.training.steps for stage in (first, second, third)] == [10, 7, 10]
    assert [stage.training.optimizer.learning_rate for stage in (first, second, third)] == [1e-2] * 3
    assert [stage.training.schedule.kind for stage in (first, second, third)] == ["cosine", "cosine", "linear"]
    assert [stage.trained for stage in (first, second, third)] == [
        ("connector",),
        ("connector",),
        ("connector", "language"),
    ]
    assert [stage.pictures.size_px for stage in (first, second, third)] == [32, 64, 64]
    assert [stage.mix.rows_per_batch for stage in (first, second, third)] == [2, 1, 1]


def test_a_stage_of_the_same_rows_goes_on_where_the_one_before_ended() -> None:
    told = [
        {"name": "a"},
        {"name": "b", "rows_per_batch": 1, "optimizer": {"learning_rate": 1e-4}},
        {"name": "c"},
        {"name": "d", "row_tokens": 128},
        {"name": "e"},
    ]
    ramp = [{"steps": 4, "rows_per_batch": 1}]
    found = stages(stage=told, mix={"row_tokens": 64, "rows_per_batch": 2, "ramp": ramp})
    # 4 rows of the ramp-up and 6 x 2; a ramp-up is not repeated; the third has rows of one as well.
    assert [stage.first_row for stage in found] == [0, 16, 26, 0, 10]
    assert [len(stage.mix.ramp) for stage in found] == [1, 0, 0, 0, 0]


def test_a_stage_mixes_the_sources_that_it_weighs() -> None:
    told = [
        {"name": "all", "weights": {"pages": 0.5, "pairs": 0.5}},
        {"name": "same"},
        {"name": "one", "weights": {"pairs": 1.0}},
    ]
    found = stages(shards=None, source=SOURCES, stage=told)
    assert [[(source.name, source.weight) for source in stage.sources] for stage in found] == [
        [("pages", 0.5), ("pairs", 0.5)],
        [("pages", 0.5), ("pairs", 0.5)],
        [("pairs", 1.0)],
    ]
    assert [stage.first_row for stage in found] == [0, 20, 0]


def test_tokens_of_a_square_are_those_that_the_connector_makes() -> None:
    pictures = PictureSettings(size_px=64, patch_px=16)
    shuffled = MODEL_SETTINGS.model_validate(
        {**MODEL_SETTINGS.model_dump(), "connector": {"type": "pixel_shuffle", "factor": 2}}
    )
    assert fit_tokens(pictures.model_copy(update={"tokens": 9}), MODEL_SETTINGS).tokens is None
    assert fit_tokens(pictures, shuffled).tokens == 4
    with pytest.raises(ValueError, match="2 does not divide"):
        fit_tokens(PictureSettings(size_px=48, patch_px=16), shuffled)


Case = tuple[dict[str, Any], tuple[str | int, ...], str]
OPTIMIZER = {"learning_rate": 1e-3}
CASES: dict[str, Case] = {
    "two stages of a name": (
        {"stage": [{"name": "a"}, {"name": "a"}]},
        ("stage", 1, "name"),
        "an earlier stage is called a too",
    ),
    "weights of no source": (
        {"stage": [{"name": "a", "weights": {"pagse": 1.0, "shards": 1.0}}]},
        ("stage", 0, "weights", "pagse"),
        "no source of this recipe. Known: shards.",
    ),
    "a weight for some": (
        {
            "shards": None,
            "source": [{**SOURCES[0], "weight": 1.0}, {**SOURCES[1], "weight": 1.0}],
            "stage": [{"name": "a", "size_px": 64, "max_tiles": 3, "row_tokens": 40}],
        },
        ("stage", 0, "row_tokens"),
        "a row has 40 positions, but a picture takes 160",
    ),
    "squares of a later stage": (
        {"mix": {"row_tokens": 512, "row_images": 2}, "stage": [{"name": "a"}, {"name": "b", "max_tiles": 2}]},
        ("mix", "row_images"),
        "a row has 2 images, but a picture is up to 5 squares",
    ),
    "squares of no whole patches": (
        {"stage": [{"name": "a"}, {"name": "b", "size_px": 40}]},
        ("stage",),
        "size_px = 40 is not a multiple of patch_px = 16; try size_px = 32",
    ),
    "no adapters to merge": (
        {"stage": [{"name": "a", "merge_adapters": True}]},
        ("stage", 0, "merge_adapters"),
        "no stage before has adapters",
    ),
    "adapters on what is trained": (
        {"stage": [{"name": "a", "adapters": {"rank": 2}}]},
        ("stage", 0, "adapters", "language"),
        "take language out of trained",
    ),
    "nothing trained": (
        {"stage": [{"name": "a", "trained": []}]},
        ("stage", 0, "trained"),
        "nothing would be trained",
    ),
    "evaluation of nothing": (
        {"training": {"steps": 1, "optimizer": OPTIMIZER, "monitor": {"evaluation_every_steps": 5}}},
        ("training", "monitor", "evaluation_every_steps"),
        "needs held-out samples",
    ),
    "held-out samples that nobody looks at": ({"heldout": "shards/heldout"}, ("heldout",), "is never looked at"),
    "an export that the last stage excludes": (
        {"export": "llava", "mix": {"row_tokens": 128}, "stage": [{"name": "a"}, {"name": "b", "max_tiles": 2}]},
        ("pictures", "max_tiles"),
        "the llava format cannot express this model",
    ),
    "native pictures for a connector of whole squares": (
        {"pictures": {"size_px": 32, "patch_px": 16, "aspect": "native"}},
        ("model", "connector", "type"),
        "mlp joins the patches of a whole square",
    ),
    "tiles that cross-attention would pass over": (
        {
            "model": {**MODEL_SETTINGS.model_dump(mode="json"), "family": "cross_attention"},
            "mix": {"row_tokens": 64, "row_images": 16},
            "stage": [{"name": "a"}, {"name": "b", "max_tiles": 2}],
        },
        ("model", "cross_attention", "attend"),
        'wanted attend = "earlier", or max_tiles = 1',
    ),
    "a width that the language model does not tell": (
        {
            "model": {
                **MODEL_SETTINGS.model_dump(mode="json"),
                "connector": {"type": "perceiver", "hidden_like_language": True},
                "language": {"type": "gpt2", "config": {"n_embd": 32, "n_layer": 1, "n_head": 4}},
            }
        },
        ("model", "connector", "hidden_like_language"),
        "this gpt2 does not say how wide its MLPs are inside",
    ),
    "a stage longer than the model knows": (
        {"stage": [{"name": "a"}, {"name": "b", "row_tokens": 512}]},
        ("model", "language", "config", "max_position_embeddings"),
        "128 positions, but a row has 512",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_said_at_its_place(case: str) -> None:
    fields, place, words = CASES[case]
    found = [sentence for location, sentence in check(make_recipe(**fields)) if location == place]
    assert len(found) == 1, check(make_recipe(**fields))
    assert words in found[0]


def test_a_recipe_that_fits_says_nothing() -> None:
    told = [
        {"name": "adapters", "trained": ["connector"], "adapters": {"rank": 2, "vision": ["q_proj"]}},
        {"name": "larger", "size_px": 64},
        {"name": "merged", "merge_adapters": True, "trained": ["connector", "language"], "weights": {"pages": 1.0}},
    ]
    assert check(make_recipe(shards=None, source=SOURCES, stage=told)) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"source": SOURCES}, "either shards .one folder. or"),
        ({"shards": None}, "either shards .one folder. or"),
        ({"init_from": "there"}, "either .model. or init_from"),
        ({"model": None}, "either .model. or init_from"),
        ({"shards": None, "source": [SOURCES[0], SOURCES[0]]}, "two sources are called pages"),
        ({"stage": [{"name": "a", "weights": {}}]}, "weights names no source"),
        ({"stage": [{"name": "a", "weights": {"shards": 0.0}}]}, "not above 0; leave the source out"),
        ({"stage": [{"name": "../a"}]}, "match pattern"),
    ],
)
def test_what_excludes_one_another_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        make_recipe(**fields)


def test_a_start_is_a_model_with_what_makes_its_inputs(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "base")
    start = read_start(folder)
    assert (start.pictures.size_px, start.longest, start.tokenizer_file) == (32, 128, folder / "tokenizer.json")
    assert {path.name for path in start.files()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "inputs.json",
    }
    assert check(make_recipe(model=None, init_from=folder, pictures=None)) == []
    found = check(make_recipe(model=None, init_from=folder, mix={"row_tokens": 256}, pictures=None))
    assert found == [(("init_from",), "128 positions, but a row has 256 (mix.row_tokens); wanted as many.")]
    inside = make_recipe(model=None, init_from=folder, output=tmp_path, pictures=None)
    assert [place for place, _ in check(inside)] == [("init_from",)]
    (folder / "inputs.json").unlink()
    with pytest.raises(InputError, match=r"inputs\.json: missing; a model's folder holds it"):
        read_start(folder)
    with pytest.raises(InputError, match=r"no model here .config\.json: No such file"):
        read_start(tmp_path / "nowhere")


def test_a_recipe_changes_of_a_start_only_the_pictures_that_it_writes(tmp_path: Path) -> None:
    start = read_start(write_model(tmp_path / "base"))
    assert start.shown(PictureSettings()) == start.pictures
    assert start.shown(PictureSettings(size_px=64)) == start.pictures.model_copy(update={"size_px": 64})
    given = PictureSettings(mean=(0.1, 0.2, 0.3))
    assert start.shown(given).mean == (0.1, 0.2, 0.3)


def test_what_the_model_of_a_start_brings_cannot_be_written_otherwise(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "base")

    def found(**fields: Any) -> list[tuple[tuple[str | int, ...], str]]:
        return check(make_recipe(model=None, init_from=folder, **{"pictures": None, **fields}))

    assert found(tokenizer={"vocabulary_size": 4096, "folder": None}, pictures={"patch_px": 16}) == []
    (place, words), *more = found(tokenizer={"vocabulary_size": 999})
    assert (place, more) == (("tokenizer",), [])
    assert words.endswith("brings its own; leave [tokenizer] out.")
    (place, words), *more = found(pictures={"patch_px": 8})
    assert (place, more) == (("pictures", "patch_px"), [])
    assert "has patches of 16 px; leave it out" in words
    (place, words), *more = found(pictures={"size_px": 40, "patch_px": 8})
    assert (place, more[0][0]) == (("pictures", "patch_px"), ("pictures", "size_px"))
    assert "size_px = 40 is not a multiple of patch_px = 16" in more[0][1]


def test_a_start_that_another_recipe_is_to_write_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    recipe = make_recipe(model=None, init_from=folder, pictures=None)
    assert ("init_from", "model", folder) in list(recipe.folders_read())
    assert check(recipe) == []
    write_model(folder)
    assert [name for name, _, _ in recipe.folders_read()] == ["shards"]


def test_every_folder_of_sources_is_read() -> None:
    recipe = make_recipe(shards=None, source=SOURCES, heldout="shards/heldout")
    assert [(name, str(folder)) for name, _, folder in recipe.folders_read()] == [
        ("source.0.shards", "shards/pages"),
        ("source.1.shards", "shards/pairs"),
        ("heldout", "shards/heldout"),
    ]


def affecting(**fields: Any) -> dict[str, Any]:
    recipe = make_recipe(**fields)
    assert recipe.model is not None
    (stage,) = stages_of(recipe, recipe.pictures, recipe.model)
    plan: Any = None
    return Given(recipe=recipe, stage=stage, plan=plan, shards={}, heldout=None, origin=None).affecting


def test_settings_that_came_later_are_in_a_key_only_where_they_are_used() -> None:
    found = affecting()
    assert set(found["model"]) == {"family", "vision", "connector", "language", "adapters"}
    assert not {"aspect", "shortest_px"} & set(found["inputs"]["pictures"])
    perceiver = {"type": "perceiver", "latents": 4, "heads": 2, "kv_heads": 2}
    model = {**MODEL_SETTINGS.model_dump(mode="json"), "connector": perceiver}
    assert not {"norm_epsilon", "hidden_like_language"} & set(affecting(model=model)["model"]["connector"])
    crossed = {**model, "family": "cross_attention", "cross_attention": {"every": 1}}
    assert affecting(model=crossed)["model"]["cross_attention"]["every"] == 1
    native = {"size_px": 32, "patch_px": 16, "aspect": "native", "shortest_px": 16}
    shown = affecting(model=model, pictures=native)["inputs"]["pictures"]
    assert (shown["aspect"], shown["shortest_px"]) == ("native", 16)


def test_a_stage_may_begin_with_a_ramp_of_its_own() -> None:
    ramp = [{"steps": 4, "rows_per_batch": 1}]
    first, second, third = stages(stage=[{"name": "a"}, {"name": "b", "ramp": ramp}, {"name": "c"}])
    assert [len(stage.mix.ramp) for stage in (first, second, third)] == [0, 1, 0]
    # 10 steps of 2 rows, then 4 of 1 row and 6 of 2: no row comes twice.
    assert [stage.first_row for stage in (first, second, third)] == [0, 20, 36]


def test_native_pictures_grow_from_stage_to_stage() -> None:
    perceiver = {"type": "perceiver", "latents": 4, "heads": 2, "kv_heads": 2}
    model = {**MODEL_SETTINGS.model_dump(mode="json"), "connector": perceiver}
    told = [{"name": "a"}, {"name": "b", "size_px": 64, "shortest_px": 32}, {"name": "c"}]
    native = {"size_px": 32, "patch_px": 16, "aspect": "native"}
    found = stages(model=model, pictures=native, stage=told)
    assert [(stage.pictures.size_px, stage.pictures.shortest_px) for stage in found] == [(32, None), (64, 32), (64, 32)]
    assert [stage.pictures.square_tokens for stage in found] == [4, 4, 4]
