"""The conversation and the stream of text. The model here is a function that says what it was shown."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from carnac.core.errors import InputError
from carnac.sequence.layout import Layout
from carnac.sequence.pixels import Pixels
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import LoadedTokenizer, ready, train_tokenizer
from carnac.serve.chat import HELP, ChatSession, read_picture, readable

PICTURES = PictureSettings(size_px=16, patch_px=8)
TEXTS = [
    "The old mill by the river \U0001f600 turns \U0001f600\U0001f600 in the evening.",
    "\u6c34\u8eca\u306f\u5915\u65b9\u306b\u56de\u308b\u3002\u6c34\u8eca\u306f\u56de\u308b\u3002",
    "caf\u00e9 na\u00efve \U0001f469\u200d\U0001f467 \ufffd \u20ac",
]


@cache
def tokenizer() -> LoadedTokenizer:
    # Few merges: most emoji and ideographs take several ids.
    return ready(train_tokenizer(TEXTS, TokenizerSettings(vocabulary_size=290)))


# -- readable


@pytest.mark.parametrize("text", TEXTS)
def test_characters_come_whole_and_as_soon_as_they_are_there(text: str) -> None:
    ids = tokenizer().encode(text)
    assert len(ids) > len(text) // 2
    pieces = list(readable(ids, tokenizer()))
    assert "".join(pieces) == text
    assert all(pieces)
    assert len(pieces) > len(text) // 4  # a stream, not one lump
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)


def test_a_character_is_said_with_its_last_byte() -> None:
    ids = tokenizer().encode("\U0001f680")
    assert len(ids) >= 3  # not in the texts: byte by byte
    taken = 0

    def count() -> Iterator[int]:
        nonlocal taken
        for number in ids:
            taken += 1
            yield number

    said = [(taken, piece) for piece in readable(count(), tokenizer())]
    assert said == [(len(ids), "\U0001f680")]


def test_bytes_that_are_no_text_do_not_hold_up_or_spoil_what_follows() -> None:
    byte = tokenizer().tokenizer.token_to_id("\u00ff")  # the byte 0xff of a byte-level vocabulary
    assert byte is not None
    ids = [byte, *tokenizer().encode("\U0001f680"), byte, byte, *tokenizer().encode("ok")]
    pieces = list(readable(ids, tokenizer()))
    assert "".join(pieces) == tokenizer().decode(ids) == "\ufffd\U0001f680\ufffd\ufffdok"


def test_an_unfinished_character_at_the_end_is_said_as_one_mark() -> None:
    ids = tokenizer().encode("a\U0001f680")
    assert "".join(readable(ids[:-1], tokenizer())) == "a\ufffd"
    assert list(readable([], tokenizer())) == []


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 289), max_size=24))
def test_any_ids_are_said_once_and_completely(ids: list[int]) -> None:
    ids = [number for number in ids if number < tokenizer().vocabulary_size]
    assert "".join(readable(ids, tokenizer())) == tokenizer().decode(ids)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30))
def test_any_text_comes_back(text: str) -> None:
    ids = tokenizer().encode(text)
    assert "".join(readable(ids, tokenizer())) == text.encode(errors="replace").decode()


def words_of(folder: Path) -> LoadedTokenizer:
    """A tokenizer of the kind of Llama 2: a space belongs to the word after it and is dropped before the first."""
    base = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106 - no password
    base.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    base.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>", "</s>"], show_progress=False)
    base.train_from_iterator(["the old mill turns in the evening. " * 9], trainer)
    base.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return read_tokenizer_folder(folder, PICTURES)


def test_words_keep_the_spaces_between_them(tmp_path: Path) -> None:
    words = words_of(tmp_path)
    ids = words.encode("the old mill turns in the evening.")
    assert len(ids) < 12
    assert "".join(readable(ids, words)) == words.decode(ids) == "the old mill turns in the evening."
    for cut in range(1, len(ids)):
        said = "".join(readable(ids[cut:], words, ids[cut - 1 : cut]))
        assert words.decode(ids[:cut]) + said == words.decode(ids)


# -- the conversation


@dataclass
class Mirror:
    """A model that says how many pictures it was shown, and refuses prompts of more than `longest` tokens."""

    longest: int = 10_000
    seen: list[tuple[Layout, Pixels]] = field(default_factory=list)

    def __call__(self, layout: Layout, pixels: Pixels) -> Iterator[int]:
        if len(layout.ids) > self.longest:
            raise InputError(f"the prompt has {len(layout.ids)} tokens; this model takes 1 to {self.longest}")
        self.seen.append((layout, pixels))
        return iter(tokenizer().encode(f"({len(pixels)} pictures)"))

    def prompts(self) -> list[str]:
        return [tokenizer().decode([i for i in layout.ids if i != tokenizer().image]) for layout, _ in self.seen]


def session(mirror: Mirror | None = None) -> tuple[ChatSession, io.StringIO, Mirror]:
    out, mirror = io.StringIO(), mirror or Mirror()
    return ChatSession(reply=mirror, tokenizer=tokenizer(), pictures=PICTURES, out=out), out, mirror


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a picture.png"
    Image.new("RGB", (30, 20), "teal").save(path)
    return path


def test_an_answer_is_printed_returned_and_remembered(picture: Path) -> None:
    chat, out, mirror = session()
    assert chat.answer("What is shown?", [picture]) == "(1 pictures)"
    assert out.getvalue() == "(1 pictures)\n"
    assert chat.parts == [picture.read_bytes(), "What is shown?(1 pictures)"]
    layout, pixels = mirror.seen[0]
    assert pixels.shape == (1, 3, 16, 16)
    assert layout.slots == ((1, 4),)
    assert mirror.prompts() == ["<|begin|>What is shown?"]


def test_pictures_and_texts_stay_for_later_turns(picture: Path) -> None:
    chat, _, mirror = session()
    chat.answer("One", [picture])
    chat.answer("Two")
    chat.answer("Three", [picture, picture])
    assert [len(pixels) for _, pixels in mirror.seen] == [1, 1, 3]
    assert mirror.prompts()[1] == "<|begin|>One(1 pictures)\n\nTwo"
    assert mirror.prompts()[2] == "<|begin|>One(1 pictures)\n\nTwo(1 pictures)Three"
    assert mirror.seen[2][0].slots[0] == (1, 4)


def test_what_the_model_says_cannot_steer_the_terminal() -> None:
    steering = "\x1b]0;owned\x07\r\x1b[2Jx"
    chat, out, _ = session()
    chat.reply = lambda *_: iter(tokenizer().encode(steering))
    assert chat.answer("hello") == steering  # remembered as it was
    assert out.getvalue() == "\ufffd]0;owned\ufffd\ufffd[2Jx\n"


def talk(chat: ChatSession, *lines: str, images: tuple[Path, ...] = ()) -> None:
    chat.loop(images, lines=[f"{line}\n" for line in lines])


def test_the_loop_answers_until_quit(picture: Path) -> None:
    chat, out, mirror = session()
    talk(chat, "", "One", f"/image {picture}", "Two", "   ", "/quit", "Three")
    assert out.getvalue() == f"{HELP}\n(0 pictures)\n(1 pictures)\n"
    assert len(mirror.seen) == 2


def test_pictures_given_at_the_start_come_with_the_first_question(picture: Path) -> None:
    chat, _, mirror = session()
    talk(chat, "One", "Two", images=(picture,))
    assert [len(pixels) for _, pixels in mirror.seen] == [1, 1]


def test_a_wrong_picture_at_the_start_is_refused_at_once(tmp_path: Path) -> None:
    chat, out, _ = session()
    with pytest.raises(InputError, match=r"gone\.png: cannot be read \(No such file or directory\)"):
        talk(chat, "One", images=(tmp_path / "gone.png",))
    assert out.getvalue() == ""


def test_clear_forgets_words_pictures_and_waiting_pictures(picture: Path) -> None:
    chat, _, mirror = session()
    talk(chat, f"/image {picture}", "One", f"/image {picture}", "/clear", "Two")
    assert [len(pixels) for _, pixels in mirror.seen] == [1, 0]
    assert mirror.prompts()[1] == "<|begin|>Two"


def test_a_wrong_picture_costs_neither_the_conversation_nor_the_pictures_that_wait(
    picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "page.png").write_text("<html>not found</html>")
    chat, out, mirror = session()
    talk(
        chat,
        "One",
        f"/image {picture}",
        "/image nowhere.png",
        f"/image {tmp_path}",
        f"/image {tmp_path}/page.png",
        "Two",
    )
    assert [len(pixels) for _, pixels in mirror.seen] == [0, 1]
    assert mirror.prompts()[1] == "<|begin|>One(0 pictures)Two"
    lines = out.getvalue().splitlines()
    assert lines[2] == "nowhere.png: cannot be read (No such file or directory). Wanted a picture file."
    assert lines[3] == f"{tmp_path}: cannot be read (Is a directory). Wanted a picture file."
    assert "page.png: not a picture that can be decoded (image_does_not_decode). Wanted a PNG" in lines[4]


@pytest.mark.parametrize("line", ["/image", "/image   ", "/imagex.png", "/help", "/", "/Clear"])
def test_what_is_no_command_shows_the_help(line: str) -> None:
    chat, out, mirror = session()
    talk(chat, line)
    assert out.getvalue() == f"{HELP}\n{HELP}\n"
    assert not mirror.seen


def test_a_prompt_too_long_is_one_sentence_and_adds_nothing(picture: Path) -> None:
    chat, out, mirror = session(Mirror(longest=30))
    talk(chat, "One", f"/image {picture}", "long " * 40, "Two")
    assert "this model takes 1 to 30\n" in out.getvalue()
    assert mirror.prompts() == ["<|begin|>One", "<|begin|>One(0 pictures)Two"]
    assert len(mirror.seen[1][1]) == 1  # the picture waits for the next question


def test_end_of_input_ends_the_line_and_the_loop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chat, out, mirror = session()
    raw = io.TextIOWrapper(io.BytesIO(b"caf\xe9 caf\xc3\xa9\n"), encoding="utf-8")  # the first is latin-1
    monkeypatch.setattr(sys, "stdin", raw)
    chat.loop()
    assert mirror.prompts() == ["<|begin|>caf\ufffd caf\u00e9"]
    assert out.getvalue() == f"{HELP}\n(0 pictures)\n\n"
    assert capsys.readouterr().out == "> > "


@pytest.mark.parametrize("name", ["nowhere.png", "\0.png"])
def test_read_picture_names_what_it_cannot_read(name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(.+\)\. Wanted a picture file"):
        read_picture(Path(name))


def test_read_picture_wants_a_whole_picture(picture: Path, tmp_path: Path) -> None:
    assert read_picture(picture) == picture.read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(picture.read_bytes()[:60])
    with pytest.raises(InputError, match=r"cut\.png: not a picture that can be decoded \(image_does_not_decode\)"):
        read_picture(cut)
