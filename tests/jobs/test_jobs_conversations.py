"""Other people's conversations to shards: rows, splits, what is lost, slices, a run that is killed."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from jobs_model import DoneHere, picture, runner
from store_server import Bucket
from story_runs import carnac, command
from upath import UPath

from carnac.core.errors import InputError, RecipeError
from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.run import EarlyEnd
from carnac.engine.tables import read_rows
from carnac.jobs import conversation_files
from carnac.jobs.conversations import ConversationsRecipe, run
from carnac.jobs.recipes import load_checked
from carnac.shards.settings import QuestionListSettings, SplitSettings


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def talk(name: str, image: str | None = None, answer: str = "a mill") -> dict[str, Any]:
    content = [{"type": "text", "text": f"what is {name}?"}]
    if image is not None:
        content.insert(0, {"type": "image", "path": image})
    return {"id": name, "messages": [message("user", content), message("assistant", answer)]}


def lines(path: Path, records: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = (record if isinstance(record, str) else json.dumps(record) for record in records)
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def pictures(folder: Path, count: int, first: int = 0) -> list[str]:
    names = [f"pictures/{number}.png" for number in range(first, first + count)]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names, first):
        (folder / name).write_bytes(picture(number))
    return names


def recipe(folder: Path, **fields: Any) -> ConversationsRecipe:
    values = {"format": "messages", "train": (str(folder / "data.jsonl"),), "output": folder / "shards", **fields}
    return ConversationsRecipe(job="conversations", **values)


def written(folder: Path, split: str = "train") -> tuple[list[dict[str, Any]], Manifest]:
    manifest = read_manifest(folder / "shards" / split, "shards")
    return [row for entry in manifest.parts for row in read_rows(entry.path)], manifest


def lost(manifest: Manifest) -> dict[str, str]:
    return {entry.record: entry.reason for ledger in manifest.ledgers() for entry in ledger.quarantine}


def test_messages_become_samples_with_roles(tmp_path: Path, done: DoneHere) -> None:
    one, two = pictures(tmp_path, 2)
    system = {"messages": [message("system", "Be brief."), *talk("c")["messages"], message("user", "and now?")]}
    lines(tmp_path / "data.jsonl", [talk("a", one), talk("b", two), system])
    run(recipe(tmp_path, split=SplitSettings(held_out=0.0), source="talks"), runner()[0])
    rows, manifest = written(tmp_path)
    assert [row["id"] for row in rows[:2]] == ["a", "b"]
    assert rows[0]["roles"] == ["user", "user", "assistant"]
    assert rows[0]["texts"] == [None, "what is a?", "a mill"]
    assert rows[0]["images"][0]["bytes"] == picture(0)
    assert rows[0]["images"][0]["path"].endswith(".png")
    assert rows[2]["roles"] == ["system", "user", "assistant"]
    assert {row["source"] for row in rows} == {"talks"}
    facts = json.loads(rows[1]["metadata"])
    assert (facts["file"], facts["record"], facts["image_names"]) == ("data.jsonl", 1, [two])
    assert manifest.counts == {
        "answers": 3,
        "characters": sum(len(text) for row in rows for text in row["texts"] if text),
        "conversations": 3,
        "images": 2,
        "samples": 3,
        "unanswered": 1,
    }
    features = json.loads(pq.read_schema(manifest.parts[0].path).metadata[b"huggingface"])["info"]["features"]
    assert features["images"]["feature"] == {"_type": "Image"}
    assert written(tmp_path, "heldout")[0] == []
    assert (tmp_path / "shards" / "recipe.toml").is_file()


def test_llavas_array_becomes_samples(tmp_path: Path, done: DoneHere) -> None:
    (name,) = pictures(tmp_path, 1)
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A mill."}]
    (tmp_path / "data.json").write_text(
        json.dumps([{"id": "1", "image": "0.png", "conversations": turns}] * 2, indent=1)
    )
    fields = {"format": "llava", "train": (str(tmp_path / "data.json"),), "images": tmp_path / Path(name).parent}
    run(recipe(tmp_path, **fields, split=SplitSettings(held_out=0.0)), runner()[0])
    rows, _ = written(tmp_path)
    assert [row["texts"] for row in rows] == [[None, "What?", "A mill."]] * 2


def easy(folder: Path, questions: Sequence[Any], count: int) -> str:
    folder.mkdir()
    for name in pictures(folder, count):
        (folder / name).rename(folder / Path(name).name)
    (folder / "questions.json").write_text(json.dumps(questions))
    return str(folder / "questions.json")


def test_lists_of_questions_are_grouped_by_picture(
    tmp_path: Path, done: DoneHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation_files, "PICTURES_PER_SLICE", 3)
    questions = [[f"question {number}?", f"{number}", number % 8] for number in range(40)]
    train = easy(tmp_path / "train", [*questions, ["no picture?", "yes"], ["none?", "no", "../1"], ["?", "!", 99]], 8)
    heldout = easy(tmp_path / "test", questions[:8], 8)
    settings = QuestionListSettings(questions_per_conversation=3, picture_name="{id}.png")
    fields = {"format": "questions", "train": (train,), "heldout": (heldout,), "questions": settings}
    run(recipe(tmp_path, **fields), runner()[0])
    rows, manifest = written(tmp_path)
    assert len(manifest.parts) == 4  # ten pictures, two of which are none
    assert lost(manifest) == {
        "questions.json@40": "bad_record",
        "questions.json:../1": "path_leaves_folder",
        "questions.json:99": "missing_picture",
    }
    assert [row["id"] for row in rows] == [f"{number}-{part}" for number in range(8) for part in (0, 1)]
    assert manifest.counts["answers"] == 40
    found = {
        (text, row["texts"][place + 1])
        for row in rows
        for place, text in enumerate(row["texts"])
        if text and "?" in text
    }
    assert found == {(question, answer) for question, answer, _ in questions}
    assert all(row["images"][0]["bytes"] == picture(int(row["id"].split("-")[0])) for row in rows)
    assert [row["id"] for row in written(tmp_path, "heldout")[0]] == [f"{number}-0" for number in range(8)]
    run(recipe(tmp_path, **fields, limit=5), runner()[0])
    assert written(tmp_path)[1].counts["answers"] == 5


def test_a_bad_question_costs_itself_and_what_is_lost_is_counted_on_one_side(tmp_path: Path, done: DoneHere) -> None:
    questions = [["what?", "a mill", 0], ["", "yes", 0], ["what?", " ", 0], ["why?", "who knows", "../0"]]
    train = easy(tmp_path / "train", questions, 1)
    settings = QuestionListSettings(picture_name="{id}.png")
    run(recipe(tmp_path, format="questions", train=(train,), questions=settings), runner()[0])
    (rows, one), (more, two) = written(tmp_path), written(tmp_path, "heldout")
    assert [[text for text in row["texts"] if text] for row in (*rows, *more)] == [["what?", "a mill"]]
    assert lost(one) == {
        "questions.json@1": "empty_turn",
        "questions.json@2": "empty_turn",
        "questions.json:../0": "path_leaves_folder",
    }
    assert lost(two) == {}


BAD: dict[str, Any] = {
    "bad_json": '{"messages": [',
    "bad_record": {"conversation": []},
    "unknown_role": {"messages": [message("tool", "42")]},
    "answer_before_question": {"messages": [message("assistant", "a mill")]},
    "no_answer": {"messages": [message("user", "what?")]},
    "path_leaves_folder": talk("x", "../../etc/passwd"),
    "missing_picture": talk("x", "pictures/gone.png"),
    "not_an_image": talk("x", "pictures/text.png"),
    "truncated_image": talk("x", "pictures/half.png"),
    "image_by_url": talk("x", "https://example.org/a.png"),
}


def test_bad_records_cost_themselves_and_are_counted_once(tmp_path: Path, done: DoneHere) -> None:
    good = pictures(tmp_path, 60)
    (tmp_path / "pictures" / "text.png").write_text("no picture")
    (tmp_path / "pictures" / "half.png").write_bytes(picture(1)[:1000])
    os.mkfifo(tmp_path / "pictures" / "pipe.png")
    records = [talk(name, name) for name in good]
    more = [talk("x", "pictures/pipe.png"), talk("x", "pictures"), talk("x", "n" * 300), talk("x", f"{good[0]}/a.png")]
    lines(tmp_path / "data.jsonl", [*BAD.values(), *records, *more])
    run(recipe(tmp_path, split=SplitSettings(held_out=0.3)), runner()[0])
    (train, one), (heldout, two) = written(tmp_path), written(tmp_path, "heldout")
    assert sorted(row["id"] for row in (*train, *heldout)) == sorted(good)
    both = lost(one) | lost(two)
    assert len(lost(one)) + len(lost(two)) == len(both) == len(BAD) + len(more)
    assert [both[f"data.jsonl@{number}"] for number in range(len(BAD))] == list(BAD)
    assert {both[f"data.jsonl@{len(BAD) + 60 + number}"] for number in range(4)} == {"missing_picture"}


def test_lone_surrogates_and_control_characters_do_no_harm(tmp_path: Path, done: DoneHere) -> None:
    lines(
        tmp_path / "data.jsonl",
        ['{"messages": [{"role": "user", "content": "\\ud800?"}, {"role": "assistant", "content": "\\u0000!"}]}'],
    )
    run(recipe(tmp_path, split=SplitSettings(held_out=0.0)), runner()[0])
    assert written(tmp_path)[0][0]["texts"] == ["??", "\0!"]


def test_a_picture_is_on_one_side_of_the_split_under_whatever_name(tmp_path: Path, done: DoneHere) -> None:
    names = pictures(tmp_path, 40)
    for name in names:
        (tmp_path / f"{name}.copy.png").write_bytes((tmp_path / name).read_bytes())
    records = [talk(f"{name} {number}", name) for name in names for number in range(2)]
    records += [talk(f"{name} copy", f"{name}.copy.png") for name in names]
    lines(tmp_path / "data.jsonl", records)
    run(recipe(tmp_path, split=SplitSettings(held_out=0.4)), runner()[0])
    sides = [{row["images"][0]["bytes"] for row in written(tmp_path, split)[0]} for split in ("train", "heldout")]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 40
    assert 6 <= len(sides[1]) <= 26
    assert all(
        len(written(tmp_path, split)[0]) == 3 * len(side)
        for split, side in zip(("train", "heldout"), sides, strict=True)
    )


def test_slices_give_what_one_gives_and_only_what_changed_is_done_again(
    tmp_path: Path, done: DoneHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = pictures(tmp_path, 10)
    records = [talk(name, name) for name in names]
    lines(tmp_path / "data.jsonl", records[:7])
    lines(tmp_path / "more.jsonl", records[7:])
    both = recipe(tmp_path, train=(str(tmp_path / "*.jsonl"),), images=tmp_path)
    run(both, runner()[0])
    whole = [written(tmp_path, split)[0] for split in ("train", "heldout")]
    assert done.units == [
        f"shards/{split}-{name}-00000000" for split in ("train", "heldout") for name in ("data", "more")
    ]
    done.units.clear()
    monkeypatch.setattr(conversation_files, "RECORDS_PER_SLICE", 3)
    run(both, runner()[0])
    assert [written(tmp_path, split)[0] for split in ("train", "heldout")] == whole
    assert len(done.units) == 2 * (3 + 1) - 2  # the file of three records is the slice that it was
    done.units.clear()
    run(both, runner()[0])
    assert done.units == []
    lines(tmp_path / "more.jsonl", [*records[7:], talk("new")])
    run(both, runner()[0])
    assert sorted(done.units) == sorted(
        f"shards/{split}-more-{at}" for split in ("train", "heldout") for at in ("00000000", "00000003")
    )
    (tmp_path / names[0]).write_bytes(picture(77))
    run(both, runner()[0])
    rows = [row for split in ("train", "heldout") for row in written(tmp_path, split)[0] if row["id"] == names[0]]
    assert rows[0]["images"][0]["bytes"] == picture(77)


def test_a_limit_looks_at_the_first_records(tmp_path: Path, done: DoneHere) -> None:
    lines(tmp_path / "data.jsonl", [talk(str(number)) for number in range(9)])
    run(recipe(tmp_path, split=SplitSettings(held_out=0.0), limit=4), runner()[0])
    assert [row["id"] for row in written(tmp_path)[0]] == ["0", "1", "2", "3"]


def test_files_that_cannot_be_used_are_sentences(tmp_path: Path, done: DoneHere) -> None:
    lines(tmp_path / "data.jsonl", [talk("a")])
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(b"{}"))
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "other.json").write_text("[[1, 2]]")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"train": (str(tmp_path / "packed.jsonl"),)}, r"packed.jsonl: packed \(gzip\). Wanted JSON as text"),
        ({"train": (str(tmp_path / "empty.jsonl"),)}, r"empty.jsonl: holds no record"),
        ({"train": (str(tmp_path / "gone.jsonl"),)}, r"gone.jsonl: no such file"),
        ({"heldout": (str(tmp_path / "*.jsonl"),)}, r"data.jsonl: given as train and as heldout"),
        ({"images": tmp_path / "gone"}, r"gone: cannot be listed \(No such file or directory\)"),
        ({"train": (str(tmp_path / "other.json"),), "format": "questions"}, r"holds no question. .* bad_record"),
    ]
    for fields, sentence in wrong:
        with pytest.raises(InputError, match=sentence):
            run(recipe(tmp_path, **fields), runner()[0])
    assert not (tmp_path / "shards").exists()


def test_a_table_that_the_format_does_not_know_is_a_mistake_with_its_line(tmp_path: Path) -> None:
    text = 'job = "conversations"\nformat = "llava"\ntrain = ["a.json"]\noutput = "out"\n[questions]\nseed = 3\n'
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(RecipeError, match=r"a.toml:5: questions: is for format = questions; got format = llava"):
        load_checked([tmp_path / "a.toml"], [])


def test_a_dry_run_says_and_writes_nothing(tmp_path: Path, done: DoneHere) -> None:
    lines(tmp_path / "data.jsonl", [talk("a")])
    dry, out = runner(dry_run=True)
    with pytest.raises(EarlyEnd):
        run(recipe(tmp_path), dry)
    assert "shards: 1 units, 0 done, 1 to do" in out.getvalue()
    assert not (tmp_path / "shards").exists()


def test_files_and_pictures_in_a_store_give_what_they_give_on_a_disk(
    bucket: Bucket, tmp_path: Path, done: DoneHere
) -> None:
    names = pictures(tmp_path, 5)
    records = [*(talk(name, name) for name in names), talk("x", "pictures/gone.png"), talk("y")]
    payload = lines(tmp_path / "data.jsonl", records).read_bytes()
    run(recipe(tmp_path, images=tmp_path), runner()[0])
    bucket.put("set/data.jsonl", payload)
    for name in names:
        bucket.put(f"set/{name}", (tmp_path / name).read_bytes())
    output = UPath(f"{bucket.url}/out")
    values = {"train": (f"{bucket.url}/set/*.jsonl",), "output": output, "images": None}
    run(recipe(tmp_path, **values), runner()[0])
    for split in ("train", "heldout"):
        on_disk = written(tmp_path, split)[1]
        stored = read_manifest(output / split, "shards")
        assert [(part.unit, part.digest) for part in stored.parts] == [
            (part.unit, part.digest) for part in on_disk.parts
        ]
        assert stored.counts == on_disk.counts
    units = len(done.units)
    run(recipe(tmp_path, **values), runner()[0])
    assert len(done.units) == units
    bucket.put(f"set/{names[0]}", picture(50))
    run(recipe(tmp_path, **values), runner()[0])
    assert len(done.units) == units + 2


def test_a_killed_run_goes_on_to_the_same_shards(tmp_path: Path) -> None:
    """Real processes, killed as soon as a first part lies there; then the same command again."""
    names = pictures(tmp_path, 20)
    for number in range(5):
        lines(tmp_path / f"data{number}.jsonl", [talk(f"{number} {name}", name) for name in names * 5])
    text = 'job = "conversations"\nformat = "messages"\ntrain = ["data*.jsonl"]\nimages = "."\noutput = "{}"\n'
    text += "[split]\nheld_out = 0.4\n"
    for name in ("killed", "whole"):
        (tmp_path / f"{name}.toml").write_text(text.format(name))
    process = command(tmp_path, "run", "killed.toml", "--workers", "1")
    while not list((tmp_path / "killed").glob("train/*.parquet")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "train" / "manifest.json").exists()
    assert "of 5 units done" in carnac(tmp_path, "run", "killed.toml", "--workers", "1")
    carnac(tmp_path, "run", "whole.toml", "--workers", "2")
    for split in ("train", "heldout"):
        one, two = (read_manifest(tmp_path / name / split, "shards") for name in ("killed", "whole"))
        assert one.digest == two.digest
        assert one.rows == two.rows > 0
