"""Idefics3's marks against transformers' own Idefics3Processor: the same ids, position by position."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sequence_folders import byte_level, double_line_ends, metaspace, save
from sequence_pages import real_texts, real_tokenizer
from transformers import AutoTokenizer
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

from carnac.core.batch import IGNORED
from carnac.core.errors import InputError
from carnac.sequence.layout import Sample, lay_out, lay_out_prompt
from carnac.sequence.marks import END_OF_TURN, FAKE, GLOBAL, mark_names
from carnac.sequence.pixels import image_tokens, load_pixels, picture_size
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tiles import tiling
from carnac.sequence.tokenizer import LoadedTokenizer, ready, train_tokenizer

SIZES = [(70, 40), (40, 90), (33, 33), (5, 64), (200, 10)]
KINDS = {"byte_level": byte_level, "double_line_ends": double_line_ends, "metaspace": metaspace}


def pictures_of(max_tiles: int) -> PictureSettings:
    return PictureSettings(size_px=16, patch_px=4, tokens=4, max_tiles=max_tiles, marks="idefics3", resample="lanczos")


@cache
def picture(number: int) -> Image.Image:
    width, height = SIZES[number % len(SIZES)]
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def both(kind: str, max_tiles: int, folder: Path) -> tuple[LoadedTokenizer, Any]:
    """Our reading of a folder, and transformers' processor with the tokenizer that came of it."""
    names = {"bos_token": "<s>", "eos_token": "</s>"} if kind == "metaspace" else {}
    tokenizer = read_tokenizer_folder(save(KINDS[kind](), folder, **names), pictures_of(max_tiles))
    exported = folder / "exported"
    save(tokenizer.tokenizer, exported, **names)
    image_processor = Idefics3ImageProcessorPil(
        size={"longest_edge": max_tiles * 16}, max_image_size={"longest_edge": 16}, do_image_splitting=max_tiles > 1
    )
    processor = Idefics3Processor(image_processor, AutoTokenizer.from_pretrained(exported), image_seq_len=4)
    assert len(processor.tokenizer) == tokenizer.vocabulary_size  # it had nothing to add
    return tokenizer, processor


PROMPTS: list[list[str | int]] = [
    ["No picture at all.\n\n"],
    [0, " What is\nthis?"],
    ["Before.\n", 1, "\n\nafter"],
    ["a", 2, 3, " b ", 4, "\nc"],
    [3, 0, 1],
]


@pytest.mark.parametrize("parts", PROMPTS)
@pytest.mark.parametrize("max_tiles", [1, 2, 4])
@pytest.mark.parametrize("kind", list(KINDS))
def test_ids_and_pixels_equal_transformers(
    kind: str, max_tiles: int, parts: Sequence[str | int], tmp_path: Path
) -> None:
    tokenizer, processor = both(kind, max_tiles, tmp_path)
    images = [picture(part) for part in parts if isinstance(part, int)]
    text = "".join("<image>" if isinstance(part, int) else part for part in parts)
    wanted = processor(text=[text], images=[images] if images else None, return_tensors="np")
    pictures = pictures_of(max_tiles)
    layout = lay_out_prompt(
        [png(picture(part)) if isinstance(part, int) else part for part in parts], tokenizer, pictures
    )
    assert layout.ids.tolist() == wanted["input_ids"][0].tolist()
    places = [start + at for squares in layout.tiles for start in squares for at in range(4)]
    assert places == np.flatnonzero(layout.ids == tokenizer.image).tolist()
    if images and max_tiles > 1:
        got = np.concatenate([load_pixels(png(image), pictures) for image in images])
        assert np.abs(got - wanted["pixel_values"][0]).max() < 1e-6
        assert len(got) == len(layout.image_slots)
    for (start, length), part in zip(layout.slots, [part for part in parts if isinstance(part, int)], strict=True):
        one, two = tokenizer.line_ends
        assert length == image_tokens(*picture(part).size, pictures, (len(one), len(two)))
        assert layout.ids[start] == layout.ids[start + length - 1] == tokenizer.marks[FAKE]


def test_two_line_ends_may_be_one_token() -> None:
    counts = {name: [len(ids) for ids in ready_of(make()).line_ends] for name, make in KINDS.items()}
    assert counts == {"byte_level": [1, 2], "double_line_ends": [1, 1], "metaspace": [1, 1]}
    assert image_tokens(70, 40, pictures_of(2), (1, 2)) == image_tokens(70, 40, pictures_of(2)) + 1


def ready_of(tokenizer: Any) -> LoadedTokenizer:
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>", "<|pad|>", "<|image|>"])
    return ready(tokenizer)


def test_marks_and_image_tokens_carry_no_loss() -> None:
    pictures = pictures_of(2)
    tokenizer = ready(train_tokenizer(real_texts(), TokenizerSettings(vocabulary_size=700), mark_names(pictures)))
    sample = Sample(texts=("before\n", None, "\nafter"), images=(None, png(picture(0)), None))
    layout = lay_out(sample, tokenizer, pictures)
    (start, length), before, after = layout.slots[0], tokenizer.encode("before\n"), tokenizer.encode("\nafter")
    assert start == 1 + len(before)
    assert layout.ids.tolist()[start + length :] == [*after, tokenizer.end]
    assert layout.labels.tolist() == [*before, *[IGNORED] * length, *after, tokenizer.end, IGNORED]
    assert tokenizer.line_ends[0][0] in layout.ids[start : start + length]


@cache
def trained(max_tiles: int) -> LoadedTokenizer:
    names = mark_names(pictures_of(max_tiles))
    return ready(train_tokenizer(real_texts()[:200], TokenizerSettings(vocabulary_size=500), names))


@given(
    blocks=st.lists(st.one_of(st.text(min_size=1, max_size=9), st.integers(-1, 4)), max_size=7),
    max_tiles=st.integers(1, 4),
    marks=st.sampled_from(["none", "idefics3"]),
)
@settings(deadline=None)
def test_any_layout_of_texts_and_tiled_pictures_holds(blocks: list[str | int], max_tiles: int, marks: str) -> None:
    pictures, tokenizer = pictures_of(max_tiles).model_copy(update={"marks": marks}), trained(max_tiles)
    files = [png(picture(block)) if block >= 0 else b"broken" for block in blocks if isinstance(block, int)]
    images = iter(files)
    parts = [block if isinstance(block, str) else next(images) for block in blocks]
    texts = tuple(part if isinstance(part, str) else None for part in parts)
    layout = lay_out(
        Sample(texts=texts, images=tuple(None if isinstance(part, str) else part for part in parts)),
        tokenizer,
        pictures,
    )
    inside = np.zeros(len(layout.ids) + 1, dtype=bool)
    for (start, length), squares, payload in zip(layout.slots, layout.tiles, files, strict=True):
        assert not inside[start : start + length].any()
        inside[start : start + length] = True
        assert all(start <= square and square + layout.tile_tokens <= start + length for square in squares)
        assert len(squares) == tiling(picture_size(payload), pictures).squares
    of_squares = [start + at for squares in layout.tiles for start in squares for at in range(layout.tile_tokens)]
    assert np.flatnonzero(layout.ids == tokenizer.image).tolist() == of_squares
    wanted = np.where(inside[1:-1], IGNORED, layout.ids[1:])
    assert layout.labels.tolist() == [*wanted.tolist(), IGNORED]
    assert layout.image_slots.tolist() == [[0, start, 4] for squares in layout.tiles for start in squares]
    outside = layout.ids[~inside[:-1]]
    assert not np.isin(outside, [tokenizer.image, *tokenizer.marks.values()]).any()


def test_a_tokenizer_trained_here_gets_the_marks_that_its_pictures_need() -> None:
    pictures = pictures_of(3)
    names = mark_names(pictures)
    assert names[:4] == (FAKE, GLOBAL, END_OF_TURN, "<row_1_col_1>")
    assert len(names) == 3 + 9
    trained = ready(train_tokenizer(real_texts(), TokenizerSettings(vocabulary_size=600), names))
    assert trained.vocabulary_size == 600
    assert trained.tokenizer.id_to_token(trained.image) == "<image>"
    assert [trained.marks[name] for name in names] == list(range(4, 16))
    assert not set(trained.encode("".join(names) + "<image>")) & {trained.image, *trained.marks.values()}
    assert mark_names(pictures_of(1)) == (FAKE, GLOBAL, END_OF_TURN)


def test_a_tokenizer_without_the_marks_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(InputError, match=r"lacks <fake_token_around_image>, <global-img>, <end_of_utterance> \.\.\."):
        lay_out_prompt([], real_tokenizer(), pictures_of(2))
    few = ready(train_tokenizer([], TokenizerSettings(), mark_names(pictures_of(1))))
    assert lay_out_prompt([], few, pictures_of(1)).ids.tolist() == [few.begin]
    with pytest.raises(InputError, match=r"max_tiles = 2, but the tokenizer lacks <row_1_col_1>"):
        lay_out_prompt([], few, pictures_of(2))
