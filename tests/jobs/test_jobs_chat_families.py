"""Models of the other family and of pictures in their own shapes: asked by the jobs, and in a conversation."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs_model import INPUTS, MODEL_SETTINGS, DoneHere, document, picture, row, runner, write_model, write_shards
from PIL import Image

from carnac.engine.manifest import read_manifest
from carnac.engine.tables import read_rows
from carnac.evaluate.grounding import CONDITIONS
from carnac.evaluate.settings import QuestionSettings
from carnac.jobs.ask import AskRecipe
from carnac.jobs.ask import run as ask
from carnac.jobs.chat import ChatRecipe, open_chat
from carnac.jobs.chat import run as chat
from carnac.jobs.models import OpenModel, open_model
from carnac.model.generation.generate import generate
from carnac.model.settings import CrossAttentionSettings, GenerationSettings, PerceiverSettings, ResamplerSettings
from carnac.sequence.chat_template import Message
from carnac.sequence.conversation import stop_ids
from carnac.sequence.layout import Layout, lay_out_messages, lay_out_prompt
from carnac.sequence.pixels import grey_pixels, load_pixels

FEW = GenerationSettings(max_new_tokens=6)
RESAMPLER = ResamplerSettings(type="resampler", latents=4, depth=1, heads=2, head_size=8)
PERCEIVER = PerceiverSettings(type="perceiver", latents=4, depth=1, heads=2, head_size=8, kv_heads=1)
# Open gates: closed ones, as a model begins, would hide whether pictures are read.
CROSSED: dict[str, Any] = {
    "family": "cross_attention",
    "connector": RESAMPLER,
    "cross_attention": CrossAttentionSettings(every=1, gate_start=1.0),
}
NATIVE = {"aspect": "native", "marks": "idefics2", "tokens": 4, "size_px": 64, "shortest_px": 32}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cross-attention, Idefics's marks": (CROSSED, {"marks": "idefics", "tokens": 1}),
    "cross-attention, any shape": (CROSSED, {**NATIVE, "tokens": 1}),
    "autoregressive, any shape": ({"connector": PERCEIVER}, NATIVE),
    "autoregressive, quarters of any shape": ({"connector": PERCEIVER}, {**NATIVE, "tokens": 2, "max_tiles": 2}),
}


def wide(number: int) -> bytes:
    """Return a picture that is not square."""
    out = io.BytesIO()
    Image.open(io.BytesIO(picture(number))).resize((70, 20)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module", name="folders")
def fixture_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    """Folders of a model of each kind, of documents and of conversations."""
    found = {}
    for kind, (changes, shown) in KINDS.items():
        pictures = INPUTS.pictures.changed(shown)
        connector = changes["connector"]
        if connector is PERCEIVER:
            connector = PERCEIVER.model_copy(update={"latents": pictures.square_tokens})
        language = MODEL_SETTINGS.language
        longer = language.model_copy(update={"config": {**language.config, "max_position_embeddings": 256}})
        settings = MODEL_SETTINGS.model_copy(update={**changes, "connector": connector, "language": longer})
        for talks in (False, True):
            inputs = INPUTS.model_copy(update={"pictures": pictures, "conversations": talks})
            folder = tmp_path_factory.mktemp("models") / "model"
            found[kind, talks] = write_model(folder, settings=settings, inputs=inputs)
    return found


def by_hand(opened: OpenModel, layout: Layout, pixels: list[np.ndarray[Any, np.dtype[np.float32]]]) -> str:
    """Return a model's answer to one prompt, without a batch."""
    ends = stop_ids(opened.tokenizer) if opened.inputs.conversations else (opened.tokenizer.end,)
    found = generate(opened.model, layout.ids, layout.image_slots, np.concatenate(pixels), FEW, ends)
    return opened.tokenizer.decode(list(found))


@pytest.mark.parametrize("kind", KINDS)
def test_documents_are_gone_on_from(
    kind: str, folders: dict[tuple[str, bool], Path], tmp_path: Path, done: DoneHere
) -> None:
    model = folders[kind, False]
    pages = [document(0), row("d1", ["A page.", wide(1), "the mill by the river turns"])]
    shards = write_shards(tmp_path / "heldout", pages)
    recipe = ChatRecipe(
        job="chat", model=model, shards=shards, output=tmp_path / "chat", generation=FEW, prompt_characters=12
    )
    chat(recipe, runner()[0])
    rows = [line for entry in read_manifest(tmp_path / "chat", "chat").parts for line in read_rows(entry.path)]
    opened = open_model(model)
    assert [line["id"] for line in rows] == ["d0", "d1"]
    for line in rows:
        layout = lay_out_prompt([line["image"], line["prompt"]], opened.tokenizer, opened.inputs.pictures)
        wanted = by_hand(opened, layout, [load_pixels(line["image"], opened.inputs.pictures)])
        assert line["continuation"] == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_questions_are_asked_with_their_pictures_and_with_others(
    kind: str, folders: dict[tuple[str, bool], Path], tmp_path: Path, done: DoneHere
) -> None:
    model = folders[kind, True]
    talks = []
    for number in range(3):
        blocks: list[str | bytes] = [wide(number), "what turns?", "a wheel", picture(number), "and now?", "water"]
        roles = ["user", "user", "assistant", "user", "user", "assistant"]
        talks.append({**row(f"c{number}", blocks), "roles": roles})
    shards = write_shards(tmp_path / "heldout", talks)
    questions = QuestionSettings(resamples=100, max_new_tokens=FEW.max_new_tokens)
    ask(AskRecipe(job="ask", model=model, shards=shards, output=tmp_path / "answers", questions=questions), runner()[0])
    rows = [line for entry in read_manifest(tmp_path / "answers").parts for line in read_rows(entry.path)]
    assert len(rows) == 6
    assert not kind.startswith("cross") or any(line["right"] != line["shuffled"] for line in rows)
    opened = open_model(model)
    pictures = opened.inputs.pictures
    for line in rows:
        number = int(line["id"][1])
        shown = [wide(number), picture(number)][: line["number"] + 1]
        message = Message(role="user", content=(*shown, line["question"]))
        layout = lay_out_messages([message], opened.tokenizer, pictures)
        pixels = [load_pixels(payload, pictures) for payload in shown]
        assert line["right"] == by_hand(opened, layout, pixels)
        grey = [np.broadcast_to(grey_pixels(pictures), each.shape) for each in pixels]
        assert line["none"] == by_hand(opened, layout, grey)
        assert all(line[condition] is not None for condition in CONDITIONS)


@pytest.mark.parametrize("talks", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_goes_on_with_pictures_in_it(
    kind: str, talks: bool, folders: dict[tuple[str, bool], Path], tmp_path: Path
) -> None:
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    first.write_bytes(picture(1))
    second.write_bytes(wide(2))
    session = replace(open_chat(folders[kind, talks], FEW), out=io.StringIO())
    session.answer("what turns?", [first])
    session.answer("and then?")
    said = session.answer("now both", [first, second])
    opened = open_model(folders[kind, talks])
    pictures = opened.inputs.pictures
    shown = [load_pixels(payload, pictures) for payload in (picture(1), picture(1), wide(2))]
    if talks:
        layout = lay_out_messages(session.messages[:-1], opened.tokenizer, pictures)
    else:
        parts = [*session.parts[:-1], "now both"]
        layout = lay_out_prompt(parts, opened.tokenizer, pictures)
    wanted = by_hand(opened, layout, shown)
    assert said == (wanted.strip() if talks else wanted)
