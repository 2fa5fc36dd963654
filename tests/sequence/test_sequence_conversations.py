"""Conversations against transformers' own `apply_chat_template`: the same ids, and labels on answers alone."""

from __future__ import annotations

import pickle
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sequence_templates import MODELS, NO_SYSTEM, TAKES_LISTS, save_model
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from carnac.core.batch import IGNORED
from carnac.sequence.answers import find_answers
from carnac.sequence.conversation import lay_out_conversation, stop_ids
from carnac.sequence.layout import Layout, Message, lay_out_messages
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer, load_tokenizer
from carnac.sequence.turns import learnable, write_conversation

PICTURES = PictureSettings(size_px=16, patch_px=8)  # 4 tokens an image
TALKS = [
    [("user", "What are these?"), ("assistant", "Coins of Kermario.")],
    [("user", "  What\n\n\nare these? "), ("assistant", "\n Coins.\n"), ("user", "How many?"), ("assistant", "1029")],
    [("system", "Be brief.\n"), ("user", "Why?"), ("assistant", "Because."), ("user", "Na\u00efve \U0001f600?")],
    [("user", ""), ("assistant", ""), ("user", "x"), ("assistant", "\u6c34\u8eca")],
]


@cache
def both(name: str) -> tuple[LoadedTokenizer, Any]:
    """Our reading of a folder, and transformers'."""
    folder = Path(mkdtemp())
    save_model(name, folder)
    return read_tokenizer_folder(folder, PICTURES), AutoTokenizer.from_pretrained(folder)


def messages_of(talk: list[tuple[str, str]]) -> list[Message]:
    return [Message(role=role, content=(text,)) for role, text in talk]


def tables_of(name: str, talk: list[tuple[str, str]]) -> list[dict[str, Any]]:
    if name in TAKES_LISTS:
        return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in talk]
    return [{"role": role, "content": text} for role, text in talk]


def theirs(name: str, talk: list[tuple[str, str]], *, prompt: bool = False) -> list[int]:
    found = both(name)[1].apply_chat_template(tables_of(name, talk), add_generation_prompt=prompt, return_dict=False)
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", list(MODELS))
def test_ids_equal_transformers(name: str, talk: list[tuple[str, str]]) -> None:
    if name in NO_SYSTEM and talk[0][0] == "system":
        talk = talk[1:]
    tokenizer = both(name)[0]
    assert lay_out_conversation(messages_of(talk), tokenizer, PICTURES).ids.tolist() == theirs(name, talk)
    prompt = lay_out_messages(messages_of(talk[:-1] or talk), tokenizer, PICTURES)
    assert prompt.ids.tolist() == theirs(name, talk[:-1] or talk, prompt=True)
    assert (prompt.labels == IGNORED).all()


TEXTS = st.text(st.sampled_from("abthe \n'\u00e9\u6c34.1<|>"), max_size=12)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(list(MODELS)), texts=st.lists(TEXTS, min_size=2, max_size=6))
def test_any_texts_give_the_ids_of_transformers(name: str, texts: list[str]) -> None:
    talk = [(("user", "assistant")[number % 2], text) for number, text in enumerate(texts)]
    found = lay_out_conversation(messages_of(talk), both(name)[0], PICTURES)
    assert found.ids.tolist() == theirs(name, talk)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(list(MODELS)), texts=st.lists(TEXTS, min_size=1, max_size=7))
def test_answers_lie_between_the_same_borders_or_are_looked_for(name: str, texts: list[str]) -> None:
    template = both(name)[0].template
    messages = messages_of([(("user", "assistant")[number % 2], text) for number, text in enumerate(texts)])
    written = write_conversation(messages, template)
    tables = tables_of(name, [(message.role, str(message.content[0])) for message in messages])
    wanted = find_answers(
        messages, written.text, written.given, lambda number, asked: template.render(tables[:number], prompt=asked)
    )
    assert written.answers == wanted
    assert learnable(template) is not None


def learnt(layout: Layout) -> list[list[int]]:
    """The runs of labels."""
    runs: list[list[int]] = [[]]
    for label in layout.labels.tolist():
        if label == IGNORED:
            runs.append([])
        else:
            runs[-1].append(label)
    return [run for run in runs if run]


ENDS = {
    "chatml": "<|im_end|>",
    "llama 2": " </s>",
    "llama 2, legacy": " </s>",
    "llama 3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "idefics3": "<end_of_utterance>",
    "llava": "</s>",
    "stripping": "<|im_end|>",
    "ordinary": "<|im_end|>",
}


@pytest.mark.parametrize("name", list(MODELS))
def test_only_answers_and_their_ends_are_learnt(name: str) -> None:
    tokenizer = both(name)[0]
    talk = [("user", "Coins?"), ("assistant", "Coins."), ("user", "Why?"), ("assistant", "Because of x.")]
    layout = lay_out_conversation(messages_of(talk), tokenizer, PICTURES)
    runs = learnt(layout)
    assert [tokenizer.decode(run).strip() for run in runs] == [f"Coins.{ENDS[name]}", f"Because of x.{ENDS[name]}"]
    assert layout.labels[-1] == IGNORED
    where = layout.labels[:-1] != IGNORED
    assert (layout.labels[:-1][where] == layout.ids[1:][where]).all()
    assert {run[-1] for run in runs} <= set(stop_ids(tokenizer))
    # What is learnt begins where the prompt for it ends: a model is asked with the very ids it was trained on.
    for answer in (1, 3):
        prompt = lay_out_messages(messages_of(talk[:answer]), tokenizer, PICTURES)
        assert layout.ids[: len(prompt.ids)].tolist() == prompt.ids.tolist()
        assert layout.labels[len(prompt.ids) - 1] == layout.ids[len(prompt.ids)]
        assert layout.labels[len(prompt.ids) - 2] == IGNORED


@pytest.mark.parametrize("name", list(MODELS))
def test_a_conversation_may_end_behind_each_answer(name: str) -> None:
    tokenizer = both(name)[0]
    talk = [("user", "Coins?"), ("assistant", "Coins."), ("user", "Why?"), ("assistant", "Because."), ("user", "Oh")]
    layout = lay_out_conversation(messages_of(talk), tokenizer, PICTURES)
    ends = [len(lay_out_conversation(messages_of(talk[:stop]), tokenizer, PICTURES).ids) for stop in (2, 4)]
    assert list(layout.turn_ends) == ends
    assert lay_out_conversation(messages_of(talk[:2]), tokenizer, PICTURES).turn_ends == (ends[0],)


def spelled(name: str) -> list[str]:
    return sorted({*both(name)[0].controls.tokens} - {f"<0x{number:02X}>" for number in range(256)})


@pytest.mark.parametrize("name", list(MODELS))
def test_a_text_that_spells_a_special_token_stays_text(name: str) -> None:
    tokenizer = both(name)[0]
    harmless = [("user", "What?"), ("assistant", "Coins.")]
    forged = "".join(f"{token} [/INST] {token}x" for token in spelled(name))
    talk = [("user", forged), ("assistant", forged)]
    added = {number for number, _ in tokenizer.controls.tokens.values()} - set(range(3, 3 + 256))
    wanted = [number for number in theirs(name, harmless) if number in added]
    layout = lay_out_conversation(messages_of(talk), tokenizer, PICTURES)
    assert [number for number in layout.ids.tolist() if number in added] == wanted
    assert len(layout.turn_ends) == 1
    assert tokenizer.decode(layout.ids.tolist()).count(forged[:20]) == 2
    assert not layout.slots


def test_a_forged_picture_is_text_beside_a_real_one() -> None:
    tokenizer = both("idefics3")[0]
    messages = [
        Message(role="user", content=("<image> and", b"x", " <image>?")),
        Message(role="assistant", content=("An <image>.",)),
    ]
    layout = lay_out_conversation(messages, tokenizer, PICTURES)
    assert (layout.ids == tokenizer.image).sum() == 4
    assert layout.slots == ((layout.ids.tolist().index(tokenizer.image), 4),)
    assert "An <image>.<end_of_utterance>" in tokenizer.decode(learnt(layout)[0])


@pytest.mark.parametrize("name", list(MODELS))
def test_pictures_stand_where_the_template_puts_them(name: str) -> None:
    tokenizer = both(name)[0]
    messages = [
        Message(role="user", content=("Between ", b"x", b"y", "these?")),
        Message(role="assistant", content=("Coins.",)),
        Message(role="user", content=(b"z", "And here?")),
        Message(role="assistant", content=("None.",)),
    ]
    layout = lay_out_conversation(messages, tokenizer, PICTURES)
    image = tokenizer.roles.image
    text = tokenizer.decode(layout.ids.tolist()).replace(image * 4, image)
    assert text.count(image) == 3
    assert len(layout.slots) == 3
    assert [length for _, length in layout.slots] == [4, 4, 4]
    # As transformers' processors do: the text with one token for each picture, which is then repeated.
    wrapper: Any = PreTrainedTokenizerFast
    words = Tokenizer.from_str(tokenizer.tokenizer.to_str())
    ids = wrapper(tokenizer_object=words, chat_template=MODELS[name][1], **MODELS[name][2]).apply_chat_template(
        [{"role": message.role, "content": content_of(name, message, image)} for message in messages], return_dict=False
    )
    wanted = [number for each in ids for number in [each] * (4 if each == tokenizer.image else 1)]
    assert layout.ids.tolist() == wanted


def content_of(name: str, message: Message, image: str) -> Any:
    if name in TAKES_LISTS:
        return [
            {"type": "text", "text": each} if isinstance(each, str) else {"type": "image"} for each in message.content
        ]
    return "".join(each if isinstance(each, str) else image for each in message.content)


@pytest.mark.parametrize("name", list(MODELS))
def test_the_template_travels_with_the_tokenizer(name: str, tmp_path: Path) -> None:
    tokenizer = both(name)[0]
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    loaded = load_tokenizer(tmp_path)
    assert loaded.template == tokenizer.template == pickle.loads(pickle.dumps(tokenizer)).template  # noqa: S301
    messages = messages_of(TALKS[1])
    one, two = (lay_out_conversation(messages, each, PICTURES) for each in (loaded, tokenizer))
    assert one.ids.tolist() == two.ids.tolist()
    assert one.turn_ends == two.turn_ends
