from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequence_pages import real_tokenizer

from carnac.core.batch import IGNORED
from carnac.core.errors import RecordError
from carnac.sequence.layout import Layout, Sample, lay_out, lay_out_prompt, sample_from_row
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer

PICTURES = PictureSettings(size_px=16, patch_px=8)  # 4 tokens an image
BLOCKS = st.lists(st.one_of(st.text(min_size=1, max_size=20), st.binary(max_size=4)), max_size=8)


@pytest.fixture(scope="module", name="tokenizer")
def fixture_tokenizer() -> LoadedTokenizer:
    return real_tokenizer()


def sample_of(blocks: list[str | bytes]) -> Sample:
    texts = tuple(block if isinstance(block, str) else None for block in blocks)
    return Sample(texts=texts, images=tuple(block if isinstance(block, bytes) else None for block in blocks))


def test_a_document_spelled_out(tokenizer: LoadedTokenizer) -> None:
    layout = lay_out(sample_of(["Coins", b"x", "a <|image|>"]), tokenizer, PICTURES)
    first, second = tokenizer.encode("Coins"), tokenizer.encode("a <|image|>")
    image = [tokenizer.image] * 4
    assert layout.ids.tolist() == [tokenizer.begin, *first, *image, *second, tokenizer.end]
    assert layout.labels.tolist() == [*first, *[IGNORED] * 4, *second, tokenizer.end, IGNORED]
    assert layout.slots == ((1 + len(first), 4),)
    assert layout.ids.dtype == layout.labels.dtype == np.int64


def check(layout: Layout, tokenizer: LoadedTokenizer, num_images: int) -> None:
    in_image = np.zeros(len(layout.ids), dtype=bool)
    for start, length in layout.slots:
        assert not in_image[start : start + length].any()
        in_image[start : start + length] = True
    assert (in_image == (layout.ids == tokenizer.image)).all()
    assert len(layout.slots) == num_images
    assert [start for start, _ in layout.slots] == sorted(start for start, _ in layout.slots)
    for place, label in enumerate(layout.labels[:-1].tolist()):
        following = int(layout.ids[place + 1])
        assert label == (IGNORED if in_image[place + 1] else following)
    assert layout.labels[-1] == IGNORED
    assert tokenizer.begin not in layout.labels


@settings(deadline=None)
@given(blocks=BLOCKS)
def test_labels_are_the_next_text_tokens(tokenizer: LoadedTokenizer, blocks: list[str | bytes]) -> None:
    layout = lay_out(sample_of(blocks), tokenizer, PICTURES)
    check(layout, tokenizer, sum(isinstance(block, bytes) for block in blocks))
    assert layout.ids[-1] == tokenizer.end
    assert (layout.labels == tokenizer.end).sum() == 1


@settings(deadline=None)
@given(blocks=BLOCKS)
def test_a_prompt_is_the_beginning_of_the_document(tokenizer: LoadedTokenizer, blocks: list[str | bytes]) -> None:
    layout, prompt = lay_out(sample_of(blocks), tokenizer, PICTURES), lay_out_prompt(blocks, tokenizer, PICTURES)
    assert prompt.ids.tolist() == layout.ids[:-1].tolist()
    assert prompt.slots == layout.slots
    check(prompt, tokenizer, len(layout.slots))


def test_neighbouring_texts_are_joined_by_a_blank_line(tokenizer: LoadedTokenizer) -> None:
    apart = lay_out(sample_of(["one", "", "two"]), tokenizer, PICTURES)
    assert apart.ids.tolist() == lay_out(sample_of(["one\n\ntwo"]), tokenizer, PICTURES).ids.tolist()


def test_neighbouring_images_keep_slots_of_their_own(tokenizer: LoadedTokenizer) -> None:
    assert lay_out(sample_of([b"a", b"b"]), tokenizer, PICTURES).slots == ((1, 4), (5, 4))


def test_nothing_is_a_document_too(tokenizer: LoadedTokenizer) -> None:
    assert lay_out(sample_of([]), tokenizer, PICTURES).ids.tolist() == [tokenizer.begin, tokenizer.end]


@pytest.mark.parametrize(
    ("texts", "images", "reason"),
    [((None,), (None,), "bad_block"), (("a",), (b"a",), "bad_block"), (("a",), (), "blocks_differ")],
)
def test_blocks_that_are_none_are_bad_records(
    tokenizer: LoadedTokenizer, texts: tuple[str | None, ...], images: tuple[bytes | None, ...], reason: str
) -> None:
    with pytest.raises(RecordError) as caught:
        lay_out(Sample(texts=texts, images=images), tokenizer, PICTURES)
    assert caught.value.reason == reason


def test_rows_of_shards_become_samples() -> None:
    row = {"id": "1", "source": "web", "texts": ["a", None, None], "metadata": "{}", "roles": [None, None, None]}
    images = [None, {"bytes": b"x", "path": None}, {"bytes": None, "path": "far.png"}]
    sample = sample_from_row({**row, "images": images})
    assert sample == Sample(texts=("a", None, None), images=(None, b"x", b""), id="1", source="web")
    assert sample_from_row({**row, "images": images, "roles": None}).roles is None
    talk = sample_from_row({**row, "images": images, "roles": ["user", "user", "assistant"]})
    assert talk.roles == ("user", "user", "assistant")
