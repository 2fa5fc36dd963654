"""Continuations of held-out documents, and the conversation of `carnac chat` with a real, small model."""

from __future__ import annotations

import errno
import io
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from jobs_model import LONGEST, WORDS, DoneHere, document, picture, row, runner, write_shards

from carnac.core.errors import InputError
from carnac.engine.manifest import read_manifest
from carnac.engine.tables import read_rows
from carnac.jobs.chat import ChatRecipe, open_chat, run
from carnac.model.settings import GenerationSettings

FEW = GenerationSettings(max_new_tokens=6)
DOCUMENTS = [document(number) for number in range(4)]


def said(model: Path, shards: Path, **fields: Any) -> list[dict[str, Any]]:
    """Run the job and return its rows."""
    values = {"generation": FEW, "prompt_characters": 20, **fields}
    run(ChatRecipe(job="chat", model=model, shards=shards, output=shards.parent / "chat", **values), runner()[0])
    return [line for entry in read_manifest(shards.parent / "chat", "chat").parts for line in read_rows(entry.path)]


def test_a_row_per_prompt(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", [row("text", [WORDS]), DOCUMENTS[0]], DOCUMENTS[1:])
    rows = said(model, shards)
    assert [line["id"] for line in rows] == ["d0", "d1", "d2"]
    first = rows[0]
    assert first["image"] == picture(0)
    assert first["prompt"] == "the old mill by the"  # cut between two words
    assert first["prompt"] + first["reference"] == WORDS
    assert all(line["continuation"] for line in rows)
    assert said(model, shards) == rows
    assert done.units == ["chat/chat"]


def test_numbers_of_prompts_and_limits(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", DOCUMENTS)
    assert len(said(model, shards, num_prompts=9)) == 4
    assert len(said(model, shards, num_prompts=9, limit=2)) == 2
    assert len(said(model, shards, num_prompts=1, limit=2)) == 1
    assert said(model, write_shards(tmp_path / "none" / "heldout", [row("text", [WORDS])])) == []


@pytest.mark.parametrize(
    ("characters", "text", "prompt"),
    [(0, "some words", ""), (4, "some words", "some"), (7, "some words", "some"), (7, "unbreakable", "unbreak")],
)
def test_prompts_are_cut_between_words(
    model: Path, tmp_path: Path, done: DoneHere, characters: int, text: str, prompt: str
) -> None:
    shards = write_shards(tmp_path / "heldout", [row("a", [picture(1), text])])
    (line,) = said(model, shards, prompt_characters=characters)
    assert (line["prompt"], line["prompt"] + line["reference"]) == (prompt, text)


def test_a_picture_that_does_not_decode_costs_its_prompt(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", [row("broken", [picture(1)[:90], WORDS]), *DOCUMENTS[:2]])
    assert [line["id"] for line in said(model, shards)] == ["d0", "d1"]
    assert read_manifest(tmp_path / "chat").counts == {"prompts": 2, "lost.image_does_not_decode": 1}


def test_prompts_longer_than_the_model_are_a_sentence(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", [row("long", [picture(1), " ".join([WORDS] * 40)])])
    with pytest.raises(
        InputError, match=rf"the prompt has \d+ tokens, pictures included; this model takes 1 to {LONGEST - 1}\."
    ):
        said(model, shards, prompt_characters=3000)


# -- the conversation


def test_a_conversation_with_the_model(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(picture(3))
    chat = open_chat(model, FEW)
    chat.out = out = io.StringIO()
    chat.loop(lines=[f"/image {path}\n", "the old mill\n", "and then?\n", f"{' '.join([WORDS] * 20)}\n", "the river\n"])
    lines = out.getvalue()
    assert re.search(
        rf"^the prompt has \d+ tokens, pictures included; this model takes 1 to {LONGEST - 1}\.", lines, re.MULTILINE
    )
    parts = chat.parts
    assert [type(part) for part in parts] == [bytes, str, str, str]
    assert str(parts[1]).startswith("the old mill")
    assert str(parts[3]).startswith("the river")


def test_a_picture_changes_the_answer_and_a_seed_repeats_it(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(picture(3))
    settings = GenerationSettings(max_new_tokens=12, temperature=1.0, seed=5)

    def answer(*images: Path) -> str:
        chat = open_chat(model, settings)
        chat.out = io.StringIO()
        return chat.answer("the old mill", images)

    assert answer(path) == answer(path)
    assert answer(path) != answer()


class Terminal:
    """`carnac chat` on a terminal of its own."""

    def __init__(self, model: Path) -> None:
        self._main, worker = pty.openpty()
        command = [sys.executable, "-m", "carnac", "chat", str(model), "--max-tokens", "3"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
        self.process = subprocess.Popen(
            command, stdin=worker, stdout=worker, stderr=worker, env=environment, start_new_session=True
        )
        os.close(worker)
        self.text = ""

    def until(self, words: str) -> None:
        """Read on until `words` have come; the test's own time limit is the patience."""
        while words not in self.text:
            more = self._read()
            assert more, f"the end came before {words!r}: {self.text}"

    def type(self, line: bytes) -> None:
        self.text = ""
        os.write(self._main, line)

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._main)
        return self.process.wait()

    def _read(self) -> str:
        try:
            more = os.read(self._main, 4096).decode(errors="replace")
        except OSError as error:
            if error.errno != errno.EIO:  # what Linux says when the other side has gone
                raise
            return ""
        self.text += more
        return more


def test_interrupt_ends_a_conversation_without_a_traceback(model: Path) -> None:
    terminal = Terminal(model)
    terminal.until("> ")
    assert "/image FILE shows a picture" in terminal.text
    terminal.type(b"the old mill\n")
    terminal.until("> ")
    # The keys Ctrl-C would do; this session has no controlling terminal to turn them into the signal.
    time.sleep(0.1)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "Traceback" not in terminal.text
    assert "Stopped" in terminal.text


def test_end_of_input_ends_a_conversation(model: Path) -> None:
    terminal = Terminal(model)
    terminal.until("> ")
    terminal.type(b"\x04")
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text
    assert terminal.text.endswith("\n")
