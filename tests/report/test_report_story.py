from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from report_run import step_row, write_documents, write_metrics, write_model_files, write_run

from carnac.core.errors import InputError
from carnac.report.page import render
from carnac.report.story import read_story
from carnac.report.text import describe


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "run")


def test_stages_are_told_in_the_order_of_a_run(whole: Path) -> None:
    story = read_story(whole)
    assert [folder.name for folder in story.folders] == [
        "documents",
        "curated/repeats/repeats",
        "curated/masks/z_first",
        "curated/masks/a_last",
        "images",
        "shards/train",
        "shards/heldout",
        "plan/tokenizer",
        "plan/pieces",
        "plan/rows",
        "model",
        "evaluation",
        "chat",
    ]
    assert [len(run.current.series) for run in story.trainings] == [9]
    assert len(story.funnel) == 3
    assert len(story.chats) == 2


def test_a_copy_with_other_times_tells_the_same(whole: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in sorted(whole.rglob("*"), reverse=True):
        if path.is_file():
            target = copy / path.relative_to(whole)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    names = [[found.name for found in read_story(folder).folders] for folder in (whole, copy)]
    assert names[0] == names[1]


def test_a_run_is_found_from_the_folder_above(whole: Path, run: Path) -> None:
    assert len(read_story(run.parent).stages) == 13
    assert "run/curated/masks/a_last" in describe(run.parent)


def test_of_two_runs_the_metrics_are_not_mixed(whole: Path, run: Path) -> None:
    write_metrics(run.parent / "second" / "model", 5)
    assert [len(run.current.series) for run in read_story(run.parent).trainings] == [9, 5]


def test_only_documents(tmp_path: Path) -> None:
    write_documents(tmp_path)
    story = read_story(tmp_path)
    assert [manifest.stage for manifest in story.stages] == ["documents"]
    assert (story.funnel, story.trainings, story.model, story.evaluation, story.chats) == ((), (), None, None, ())
    assert "The old mill" in describe(tmp_path)
    assert "1. Pages in" in render(story)


def test_only_a_model(whole: Path) -> None:
    text = describe(whole / "model")
    assert "model: siglip_vision_model + llama, 1,234,567 parameters, 4 tokens per picture" in text
    assert "training: 9 steps; loss 5.000 at step 0, 3.000 at step 8, mean of the last 1: 3.000" in text
    assert "5. Training" in render(read_story(whole / "model"))


def test_a_checkpoint_alone_is_a_model(tmp_path: Path) -> None:
    write_model_files(tmp_path / "checkpoints" / "step-00000004")
    assert describe(tmp_path).startswith("model: siglip_vision_model + llama, 1,234,567 parameters")
    assert "1.2 M" in render(read_story(tmp_path))


def test_checkpoints_that_come_and_go_are_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is being written is no model yet; one that was removed since the folder was listed is none any more."""
    write_model_files(tmp_path / "checkpoints" / "step-00000004")
    (tmp_path / "checkpoints" / ".step-00000005-77").mkdir()
    (tmp_path / "checkpoints" / ".step-00000005-77" / "config.json").write_text("{")
    names = [".step-00000005-77/config.json", "step-00000003/config.json", "step-00000004/config.json"]
    monkeypatch.setattr("carnac.report.story.names_below", lambda _: [f"checkpoints/{name}" for name in names])
    assert describe(tmp_path).startswith("model: siglip_vision_model + llama, 1,234,567 parameters")


def test_a_run_killed_in_training(run: Path) -> None:
    """No manifest yet, metrics with half a line at the end, the weights only in a checkpoint."""
    (run / "model" / "manifest.json").unlink()
    (run / "model" / "config.json").unlink()
    write_model_files(run / "model" / "checkpoints" / "step-00000004")
    shutil.rmtree(run / "evaluation")
    shutil.rmtree(run / "chat")
    with (run / "model" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    text = describe(run)
    assert "training: 9 steps so far; loss 5.000 at step 0, 3.000 at step 8" in text
    assert "1,234,567 parameters" in text
    page = render(read_story(run))
    assert "5. Training" in page
    assert "6. Does it" not in page


@pytest.mark.parametrize(
    "line",
    ["garbage\n", "\n", "[1, 2]\n", '{"step": 3}\n', '{"loss": 1.0}\n', '{"step": 3, "loss": "low"}\n', "\x00\xff\n"],
)
def test_a_damaged_line_of_metrics_costs_itself(tmp_path: Path, line: str) -> None:
    lines = [json.dumps(step_row(step)) + "\n" for step in range(4)]
    (tmp_path / "metrics.jsonl").write_bytes("".join([*lines[:2], line, *lines[2:]]).encode("latin-1"))
    assert read_story(tmp_path).trainings[0].current.series.steps.tolist() == [0, 1, 2, 3]


def test_a_loss_that_is_no_number_does_not_spoil_the_page(tmp_path: Path) -> None:
    write_metrics(tmp_path, 4)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**step_row(4), "loss": float("nan")}) + "\n")
    page = render(read_story(tmp_path))
    assert "nan," not in page
    assert ",nan" not in page
    assert "nan at step 4" in describe(tmp_path)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_few_steps(tmp_path: Path, steps: int) -> None:
    write_documents(tmp_path)
    write_metrics(tmp_path, steps)
    assert ("training:" in describe(tmp_path)) == (steps > 0)
    assert ("5. Training" in render(read_story(tmp_path))) == (steps > 0)


def test_folders_that_are_links_are_followed_once(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "documents").symlink_to(whole / "documents")
    (tmp_path / "run" / "twice").symlink_to(whole / "documents")
    (tmp_path / "run" / "again").symlink_to(tmp_path / "run")
    assert [folder.name for folder in read_story(tmp_path / "run").folders] == ["documents"]


def test_the_deepest_folder_of_a_run_is_found_and_no_deeper_one(whole: Path, tmp_path: Path) -> None:
    keys = "tiny/curated/repeats/pass/keys/text"
    for name in (keys, f"{keys}/deeper"):
        shutil.copytree(whole / "documents", tmp_path / name)
    assert [folder.name for folder in read_story(tmp_path).folders] == [keys]


def test_the_working_folder_is_a_folder(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(whole)
    assert len(read_story(Path()).stages) == 13
    assert "curated/masks/a_last" in describe(Path())


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder\. Wanted a folder that a run wrote"):
        read_story(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no stage that can be shown"):
        read_story(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"a\.txt: a file\. Wanted a folder"):
        read_story(tmp_path / "a.txt")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b'"x"'])
@pytest.mark.parametrize(
    "name", ["curated/funnel.json", "evaluation/evaluation.json", "model/config.json", "chat/manifest.json"]
)
def test_a_damaged_file_is_a_sentence(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    if (name, content) == ("model/config.json", b"{}"):
        assert read_story(run).model is None  # another program's config.json
        return
    with pytest.raises(InputError, match=rf"{Path(name).name}: damaged \(.+\)\. Delete it and run") as caught:
        read_story(run)
    assert "\n" not in str(caught.value)


def test_a_stage_that_lacks_a_part_is_not_finished_and_the_others_are_shown(run: Path) -> None:
    next((run / "documents").glob("*.parquet")).unlink()
    text = describe(run)
    assert re.search(r"^unknown +documents +unfinished +0 ", text, re.MULTILINE)
    assert "heldout" in text


def test_a_damaged_part_is_a_sentence(run: Path) -> None:
    part = next((run / "chat").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(InputError, match=r"cannot be read \(.+\)\. Move the file away"):
        describe(run)
