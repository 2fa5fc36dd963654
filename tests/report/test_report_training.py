"""What is told of a training run: far, good, fast, where it goes on; at work, stopped, done, in stages, damaged."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from report_training import (
    at_work,
    finish,
    keep_recipe_of,
    settings_of,
    step_record,
    write_checkpoint_at,
    write_plan,
    write_steps,
)
from selectolax.lexbor import LexborHTMLParser

from carnac.report.page import render
from carnac.report.story import read_story
from carnac.report.text import describe
from carnac.report.training_facts import duration
from carnac.train.metrics import SourceRecord

WEB = {"name": "web", "weight": 3.0, "max_epochs": None}
SHAPES = {"name": "shapes", "weight": 1.0, "max_epochs": 2}
COUNTS = {"rows": 4, "fewest_rows": 4, "pieces": 6, "tokens": 200, "text_tokens": 160, "labels": 120, "images": 5}
COUNTS |= {"pieces.web": 4, "tokens.web": 150, "text_tokens.web": 120, "labels.web": 90, "images.web": 2}
COUNTS |= {"pieces.shapes": 2, "tokens.shapes": 50, "text_tokens.shapes": 40, "labels.shapes": 30, "images.shapes": 3}
COUNTS |= {"epoch.web": 8, "epoch.shapes": 1, "last_row.shapes": 3, "fill_per_mille": 781}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 50 steps that came to step 42, with checkpoints before steps 20 and 40 and a plan."""
    model = tmp_path / "out" / "model"
    write_steps(model, range(42))
    write_plan(tmp_path / "out" / "plan", [WEB, SHAPES], COUNTS)
    for step in (20, 40):
        write_checkpoint_at(model, step, settings_of(50))
    return tmp_path / "out"


def line(text: str, name: str) -> str:
    """Return what a line of the figures says."""
    (found,) = re.findall(rf"^  {name}: (.*)$", text, re.MULTILINE)
    return str(found)


def row(text: str, name: str) -> list[str]:
    """Return the cells of a table's row."""
    (found,) = re.findall(rf"^  {name}  +(.*)$", text, re.MULTILINE)
    return re.split(r"  +", found)


# -- in words


def test_a_run_at_work_says_how_far_it_is_and_how_long_it_takes(run: Path) -> None:
    at_work(run / "model", is_alive=True)
    text = describe(run)
    assert "training: 42 of 50 steps so far; loss 5.000 at step 0, 4.180 at step 41, mean of the last 4: 4.210" in text
    assert line(text, "speed") == "240 tokens/s, 6.0 images/s, 2 TFLOP/s, waiting for data 10.0 %"
    assert line(text, "time") == "21 s in steps, about 4 s to go"
    assert line(text, "rates") == "connector 0.001, language 0.0001 at step-00000040"
    assert (
        line(text, "gradient") == "norm 1 (median of the last 4), 50 % of the steps clipped at 1, longest 1.5 at step 1"
    )
    assert line(text, "grounding") == "loss after an image 3.000, 3.250 with images of other samples at step 40: +0.250"
    assert line(text, "heldout loss") == "4.11 at step 39; 4.11 to 4.31 in 2 evaluations"
    assert "goes on from" not in line(text, "checkpoints")
    assert row(text, "41") == ["4.1800", "0.001", "1.5", "90", "120", "3", "0.50", "0.050"]


def test_a_run_that_died_says_what_is_made_again(run: Path) -> None:
    at_work(run / "model", is_alive=False)
    text = describe(run)
    assert "to go" not in line(text, "time")
    sizes = r"step-00000020 \([\d.]+ MB\), step-00000040 \([\d.]+ MB\)"
    again = "the same command goes on from step 40: the 2 steps after it are made again"
    assert re.fullmatch(f"{sizes}; {again}", line(text, "checkpoints"))
    assert "model: stopped: process" in text


def test_why_a_run_stopped_is_told(run: Path) -> None:
    at_work(run / "model", is_alive=False, why_stopped="stopped before step 42 of 50, as the file stop asked")
    assert "It stopped because: stopped before step 42 of 50, as the file stop asked" in describe(run)


def test_a_finished_run_neither_goes_on_nor_has_steps_to_make(run: Path) -> None:
    write_steps(run / "model", range(42, 50))
    finish(run / "model", 50)
    text = describe(run)
    assert "training: 50 steps; loss 5.000 at step 0" in text
    assert "goes on" not in text
    assert "to go" not in text


def test_the_plan_is_told_source_by_source(run: Path) -> None:
    text = describe(run)
    assert line(text, "plan") == (
        "4 rows of 1.5 pieces, fill 0.781 (whole pieces allow 0.781 at most), 46.9% of the positions carry loss, "
        "5 images"
    )
    tables = text.split("\nplan\n")[1].split("\n\n")[0].splitlines()
    assert tables[0].split()[:3] == ["source", "text", "tokens"]
    assert re.split(r"  +", tables[1].strip()) == ["web", "75 % (wanted 75 %)", "75 %", "2", "4", "0.50"]
    # Rows 0 to 3 are one batch: the source's last piece is in step 0.
    assert re.split(r"  +", tables[2].strip()) == ["shapes", "25 % (wanted 25 %)", "25 %", "3", "2", "2.00", "step 0"]


def test_counts_by_source_do_not_fill_the_table_of_stages(run: Path) -> None:
    stages = describe(run).split("\n\n")[0]
    assert "fewest_rows=4" in stages
    assert ".shapes=" not in stages


def test_an_older_plan_says_how_full_it_is(run: Path) -> None:
    shutil.rmtree(run / "plan")
    write_plan(run / "plan", [], {"fill_per_mille": 988, "pieces": 6})
    assert line(describe(run), "plan") == "4 rows, fill 0.988"


def test_the_sources_are_told_as_they_were_met(run: Path) -> None:
    text = describe(run).split("sources, as met so far\n")[1]
    assert re.split(r"  +", text.splitlines()[1].strip()) == [
        "web",
        "3.210",
        "2,520 (66.7 %)",
        "3,360 (66.7 %)",
        "42 (33.3 %)",
    ]


def test_bad_samples_are_counted(tmp_path: Path) -> None:
    write_steps(tmp_path, range(3), stand_ins=2)
    assert (
        line(describe(tmp_path), "bad samples")
        == "6 with a picture that does not decode: grey, and their labels masked"
    )
    write_steps(tmp_path / "other", range(3))
    assert "bad samples" not in describe(tmp_path / "other")


def test_the_use_of_a_device_is_told_where_its_peak_is_known(tmp_path: Path) -> None:
    write_steps(tmp_path, range(20), mfu=0.4)
    assert "MFU 40 %" in line(describe(tmp_path), "speed")


def test_a_run_of_one_source_has_no_table_of_sources(tmp_path: Path) -> None:
    only = {"web": SourceRecord(loss=1.0, label_tokens=1, tokens=1, images=0)}
    write_steps(tmp_path, range(3), sources=only)
    text = describe(tmp_path)
    assert "sources" not in text
    assert "the last steps" in text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.25, "0.25 s"),
        (9, "9 s"),
        (59.7, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (5430, "1 h 30 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_times_are_told_in_their_two_largest_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


# -- checkpoints


def test_of_many_checkpoints_the_oldest_and_the_newest_are_named(tmp_path: Path) -> None:
    write_steps(tmp_path, range(8))
    for step in range(1, 8):
        write_checkpoint_at(tmp_path, step, settings_of(9))
    told = line(describe(tmp_path), "checkpoints")
    assert re.sub(r" \([\d.]+ MB\)", "", told).startswith("step-00000001, ... 4 more, step-00000006, step-00000007; ")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: (path / "optimizer.safetensors").unlink(), "optimizer.safetensors is missing"),
        (lambda path: (path / "state.json").write_text('{"step": '), "state.json is damaged"),
        (lambda path: (path / "state.json").unlink(), "state.json is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_last_good_one_counts(run: Path, damage: Any, said: str) -> None:
    damage(run / "model" / "checkpoints" / "step-00000040")
    told = line(describe(run), "checkpoints")
    assert f"damaged: {said}" in told
    assert told.endswith("goes on from step 20: the 22 steps after it are made again")
    damage(run / "model" / "checkpoints" / "step-00000020")
    assert line(describe(run), "checkpoints").endswith("; none is whole")


def test_checkpoints_without_metrics_are_told(run: Path) -> None:
    (run / "model" / "metrics.jsonl").unlink()
    text = describe(run)
    assert "training: no step is told: metrics.jsonl is missing or empty" in text
    assert line(text, "checkpoints").endswith("goes on from step 40")
    assert "no step is told" in render(read_story(run))


def test_a_moved_run_tells_the_same(run: Path, tmp_path: Path) -> None:
    before = describe(run)
    moved = run.rename(tmp_path / "elsewhere")
    assert describe(moved) == before


# -- stages


@pytest.fixture
def stages(tmp_path: Path) -> Path:
    """Two stages are done, the third is at step 5 of 30."""
    out = tmp_path / "out"
    for name, steps, moment in (("warm", 10, 100), ("align", 20, 200)):
        folder = out / "model" / "before" / name
        write_steps(folder, range(steps))
        finish(folder, steps)
        os.utime(folder / "metrics.jsonl", (moment, moment))
        write_plan(out / "plan" / name, [], {"fill_per_mille": 900})
    write_steps(out / "model", range(5))
    write_checkpoint_at(out / "model", 3, settings_of(30))
    write_plan(out / "plan" / "instruct", [], {"fill_per_mille": 950})
    return out


def test_stages_are_told_in_the_order_in_which_they_were_trained(stages: Path) -> None:
    (training,) = read_story(stages).trainings
    assert [stage.name for stage in training.stages] == ["warm", "align", "instruct"]
    text = describe(stages)
    assert "training (instruct): 5 of 30 steps so far" in text
    assert row(text, r"1\. warm")[:2] == ["done", "10 of 10"]
    assert row(text, r"3\. instruct")[:2] == ["not finished", "5 of 30"]
    assert line(text, "plan") == "4 rows, fill 0.950"


def test_the_recipe_beside_a_finished_run_names_its_stages(stages: Path) -> None:
    finish(stages / "model", 5)
    keep_recipe_of(stages / "model", ["align", "warm", "instruct"])
    (training,) = read_story(stages).trainings
    assert [stage.name for stage in training.stages] == ["align", "warm", "instruct"]
    assert "training (instruct): 5 steps;" in describe(stages)


def test_a_first_stage_at_work_is_a_run_too(tmp_path: Path) -> None:
    write_steps(tmp_path / "model" / "before" / "warm", range(4))
    (training,) = read_story(tmp_path).trainings
    assert [stage.name for stage in training.stages] == ["warm"]
    assert "training (warm): 4 steps so far" in describe(tmp_path)


def test_stages_are_one_curve_on_the_page(stages: Path) -> None:
    tree = LexborHTMLParser(render(read_story(stages)))
    notes = [node.text() for node in tree.css("p.small")]
    assert "Dotted lines are where stages begin: 1 warm, 2 align, 3 instruct." in notes
    assert len([node for node in tree.css("h3") if node.text() == "Loss"]) == 1


# -- several runs


def test_each_of_several_runs_is_told_with_its_own_plan(tmp_path: Path) -> None:
    for seed in range(2):
        write_steps(tmp_path / f"seed{seed}" / "model", range(5 + seed))
        write_plan(tmp_path / f"seed{seed}" / "plan", [], {"fill_per_mille": 900 + seed})
    text = describe(tmp_path)
    assert "training (seed0/model): 5 steps so far" in text
    assert "training (seed1/model): 6 steps so far" in text
    assert re.findall(r"^  plan: (.*)$", text, re.MULTILINE) == ["4 rows, fill 0.900", "4 rows, fill 0.901"]
    assert len(LexborHTMLParser(render(read_story(tmp_path))).css("div.panels")) == 2


def test_of_many_runs_each_has_a_line(tmp_path: Path) -> None:
    for seed in range(6):
        write_steps(tmp_path / f"seed{seed}", range(3))
    text = describe(tmp_path)
    assert len(re.findall(r"^training \(seed\d\): 3 steps so far", text, re.MULTILINE)) == 6
    assert "the last steps" not in text
    tree = LexborHTMLParser(render(read_story(tmp_path)))
    assert len(tree.css("div.panels")) == 4
    assert [node.text()[:6] for node in tree.css("p.grave")] == ["seed4:", "seed5:"]


def test_brief_is_a_line(run: Path) -> None:
    brief = describe(run, brief=True)
    assert brief.startswith("training: 42 of 50 steps so far; loss 5.000 at step 0")
    assert "\n" not in brief


# -- the page


def test_the_page_has_the_figures_the_drawings_and_the_tables(run: Path) -> None:
    html = render(read_story(run))
    tree = LexborHTMLParser(html)
    assert [node.text() for node in tree.css("h1")] == ["A training run"]
    figures = dict(
        zip([n.text() for n in tree.css("dl.facts dt")], [n.text() for n in tree.css("dl.facts dd")], strict=True)
    )
    assert figures["speed"] == "240 tokens/s, 6.0 images/s, 2 TFLOP/s, waiting for data 10.0 %"
    titles = [node.text() for node in tree.css("h3")]
    assert titles == [
        "Loss",
        "Loss by source",
        "Grounding",
        "On held-out samples",
        "Learning rate",
        "Gradient norm",
        "Tokens per second",
        "Waiting for data",
        "Sources, as met so far",
        "Plan",
        "The last steps",
    ]
    assert len(html) < 600_000


def test_names_of_sources_stay_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    sources = {name: SourceRecord(loss=2.0, label_tokens=3, tokens=4, images=0) for name in (hostile, "\x1b[31m$x$")}
    write_steps(tmp_path, range(3), sources=sources, evaluation={hostile: 1.0})
    html = render(read_story(tmp_path))
    assert "<script" not in html
    assert "\x1b" not in html + describe(tmp_path)
    assert hostile in [node.text().strip() for node in LexborHTMLParser(html).css("p.legend span")]


def test_a_step_is_read_while_it_is_written(run: Path) -> None:
    with (run / "model" / "metrics.jsonl").open("a") as file:
        file.write(step_record(42).to_json()[:50])
    assert "training: 42 of 50 steps so far" in describe(run)
    assert "Loss" in render(read_story(run))
