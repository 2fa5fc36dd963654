"""Crawl to chat as a newcomer runs it, on the shipped pages, at an even smaller size."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from story_runs import DATA, RECIPES, all_rows, carnac, digests, overrides, run_recipes

ALL = [*DATA, "05-train.toml", "06-evaluate.toml", "07-chat.toml"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole chain was run."""
    folder = tmp_path_factory.mktemp("story")
    run_recipes(folder, ALL)
    return folder


def test_the_chain_leaves_every_stage(finished: Path) -> None:
    stages = set(digests(finished / "out" / "tiny"))
    assert stages >= {
        "documents",
        "images",
        "curated/signals",
        "curated/masks/blocks",
        "curated/masks/documents",
        "curated/masks/repeats",
        "curated/repeats/repeats",
        "shards/train",
        "shards/heldout",
        "plan/tokenizer",
        "plan/pieces",
        "plan/rows",
        "model",
        "evaluation",
        "chat",
    }
    assert len(all_rows(finished / "out/tiny/documents")) == 198
    images = all_rows(finished / "out/tiny/images")
    assert sum(row["status"] == "kept" for row in images) > 80
    assert all(row["reason"] for row in images if row["status"] == "dropped")
    assert len({row["url"] for row in images}) == len(images)


def test_the_loss_falls_and_the_evaluation_speaks(finished: Path) -> None:
    rows = all_rows(finished / "out/tiny/model")
    assert [row["step"] for row in rows] == list(range(12))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.2
    found = json.loads((finished / "out/tiny/evaluation/evaluation.json").read_bytes())
    gain = found["gains"]["shuffled"]
    assert gain["low"] <= gain["estimate"] <= gain["high"]
    assert found["verdict"].startswith(("The model looks", "No sign", "The model does better"))


def test_a_second_run_does_nothing_twice(finished: Path) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}

    before = times()
    out = run_recipes(finished, ALL)
    after = times()
    # evaluation.json is drawn again from the rows; it comes out equal.
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed <= {"evaluation.json"}
    assert set(before) == set(after)
    assert "to do" not in out
    assert out.count("all done before") >= 14


def test_a_changed_threshold_redoes_only_what_depends_on_it(finished: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", str(finished / "out"), str(tmp_path)], check=True)
    out = carnac(tmp_path, "run", str(RECIPES / "03-curate.toml"), "--set", "pass.1.rules.0.min=25")
    lines = [line for line in out.splitlines() if line.startswith(("signals:", "masks:", "repeats:"))]
    done_before = ["all done before" in line for line in lines if "rows" in line]
    # Signals, the first masks; then the masks of the changed pass, the search (what competes came out equal), the last
    # masks (the name of a reason holds its threshold).
    assert done_before == [True, True, False, True, True, False]


def test_datasets_opens_the_shards_with_pictures_as_pictures(finished: Path, tmp_path: Path) -> None:
    script = """
import sys
from datasets import load_dataset
from PIL import Image
samples = load_dataset("parquet", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
pictures = [image for sample in samples for image in sample["images"] if image is not None]
assert pictures and all(isinstance(picture, Image.Image) for picture in pictures)
assert all((text is None) != (image is None) for s in samples for text, image in zip(s["texts"], s["images"]))
print(len(samples), len(pictures))
"""
    shards = str(finished / "out/tiny/shards/train/*.parquet")
    command = [sys.executable, "-c", script, shards, str(tmp_path)]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    samples, pictures = map(int, out.split())
    assert samples == len(all_rows(finished / "out/tiny/shards/train"))
    assert pictures >= samples  # the recipe keeps documents with an image


def test_show_and_the_page_tell_the_story(finished: Path) -> None:
    out = carnac(finished, "show", "out/tiny", "--html", "out/tiny/index.html")
    assert "document.num_images < 1" in out
    assert "12 steps" in out
    assert "95 % interval" in out
    page = (finished / "out/tiny/index.html").read_text()
    for heading in (
        "Pages in",
        "Pictures",
        "What each rule took",
        "as a reader sees",
        "Training",
        "Does it look",
        "Chat",
    ):
        assert heading in page
    assert page.count("data:image/webp;base64,") > 20
    assert "http-equiv" in page
    assert "<script" not in page
    assert 'src="http' not in page


def test_every_output_holds_the_recipe_that_made_it_and_it_runs_again(finished: Path) -> None:
    kept = {path.parent.name for path in finished.rglob("recipe.toml")}
    assert kept == {"documents", "images", "curated", "shards", "model", "evaluation", "chat"}
    out = carnac(finished, "run", "out/tiny/curated/recipe.toml")
    assert out.count("all done before") == 9


def test_chat_answers_about_a_picture_and_in_a_loop(finished: Path) -> None:
    from PIL import Image

    Image.new("RGB", (50, 40), "teal").save(finished / "picture.png")
    first = carnac(finished, "chat", "out/tiny/model", "--image", "picture.png", "What is shown?", "--max-tokens", "8")
    again = carnac(finished, "chat", "out/tiny/model", "--image", "picture.png", "What is shown?", "--max-tokens", "8")
    assert first == again
    assert first.strip()
    loop = subprocess.run(
        [sys.executable, "-m", "carnac", "chat", "out/tiny/model", "--max-tokens", "4"],
        cwd=finished,
        input="/image nowhere.png\n/image picture.png\nWhat is shown?\n/quit\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "nowhere.png: cannot be read" in loop.stdout
    assert not loop.stderr


def test_wrong_models_and_folders_are_sentences(finished: Path) -> None:
    assert "no model here" in carnac(finished, "chat", "out/tiny/shards", "hello", code=1)
    assert "no such folder" in carnac(finished, "show", "nowhere", code=1)
    out = carnac(finished, "run", str(RECIPES / "05-train.toml"), "--set", "training.steps=3", code=1)
    assert "mix.row_tokens: 128 -> 512" in out
    assert "Undo the change, write this run to another folder" in out


def test_what_is_damaged_or_gone_is_made_again(finished: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", str(finished / "out"), str(tmp_path)], check=True)
    out = tmp_path / "out" / "tiny"
    next((out / "images/packs").glob("archived~skimage-00001*.tar")).unlink()
    next((out / "plan/tokenizer").glob("*.json")).rename(tmp_path / "gone.json")
    (out / "curated/funnel.json").write_text('{"drawn')
    (out / "model/tokenizer.json").unlink()
    weights = bytearray((out / "model/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (out / "model/model.safetensors").write_bytes(weights)
    printed = run_recipes(tmp_path, ALL)
    num_stored = sum(row["source"] == "warc" for row in all_rows(finished / "out/tiny/images"))
    assert f"archived: {num_stored} rows" in printed
    assert "1 of 2 units done" in printed
    assert "resumed at step 12" in printed
    assert digests(out) == digests(finished / "out" / "tiny")
    for name in ("curated/funnel.json", "model/tokenizer.json", "model/model.safetensors"):
        assert (out / name).read_bytes() == (finished / "out/tiny" / name).read_bytes()


def test_weights_of_another_run_are_not_taken_for_this_ones(finished: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", str(finished / "out"), str(tmp_path)], check=True)
    model = tmp_path / "out" / "tiny" / "model"
    for seed in ("1", "0"):
        shutil.rmtree(model / "checkpoints")
        run_recipes(tmp_path, ["05-train.toml"], "--set", f"training.seed={seed}")
    assert all_rows(model) == all_rows(finished / "out/tiny/model")
    weights = (model / "model.safetensors").read_bytes()
    assert weights == (finished / "out/tiny/model/model.safetensors").read_bytes()


def test_lost_metrics_are_a_sentence(finished: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", str(finished / "out"), str(tmp_path)], check=True)
    model = tmp_path / "out" / "tiny" / "model"
    (model / "metrics.jsonl").unlink()
    next(model.glob("training-*.parquet")).unlink()
    out = carnac(tmp_path, "run", str(RECIPES / "05-train.toml"), *overrides(["05-train.toml"]), code=1)
    assert "metrics.jsonl: holds 0 steps" in out


def test_an_output_that_is_an_input_or_another_stage_is_refused(finished: Path) -> None:
    before = digests(finished)
    images = str(RECIPES / "02-images.toml")
    same = carnac(finished, "run", images, "--set", "output='out/tiny/documents'", code=2)
    assert "the recipe reads this folder" in same
    other = carnac(finished, "run", str(RECIPES / "06-evaluate.toml"), "--set", "output='out/tiny/plan/rows'", code=2)
    assert "holds stage 'plan' already" in other
    inside = carnac(finished, "run", str(RECIPES / "04-shards.toml"), "--set", "output='out/tiny/images'", code=2)
    assert "the recipe reads this folder" in inside
    assert digests(finished) == before


def test_masks_of_a_pass_that_the_run_no_longer_has_are_not_read(finished: Path) -> None:
    recipes = [str(RECIPES / name) for name in ("03-curate.toml", "04-shards.toml")]
    out = carnac(finished, "check", *recipes, "--set", "pass.2.name=dups", code=2)
    assert "04-shards.toml" in out
    assert "no recipe before this one writes masks there" in out


def test_the_chain_takes_under_two_minutes(tmp_path: Path) -> None:
    began = time.monotonic()
    run_recipes(tmp_path, ALL, "--limit", "30")
    # The bound for the story; about 40 s alone on two cores.
    assert time.monotonic() - began < 120
    assert len(all_rows(tmp_path / "out/tiny/documents")) == 60
