"""Stop texts, in the job and in a conversation, and what many prompts at once change: nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from jobs_model import DoneHere, document, picture, runner, write_shards

from carnac.engine.manifest import read_manifest
from carnac.engine.tables import read_rows
from carnac.jobs.chat import PROMPTS_AT_ONCE, ChatRecipe, open_chat, run
from carnac.model.settings import GenerationSettings

FREE = GenerationSettings(max_new_tokens=24, temperature=1.0, seed=3)


def said(model: Path, shards: Path, generation: GenerationSettings, **fields: Any) -> list[str]:
    """Run the job and return the continuations."""
    recipe = ChatRecipe(
        job="chat", model=model, shards=shards, output=shards.parent / "chat", generation=generation, **fields
    )
    run(recipe, runner()[0])
    entries = read_manifest(shards.parent / "chat", "chat").parts
    return [line["continuation"] for entry in entries for line in read_rows(entry.path)]


def until(text: str, stop: str) -> str:
    return text.partition(stop)[0]


def test_a_stop_text_ends_each_continuation(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", [document(number) for number in range(3)])
    free = said(model, shards, FREE, prompt_characters=20)
    stop = free[1][5:7]
    stopped = said(model, shards, FREE.model_copy(update={"stop": (stop,)}), prompt_characters=20)
    assert stopped == [until(text, stop) for text in free]
    assert stopped != free


def test_more_prompts_than_are_answered_at_once(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", [document(number % 9) for number in range(PROMPTS_AT_ONCE + 3)])
    greedy = GenerationSettings(max_new_tokens=8)
    together = said(model, shards, greedy, prompt_characters=20, num_prompts=99)
    assert len(together) == PROMPTS_AT_ONCE + 3
    assert together[:2] == said(model, shards, greedy, prompt_characters=20, num_prompts=2)
    assert together[:2] == together[9:]


def test_a_stop_text_ends_the_answers_of_a_conversation(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(picture(3))

    def answer(settings: GenerationSettings) -> tuple[str, str]:
        chat = open_chat(model, settings)
        chat.out = out = io.StringIO()
        text = chat.answer("the old mill", [path])
        return text, out.getvalue()

    free, _ = answer(FREE)
    stop = free[6:8]
    stopped, printed = answer(FREE.model_copy(update={"stop": (stop,)}))
    assert stopped == until(free, stop)
    assert stop not in printed
