"""The three conditions on real batches; the models are small functions of labels and pixels, whose answer is known."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from carnac.core.batch import IGNORED, Batch
from carnac.core.seeds import generator
from carnac.evaluate.grounding import DocumentLosses, Grounding, HeldOut, Pixels, score_documents, summarise
from carnac.evaluate.settings import GroundingSettings
from carnac.mix.assemble import batch_of_samples
from carnac.sequence.layout import Sample
from carnac.sequence.pixels import grey_pixels
from carnac.sequence.settings import PictureSettings, TokenizerSettings
from carnac.sequence.tokenizer import LoadedTokenizer, ready, train_tokenizer

PICTURES = PictureSettings(size_px=16, patch_px=8)
GREY = grey_pixels(PICTURES)
SETTINGS = GroundingSettings(resamples=500)
WORDS = "the old mill by the river turns its wheel in the evening while people walk along the water"
Losses = npt.NDArray[np.float32]


@cache
def tokenizer() -> LoadedTokenizer:
    return ready(train_tokenizer([WORDS], TokenizerSettings(vocabulary_size=300)))


def picture(level: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (20, 12), level).save(out, "PNG")
    return out.getvalue()


def held_out(name: str, blocks: Sequence[str | int], row_tokens: int = 400) -> HeldOut:
    """A document of texts and uniform pictures of the given levels of grey."""
    texts = tuple(block if isinstance(block, str) else None for block in blocks)
    images = tuple(picture(block) if isinstance(block, int) else None for block in blocks)
    sample = Sample(texts=texts, images=images, id=name, source="test")
    return HeldOut(id=name, batch=batch_of_samples([sample], tokenizer(), PICTURES, row_tokens))


@cache
def corpus() -> tuple[HeldOut, ...]:
    """Documents of a text, a picture of one of twelve greys, and a text of a length of its own."""
    levels = generator(0, "levels").integers(0, 12, 14) * 20
    return tuple(held_out(f"d{n}", [WORDS, int(level), WORDS[: 20 + n]]) for n, level in enumerate(levels))


def pool_of(documents: Sequence[HeldOut]) -> list[tuple[str, Pixels]]:
    return [(document.id, pixels) for document in documents for pixels in document.batch.pixels]


def seen_level(batch: Batch) -> Losses:
    """Mean of the last image at or before each position, NaN where there is none."""
    means = np.append(batch.pixels.mean((1, 2, 3)), np.nan)
    return np.asarray(means[batch.image_of_token], dtype=np.float32)


class Truth:
    """A model that knows which picture belongs to which tokens: its loss grows with the distance from it."""

    def __init__(self, documents: Sequence[HeldOut], slope: float) -> None:
        self._levels = {document.batch.input_ids.tobytes(): seen_level(document.batch) for document in documents}
        self._slope = slope

    def __call__(self, batch: Batch) -> Losses:
        distance = np.nan_to_num(np.abs(seen_level(batch) - self._levels[batch.input_ids.tobytes()]))
        losses = 3.0 + self._slope * distance
        return np.where(batch.labels != IGNORED, losses, 0).astype(np.float32)


def blind(batch: Batch) -> Losses:
    """A model that only reads: its loss depends on the token."""
    return np.where(batch.labels != IGNORED, 1 + batch.input_ids % 7, 0).astype(np.float32)


def measured(slope: float) -> Grounding:
    documents = corpus()
    losses = list(score_documents(documents, pool_of(documents), GREY, Truth(documents, slope), 0))
    found = summarise(losses, SETTINGS)
    assert found is not None
    return found


def test_a_model_that_looks_is_found_out() -> None:
    found = measured(0.5)
    assert found.gains["shuffled"].low > 0
    assert found.gains["none"].low > 0
    assert found.losses["right"] == pytest.approx(3.0)
    assert found.losses["shuffled"] == pytest.approx(3.0 + found.gains["shuffled"].estimate)
    assert found.verdict().startswith("The model looks at its images: other images cost it +")
    assert f"[{found.gains['shuffled'].low:+.4f}, {found.gains['shuffled'].high:+.4f}]" in found.verdict()


def test_a_model_that_ignores_images_gains_exactly_nothing() -> None:
    documents = corpus()
    found = summarise(list(score_documents(documents, pool_of(documents), GREY, blind, 0)), SETTINGS)
    assert found is not None
    for gain in found.gains.values():
        assert (gain.estimate, gain.low, gain.high) == (0.0, 0.0, 0.0)
    assert found.verdict().startswith("No sign that the model looks at its images: other images change +0.0000")


def test_a_model_trained_the_wrong_way_gets_the_third_verdict() -> None:
    found = measured(-0.5)
    assert found.gains["shuffled"].high < 0
    assert found.verdict().startswith("The model does better with wrong images: -")
    assert found.verdict().endswith("Something is amiss.")


def test_only_labels_after_an_image_count() -> None:
    def before_is_dear(batch: Batch) -> Losses:
        losses = np.where(batch.image_of_token >= 0, 1.0, 1000.0)
        return np.where(batch.labels != IGNORED, losses, 0).astype(np.float32)

    documents = corpus()
    for document, losses in zip(
        documents, score_documents(documents, pool_of(documents), GREY, before_is_dear, 0), strict=True
    ):
        labelled = document.batch.labels != IGNORED
        after = int((labelled & (document.batch.image_of_token >= 0)).sum())
        assert 0 < after < int(labelled.sum())
        assert losses.tokens == after
        assert losses.losses == {"right": after, "shuffled": after, "none": after}
        assert losses.all_tokens == int(labelled.sum())
        assert losses.all_loss == after + 1000.0 * (losses.all_tokens - after)


def test_an_image_at_the_end_is_followed_by_the_end_token_alone() -> None:
    documents = [held_out("a", [WORDS, 30]), held_out("b", [200, WORDS])]
    first, second = score_documents(documents, pool_of(documents), GREY, blind, 0)
    assert first.tokens == 1  # a document's end is a label as well
    assert second.tokens == second.all_tokens == len(tokenizer().encode(WORDS)) + 1


def test_images_of_an_earlier_window_are_not_seen() -> None:
    words: list[str | int] = [WORDS, 100, " ".join([WORDS] * 8)]
    whole, cut = held_out("whole", words), held_out("cut", words, row_tokens=40)
    assert len(cut.batch.input_ids) > 3
    other = held_out("other", [10, WORDS])
    first, second, _ = score_documents([whole, cut, other], pool_of([whole, cut, other]), GREY, blind, 0)
    assert 0 < second.tokens < first.tokens


def test_documents_without_images_are_skipped() -> None:
    documents = [held_out("text", [WORDS]), *corpus()[:2]]
    found = list(score_documents(documents, pool_of(documents), GREY, blind, 0))
    assert [losses.id for losses in found] == ["d0", "d1"]


def test_each_condition_shows_what_it_says_and_nothing_else_changes() -> None:
    documents = [held_out("a", [10, WORDS, 40, "more"]), held_out("b", [160, WORDS]), held_out("c", [220, WORDS])]
    pool = pool_of(documents)
    shown: list[Batch] = []

    def remember(batch: Batch) -> Losses:
        shown.append(batch)
        return blind(batch)

    list(score_documents(documents, pool, GREY, remember, 7))
    assert len(shown) == 9
    for number, document in enumerate(documents):
        right, shuffled, none = shown[3 * number : 3 * number + 3]
        assert (right.pixels == document.batch.pixels).all()
        assert (none.pixels == GREY).all()
        own = {pixels.tobytes() for owner, pixels in pool if owner == document.id}
        foreign = {pixels.tobytes() for owner, pixels in pool if owner != document.id}
        assert {pixels.tobytes() for pixels in shuffled.pixels} <= foreign - own
        for batch in (right, shuffled, none):
            assert batch.input_ids is document.batch.input_ids
            assert batch.labels is document.batch.labels
            assert batch.pixels.shape == document.batch.pixels.shape
            assert batch.pixels.flags.c_contiguous


def test_the_draw_depends_on_the_document_and_the_seed_not_on_the_order() -> None:
    documents = corpus()
    truth = Truth(documents, 0.5)
    pool = pool_of(documents)
    forward = {losses.id: losses for losses in score_documents(documents, pool, GREY, truth, 0)}
    backward = {losses.id: losses for losses in score_documents(documents[::-1], pool, GREY, truth, 0)}
    assert forward == backward
    other = {losses.id: losses for losses in score_documents(documents, pool, GREY, truth, 1)}
    assert any(forward[name].losses["shuffled"] != other[name].losses["shuffled"] for name in forward)
    assert all(forward[name].losses["right"] == other[name].losses["right"] for name in forward)


def test_a_pool_of_one_document_is_our_own_mistake() -> None:
    documents = corpus()[:1]
    with pytest.raises(AssertionError, match="at least two documents"):
        list(score_documents(documents, pool_of(documents), GREY, blind, 0))


def test_fewer_than_two_documents_with_a_token_after_an_image_are_no_answer() -> None:
    one = DocumentLosses(
        id="a", images=1, tokens=3, losses={"right": 3.0, "shuffled": 4.0, "none": 5.0}, all_tokens=9, all_loss=20.0
    )
    unseeing = DocumentLosses(
        id="b", images=1, tokens=0, losses={"right": 0.0, "shuffled": 0.0, "none": 0.0}, all_tokens=7, all_loss=4.0
    )
    assert summarise([], SETTINGS) is None
    assert summarise([one, unseeing], SETTINGS) is None
    found = summarise([one, one, unseeing], SETTINGS)
    assert found is not None
    assert (found.documents, found.tokens) == (2, 6)
    assert found.loss == pytest.approx(44.0 / 25)  # over all labels of all documents
    assert found.losses == {"right": 1.0, "shuffled": 4 / 3, "none": 5 / 3}
    assert found.gains["shuffled"].estimate == pytest.approx(1 / 3)
    assert found.gains["none"].low == pytest.approx(2 / 3)
