"""Idefics's and Idefics2's marks and spaces against transformers' own processors: equal ids, position by position."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sequence_folders import byte_level, double_line_ends, metaspace, save
from sequence_pages import real_texts
from sequence_templates import CHATML_NAMES, IDEFICS3, LLAMA_NAMES, legacy_metaspace
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil
from transformers.models.idefics.processing_idefics import IdeficsProcessor
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.idefics2.processing_idefics2 import Idefics2Processor

from carnac.core.batch import IGNORED
from carnac.core.errors import InputError
from carnac.mix.windows import cut_layout
from carnac.sequence.chat_template import Message
from carnac.sequence.conversation import lay_out_conversation, lay_out_messages
from carnac.sequence.layout import Layout, Sample, lay_out, lay_out_prompt
from carnac.sequence.marks import END_OF_TURN, FAKE, mark_names
from carnac.sequence.pixels import image_tokens, load_pixels
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder
from carnac.sequence.settings import MarkNames, PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import LoadedTokenizer, ready, train_tokenizer

SIZES = [(70, 40), (40, 90), (33, 33), (1, 1000), (3, 5)]
S = {"bos_token": "<s>"}


def trained_words() -> Tokenizer:
    names = mark_names(pictures_of("idefics2"))
    tokenizer = train_tokenizer(real_texts()[:200], TokenizerSettings(vocabulary_size=500), names)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", 0)]
    )
    return tokenizer


KINDS: dict[str, tuple[Any, dict[str, str]]] = {
    "byte_level": (lambda: byte_level(begin=True), S),
    "no begin": (byte_level, {}),
    "double_line_ends": (double_line_ends, {}),
    "metaspace": (metaspace, LLAMA_NAMES),
    "legacy metaspace": (legacy_metaspace, LLAMA_NAMES),
    "trained": (trained_words, {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}),
}
WITH_BEGIN = [name for name in KINDS if name not in ("no begin", "double_line_ends")]
"""Idefics's processor writes the begin token of any tokenizer: of one that has none, the word None."""


def pictures_of(marks: MarkNames, *, split: bool = False, native: bool = True) -> PictureSettings:
    """Pictures as each format shows them: squares of one token, native ones of three."""
    if marks == "idefics":
        return PictureSettings(size_px=16, patch_px=4, tokens=1, marks=marks)
    return PictureSettings(
        size_px=16,
        patch_px=4,
        tokens=3,
        marks=marks,
        aspect="native" if native else "square",
        max_tiles=2 if split else 1,
        resample="bilinear",
    )


@cache
def picture(number: int) -> Image.Image:
    width, height = SIZES[number % len(SIZES)]
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))


@cache
def png(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


@cache
def both(kind: str, marks: MarkNames) -> tuple[LoadedTokenizer, Any]:
    """Our reading of a folder, and transformers' tokenizer that came of it."""
    make, names = KINDS[kind]
    folder = Path(mkdtemp())
    tokenizer = read_tokenizer_folder(save(make(), folder, **names), pictures_of(marks))
    names = {**names, "pad_token": tokenizer.roles.pad}
    return tokenizer, AutoTokenizer.from_pretrained(save(tokenizer.tokenizer, folder / "exported", **names))


def idefics_processor(words: Any) -> Any:
    untyped: Any = IdeficsProcessor
    return untyped(IdeficsImageProcessorPil(image_size=16), words)


def theirs(kind: str, parts: Sequence[str | int], pictures: PictureSettings) -> list[int]:
    tokenizer, words = both(kind, pictures.marks)
    if pictures.marks == "idefics":
        made = idefics_processor(words)
        prompt = [picture(part) if isinstance(part, int) else part for part in parts]
        found = made(text=[prompt], return_tensors="pt")["input_ids"][0].tolist()
    else:
        split = Idefics2ImageProcessorPil(do_image_splitting=pictures.max_tiles > 1)
        made = Idefics2Processor(split, words, image_seq_len=3)
        found = made(text=["".join("<image>" if isinstance(part, int) else part for part in parts)])["input_ids"][0]
    assert len(words) == tokenizer.vocabulary_size  # it had nothing to add
    return list(found)


def ours(kind: str, parts: Sequence[str | int], pictures: PictureSettings) -> Layout:
    given = [png(part) if isinstance(part, int) else part for part in parts]
    return lay_out_prompt(given, both(kind, pictures.marks)[0], pictures)


PROMPTS: list[list[str | int]] = [
    ["No picture at all.\n\n"],
    [0],
    [0, " What is\nthis?"],
    [0, "What is\nthis? "],
    [" Before.\n", 1, "\n\nafter"],
    ["a", 2, 3, " b ", 4, "\nc", 0],
    ["  a  ", 2, "<b>", 3, "<", 0, ".", 1, "\u6c34", 2, "\u00a0x", 3, "\t", 4, "\ny "],
    [3, 0, 1],
    ["one", 0, 1, 2, 3, 4, "two"],
]


@pytest.mark.parametrize("parts", PROMPTS)
@pytest.mark.parametrize("kind", WITH_BEGIN)
def test_ids_equal_those_of_idefics(kind: str, parts: Sequence[str | int]) -> None:
    pictures = pictures_of("idefics")
    layout = ours(kind, parts, pictures)
    assert layout.ids.tolist() == theirs(kind, parts, pictures)
    check_places(layout, parts, pictures, both(kind, "idefics")[0])


@pytest.mark.parametrize("parts", PROMPTS)
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("kind", list(KINDS))
def test_ids_equal_those_of_idefics2(kind: str, split: bool, parts: Sequence[str | int]) -> None:
    pictures = pictures_of("idefics2", split=split)
    layout = ours(kind, parts, pictures)
    assert layout.ids.tolist() == theirs(kind, parts, pictures)
    check_places(layout, parts, pictures, both(kind, "idefics2")[0])


TEXTS = st.text(st.sampled_from("abthe \n<>\u00e9\u6c34.1\u00a0"), min_size=1, max_size=8)
PARTS = st.lists(st.one_of(TEXTS, st.integers(0, 4)), min_size=1, max_size=8)


def joined(parts: Sequence[str | int]) -> list[str | int]:
    """Neighbouring texts as one: ours writes a blank line between them, and is the only one that does."""
    found: list[str | int] = []
    for part in parts:
        if found and isinstance(part, str) and isinstance(found[-1], str):
            found[-1] += part
        else:
            found.append(part)
    return found


@settings(deadline=None, max_examples=150)
@given(kind=st.sampled_from(list(KINDS)), parts=PARTS, split=st.booleans())
def test_any_prompt_gives_the_ids_of_idefics2(kind: str, parts: list[str | int], split: bool) -> None:
    parts, pictures = joined(parts), pictures_of("idefics2", split=split)
    layout = ours(kind, parts, pictures)
    assert layout.ids.tolist() == theirs(kind, parts, pictures)
    check_places(layout, parts, pictures, both(kind, "idefics2")[0])


@settings(deadline=None, max_examples=150)
@given(kind=st.sampled_from(WITH_BEGIN), parts=PARTS)
def test_any_prompt_gives_the_ids_of_idefics(kind: str, parts: list[str | int]) -> None:
    # A text of spaces alone is none for us; for Idefics's processor it parts the pictures beside it.
    parts = joined([part for part in parts if isinstance(part, int) or part.strip(" ")])
    pictures = pictures_of("idefics")
    layout = ours(kind, parts, pictures)
    assert layout.ids.tolist() == theirs(kind, parts, pictures)
    check_places(layout, parts, pictures, both(kind, "idefics")[0])


def check_places(
    layout: Layout, parts: Sequence[str | int], pictures: PictureSettings, tokenizer: LoadedTokenizer
) -> None:
    """Assert that slots and squares are where the image tokens are, and each as long as is counted."""
    places = [start + at for squares in layout.tiles for start in squares for at in range(layout.tile_tokens)]
    assert places == np.flatnonzero(layout.ids == tokenizer.image).tolist()
    shown = [part for part in parts if isinstance(part, int)]
    stop = -1
    for (start, length), part in zip(layout.slots, shown, strict=True):
        assert length == image_tokens(*picture(part).size, pictures, neighbour=start == stop)
        assert (layout.ids[start] == tokenizer.marks[FAKE]) == (start != stop)
        stop = start + length
        assert layout.ids[stop - 1] == tokenizer.marks[FAKE]


TALKS: list[list[tuple[str, list[str | int]]]] = [
    [("user", ["What is this?"]), ("assistant", ["A mill."])],
    [("user", [0, "What is this?"]), ("assistant", ["A mill."])],
    [("user", [0, 1, " What\n is ", 2, "this? "]), ("assistant", ["<A> mill."]), ("user", [3]), ("assistant", ["No"])],
    [("user", ["Draw "]), ("assistant", [1, "Here.", 2]), ("user", ["<", 3, "\nand"]), ("assistant", [" Yes. "])],
]


@cache
def both_of_talks(marks: MarkNames, kind: str) -> tuple[LoadedTokenizer, Any]:
    """As `both`, with a chat template that takes pictures."""
    words, folder = (byte_level() if kind == "byte_level" else metaspace()), Path(mkdtemp())
    words.add_special_tokens(["<|im_start|>", "<|im_end|>", "<end_of_utterance>", "<image>"])
    names = {**CHATML_NAMES, "eos_token": "<end_of_utterance>"}
    wrapped: Any = PreTrainedTokenizerFast
    wrapped(tokenizer_object=words, chat_template=IDEFICS3, **names).save_pretrained(folder)
    tokenizer = read_tokenizer_folder(folder, pictures_of(marks))
    exported = save(tokenizer.tokenizer, folder / "exported", **names, pad_token=tokenizer.roles.pad)
    return tokenizer, AutoTokenizer.from_pretrained(exported)


def messages_of(talk: Sequence[tuple[str, Sequence[str | int]]]) -> list[Message]:
    return [
        Message(role=role, content=tuple(png(part) if isinstance(part, int) else part for part in parts))
        for role, parts in talk
    ]


def text_of(tokenizer: LoadedTokenizer, messages: Sequence[Message], *, prompt: bool) -> str:
    tables = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
                for part in message.content
            ],
        }
        for message in messages
    ]
    return tokenizer.template.render(tables, prompt=prompt)


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("kind", ["byte_level", "metaspace"])
@pytest.mark.parametrize("marks", ["idefics", "idefics2"])
def test_conversations_are_laid_out_as_the_processors_do(
    marks: MarkNames, kind: str, talk: list[tuple[str, list[str | int]]], prompt: bool
) -> None:
    (tokenizer, words), pictures = both_of_talks(marks, kind), pictures_of(marks)
    messages = messages_of(talk[:-1] if prompt else talk)
    lay = lay_out_messages if prompt else lay_out_conversation
    found = lay(messages, tokenizer, pictures)
    text = text_of(tokenizer, messages, prompt=prompt)
    if marks == "idefics":
        stretches = text.removeprefix("<|im_start|>").split("<image>")
        parts: list[Any] = [stretches[0]]
        for stretch in stretches[1:]:
            parts += [picture(0), *([stretch] if stretch else [])]
        made = idefics_processor(words)
        wanted = made(text=[parts], return_tensors="pt")["input_ids"][0].tolist()
    else:
        made = Idefics2Processor(Idefics2ImageProcessorPil(), words, image_seq_len=3)
        # As `apply_chat_template`: the template writes the begin token.
        wanted = made(text=[text], add_special_tokens=False)["input_ids"][0]
    assert found.ids.tolist() == wanted


@pytest.mark.parametrize("kind", ["byte_level", "metaspace"])
def test_a_space_behind_a_picture_is_learnt_with_the_answer_that_it_begins(kind: str) -> None:
    tokenizer, pictures = both_of_talks("idefics2", kind)[0], pictures_of("idefics2")
    talk: list[tuple[str, list[str | int]]] = [("user", ["?", 0]), ("assistant", [1, "Yes.", 2, "No"])]
    found = lay_out_conversation(messages_of(talk), tokenizer, pictures)
    learnt = found.labels[found.labels != IGNORED].tolist()
    yes, no = (tokenizer.encode(text, at_start=False) for text in (" Yes.", " No"))
    assert learnt == [*yes, *no, tokenizer.marks[END_OF_TURN]]
    assert found.turn_ends == (len(found.ids),)


# Nothing is written between a question's picture and the answer.
BARE = (
    "{% for message in messages %}{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else "
    "part['text'] }}{% endfor %}{{ '<end_of_utterance>' if message['role'] == 'assistant' }}{% endfor %}"
)


def test_a_space_that_is_a_token_of_its_own_is_learnt_too() -> None:
    tokenizer, pictures = both_of_talks("idefics2", "byte_level")[0], pictures_of("idefics2")
    bare = dataclasses.replace(tokenizer, template=dataclasses.replace(tokenizer.template, text=BARE))
    water = bare.encode("\u6c34")
    assert bare.encode(" \u6c34") == [*bare.encode(" "), *water]
    talk = messages_of([("user", ["?", 0]), ("assistant", ["\u6c34"])])
    found = lay_out_conversation(talk, bare, pictures)
    learnt = found.labels[found.labels != IGNORED].tolist()
    assert learnt == [*bare.encode(" "), *water, bare.marks[END_OF_TURN]]


@pytest.mark.parametrize("marks", ["idefics", "idefics2"])
@pytest.mark.parametrize("talk", TALKS)
def test_a_prompt_begins_the_conversation_that_it_asks_for(
    marks: MarkNames, talk: list[tuple[str, list[str | int]]]
) -> None:
    tokenizer, pictures = both_of_talks(marks, "byte_level")[0], pictures_of(marks)
    whole = lay_out_conversation(messages_of(talk), tokenizer, pictures).ids.tolist()
    asked = lay_out_messages(messages_of(talk[:-1]), tokenizer, pictures).ids.tolist()
    assert whole[: len(asked)] == asked


def test_marks_carry_no_loss_and_the_text_behind_them_does() -> None:
    tokenizer, pictures = both("trained", "idefics2")[0], pictures_of("idefics2")
    sample = Sample(texts=("before", None, None, "after"), images=(None, png(0), png(1), None))
    layout = lay_out(sample, tokenizer, pictures)
    before, after = tokenizer.encode("before"), tokenizer.encode(" after", at_start=False)
    fake, square = tokenizer.marks[FAKE], [tokenizer.image] * 3
    assert layout.ids.tolist() == [
        tokenizer.begin,
        *before,
        *[fake, *square, fake, *square, fake],
        *after,
        tokenizer.end,
    ]
    assert layout.labels.tolist() == [*before, *[IGNORED] * 9, *after, tokenizer.end, IGNORED]
    assert layout.slots == ((1 + len(before), 5), (6 + len(before), 4))


@settings(deadline=None, max_examples=100)
@given(
    blocks=st.lists(st.one_of(TEXTS, st.integers(0, 4)), min_size=1, max_size=12),
    marks=st.sampled_from(["idefics", "idefics2"]),
    split=st.booleans(),
    budgets=st.tuples(st.integers(21, 40), st.integers(5, 12)),
    at_images=st.booleans(),
)
def test_no_window_splits_a_picture_from_its_marks(
    blocks: list[str | int], marks: MarkNames, split: bool, budgets: tuple[int, int], at_images: bool
) -> None:
    pictures, tokenizer = pictures_of(marks, split=split), both("trained", "idefics2")[0]
    texts = tuple(block if isinstance(block, str) else None for block in blocks)
    images = tuple(png(block) if isinstance(block, int) else None for block in blocks)
    layout = lay_out(Sample(texts=texts, images=images), tokenizer, pictures)
    places = [set(range(start, start + length)) for start, length in layout.slots]
    assert sum(map(len, places)) == len(set().union(*places))
    marked = np.isin(layout.ids, [tokenizer.image, tokenizer.marks[FAKE]])
    assert set(np.flatnonzero(marked).tolist()) == set().union(*places)  # each mark is one picture's
    for start, stop, count in cut_layout(layout, *budgets, "images" if at_images else "all").windows:
        window = set(range(start, stop))
        assert all(place <= window or not place & window for place in places)
        assert count == sum(len(squares) for squares in layout.tiles if start <= squares[0] < stop)


def test_tokenizers_get_the_marks_of_their_pictures() -> None:
    assert mark_names(pictures_of("idefics")) == (FAKE,)
    assert mark_names(pictures_of("idefics2", split=True)) == (FAKE, END_OF_TURN)
    plain = ready(train_tokenizer([], TokenizerSettings(), ()))
    with pytest.raises(InputError, match=r"marks of idefics2 and max_tiles = 1, but the tokenizer lacks <fake"):
        lay_out_prompt([], plain, pictures_of("idefics2"))


def test_a_broken_picture_has_the_places_of_its_quarters() -> None:
    tokenizer, pictures = both("trained", "idefics2")[0], pictures_of("idefics2", split=True)
    layout = lay_out_prompt([b"broken", "text"], tokenizer, pictures)
    assert [len(squares) for squares in layout.tiles] == [5]
    assert len(load_pixels(png(0), pictures)) == 5
