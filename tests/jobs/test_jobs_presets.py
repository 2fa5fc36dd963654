"""The recipes of IDEFICS and Idefics2, and the shapes in both families: checked, compared, trained for 20 steps."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jobs_model import WORDS, DoneHere, picture, row, runner, write_shards

from carnac.jobs.describe import measure_recipe
from carnac.jobs.models import open_model
from carnac.jobs.recipes import load_checked
from carnac.jobs.train import TrainRecipe, check, run
from carnac.jobs.train_start import read_start
from carnac.model.adapters import merge_adapters
from carnac.model.formats import FormatName
from carnac.model.formats.description import describe_model
from carnac.model.formats.folders import SpecialIds, write_folder
from carnac.model.formats.processor import write_processor
from carnac.report.model_text import size_text
from carnac.report.text import describe as told_of
from carnac.train.metrics import read_metrics

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL, LARGE = RECIPES / "idefics" / "51-train-9b.toml", RECIPES / "idefics" / "52-train-80b.toml"
SECOND = RECIPES / "idefics2" / "51-train.toml"
SOURCES = {"idefics": ("obelics", "wikipedia", "laion", "pmd"), "idefics2": ("obelics", "pairs", "scans", "cauldron")}

TOWER = "hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, patch_size=14"
WORDS_MODEL = "hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=2"
STAND_INS = {
    "idefics": (
        f'model.vision={{type="clip_vision_model", class_token=true, config={{{TOWER}}}}}',
        f'model.language={{type="llama", config={{{WORDS_MODEL}, max_position_embeddings=2048}}}}',
    ),
    "idefics2": (
        f'model.vision={{type="siglip_vision_model", config={{{TOWER}}}}}',
        f'model.language={{type="mistral", config={{{WORDS_MODEL}, max_position_embeddings=2048}}}}',
    ),
}
# Nothing of the model: on a busy machine two threads wait for each other, and a process more takes seconds to begin.
QUIET = ("training.threads=1", "mix.workers=0")


def tables(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def long_document(number: int) -> dict[str, Any]:
    """Return a page of 360 words with a picture."""
    words = WORDS.split()
    turned = " ".join(words[number % len(words) :] + words[: number % len(words)])
    return row(f"d{number}", [f"Page {number}.", picture(number), " ".join([turned] * 20)])


def write_sources(name: str, per_source: int) -> None:
    """Write the shards that a preset reads, below the working folder."""
    for first, source in enumerate(SOURCES[name]):
        rows = [long_document(100 * first + number) for number in range(per_source)]
        write_shards(Path("out") / name / "shards" / source / "train", rows)


@pytest.mark.parametrize("name", ["idefics", "idefics2", "shapes-cross-attention"])
def test_every_preset_passes_check(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = load_checked([RECIPES / name], [])
    assert [recipe.source.path for recipe in found] == sorted((RECIPES / name).glob("*"))


@pytest.mark.parametrize(
    ("path", "billions", "places"),
    [(SMALL, 8.930, 1), (LARGE, 79.968, 1), (SECOND, 8.403, 64)],
    ids=lambda value: str(value)[-20:],
)
def test_a_preset_describes_the_published_number_of_parameters(path: Path, billions: float, places: int) -> None:
    size = measure_recipe(path)
    assert round(size.parameters / 1e9, 3) == billions
    assert size.tokens_per_image == places


def test_blocks_are_told_apart_from_the_resampler_and_trained_with_it() -> None:
    size = measure_recipe(SMALL, ['model.trained=["connector"]'])
    millions = {part.name: round(part.parameters / 1e6, 1) for part in size.parts}
    assert millions == {"vision": 630.8, "connector": 126.0, "cross attention": 1434.5, "language": 6738.4}
    assert [part.name for part in size.parts if part.trained] == ["connector", "cross attention"]
    assert "gated blocks, one for every 4 layers" in size_text(size)
    assert "squares of 224 px, 1 place in a row each" in size_text(size)


def test_the_two_sizes_of_idefics_differ_in_the_language_model_and_in_batch_and_rate_alone() -> None:
    small, large = tables(SMALL), tables(LARGE)
    for found in (small, large):
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps"):
            del found["model"]["language"]["config"][name]
        del found["plan"], found["output"], found["mix"]["rows_per_batch"]
        del found["training"]["optimizer"]["learning_rate"]
    assert small == large


def test_the_shapes_in_cross_attention_differ_in_the_family_alone() -> None:
    one, other = (
        tables(RECIPES / "shapes" / "02-train.toml"),
        tables(RECIPES / "shapes-cross-attention" / "02-train.toml"),
    )
    assert (other["model"].pop("family"), len(other["model"].pop("cross_attention"))) == ("cross_attention", 2)
    for name in ("shards", "plan", "output"):
        assert one.pop(name) != other.pop(name)
    assert one == other


@pytest.mark.parametrize(("path", "steps"), [(SMALL, 20), (LARGE, 2)], ids=["9b", "80b"])
def test_idefics_trains_on_stand_ins_of_the_towers(
    path: Path, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: DoneHere
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sources("idefics", 24)
    (loaded,) = load_checked([path], [*STAND_INS["idefics"], *QUIET, f"limit={steps}"])
    assert isinstance(loaded.settings, TrainRecipe)
    run(loaded.settings, runner()[0])
    rows = read_metrics(loaded.settings.output / "metrics.jsonl")
    assert len(rows) == steps
    assert all(math.isfinite(each["loss"]) and each["gradient_norm"] > 0 for each in rows)
    assert sum(each["images"] for each in rows) > steps
    if steps == 20:
        assert {source for each in rows for source in each["sources"]} == set(SOURCES["idefics"])
    opened = open_model(loaded.settings.output)
    assert "pictures read by cross-attention" in told_of(loaded.settings.output)
    model: Any = opened.model
    assert len(model.fusion) == 1
    assert set(opened.tokenizer.marks) == {"<fake_token_around_image>"}
    assert float(model.fusion[0].attention_gate.detach()) != 0.0  # where it began


def test_idefics2_trains_twenty_steps_in_its_four_stages_on_stand_ins_of_the_towers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: DoneHere
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sources("idefics2", 12)
    (loaded,) = load_checked([SECOND], [*STAND_INS["idefics2"], *QUIET, "limit=5"])
    assert isinstance(loaded.settings, TrainRecipe)
    run(loaded.settings, runner()[0])
    output = loaded.settings.output
    folders = [*(output / "before" / name for name in ("connector", "adapters", "resolution")), output]
    losses = [each["loss"] for folder in folders for each in read_metrics(folder / "metrics.jsonl")]
    assert len(losses) == 20
    assert all(math.isfinite(loss) for loss in losses)
    opened = open_model(output)
    assert (opened.model.image_size_px, opened.inputs.pictures.shortest_px) == (980, 378)
    assert opened.model.settings.adapters is not None
    assert opened.model.settings.adapters.dora


@pytest.mark.parametrize("name", ["idefics", "idefics2"])
def test_an_exported_folder_is_a_start(
    name: FormatName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: DoneHere
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sources(name, 6)
    path = SMALL if name == "idefics" else SECOND
    (loaded,) = load_checked([path], [*STAND_INS[name], *QUIET, "limit=1"])
    assert isinstance(loaded.settings, TrainRecipe)
    run(loaded.settings, runner()[0])
    opened = open_model(loaded.settings.output)
    if opened.model.settings.adapters is not None:
        merge_adapters(opened.model)
    words, pictures = opened.tokenizer, opened.inputs.pictures
    described = describe_model(opened.model, pictures)
    ids = SpecialIds(image=words.image, begin=words.begin, end=words.end, pad=words.pad)
    write_folder(opened.model.float().eval(), described, name, ids, Path("exported"))
    write_processor(described, name, words, Path("exported"))

    start = read_start(Path("exported"))
    sizes = ("size_px", "patch_px", "square_tokens", "aspect", "shortest_px", "max_tiles", "marks", "resample")
    assert {key: getattr(start.pictures, key) for key in sizes} == {key: getattr(pictures, key) for key in sizes}
    assert (start.settings.family, start.longest) == (opened.model.settings.family, 2048)
    told = {
        "job": "train",
        "shards": f"out/{name}/shards/obelics/train",
        "plan": "plan",
        "output": "further",
        "init_from": "exported",
        "mix": {"row_tokens": 512, "rows_per_batch": 1, "workers": 0},
        "training": {"steps": 2, "threads": 1, "optimizer": {"learning_rate": 1e-3}},
        "export": name,
    }
    further = TrainRecipe.model_validate_json(json.dumps(told), by_alias=True)
    assert check(further) == []
    run(further, runner()[0])
    first, last = read_metrics(Path("further") / "metrics.jsonl")
    assert last["loss"] < first["loss"]
    another = TrainRecipe.model_validate_json(
        json.dumps({**told, "pictures": {"aspect": "square" if start.pictures.aspect == "native" else "native"}}),
        by_alias=True,
    )
    ((place, words_said),) = check(another)
    assert place == ("pictures", "aspect")
    assert f"was trained with aspect = {start.pictures.aspect}; leave it out" in words_said
