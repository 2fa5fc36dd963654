from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_builder import FAMILIES, IMAGE_TOKENS, VOCABULARY, Piece, Rows, make_batch, make_family

from carnac.core.batch import Batch
from carnac.core.errors import InputError
from carnac.model.language import Vocabulary, build_language
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import TowerSettings
from carnac.model.tensors import image_places, to_tensors

ROWS: Rows = [[(23, 2), (9, 0), (31, 3)], [(40, 1), (12, 1)], [(18, 0)]]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> MultimodalModel:
    # Windows of 7 tokens: shorter than each of the longer pieces and than every row.
    return make_family(request.param)


def logits(model: MultimodalModel, batch: Batch) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        return model(to_tensors(batch, model.tokens_per_image, model.device)).numpy()  # type: ignore[no-any-return]


def take_piece(batch: Batch, number: int) -> Batch:
    """Return piece `number` of `batch` alone in a row of its own."""
    row, columns = (index[0] if axis == 0 else index for axis, index in enumerate(np.nonzero(batch.segment == number)))
    first = columns[0]
    where = np.s_[row : row + 1, first : columns[-1] + 1]
    images = (batch.image_slots[:, 0] == row) & np.isin(batch.image_slots[:, 1], columns)
    return dataclasses.replace(
        batch,
        input_ids=batch.input_ids[where],
        labels=batch.labels[where],
        positions=batch.positions[where],
        segment=np.zeros_like(batch.segment[where]),
        image_of_token=batch.image_of_token[where],
        image_slots=batch.image_slots[images] - np.array([row, first, 0]),
        pixels=batch.pixels[images],
        provenance=(batch.provenance[number],),
    )


def compare_pieces(model: MultimodalModel, batch: Batch) -> float:
    packed, worst = logits(model, batch), 0.0
    for number in range(len(batch.provenance)):
        alone = logits(model, take_piece(batch, number))[0]
        worst = max(worst, float(np.abs(packed[batch.segment == number] - alone).max()))
    return worst


def test_packed_equals_separate(model: MultimodalModel) -> None:
    assert compare_pieces(model, make_batch(ROWS)) <= 1e-5


def test_packed_equals_separate_with_many_pieces_and_images(model: MultimodalModel) -> None:
    rows: Rows = [[(2 + 5 * (n % 6), n % 6) for n in range(20)], [(29, 5), (60, 5)], [(3, 0)] * 12 + [(40, 4)]]
    worst = compare_pieces(model, make_batch(rows))
    print(f"{model.language.config.model_type}: packed and separate differ by {worst:.1e}")
    assert worst <= 1e-5


PIECES = st.integers(0, 5).flatmap(lambda n: st.tuples(st.integers(2 + 5 * n, 40), st.just(n)))


@given(st.sampled_from(sorted(FAMILIES)), st.lists(st.lists(PIECES, min_size=1, max_size=20), min_size=1, max_size=2))
@settings(max_examples=60, deadline=None)
def test_packed_equals_separate_for_any_layout(kind: str, rows: Rows) -> None:
    assert compare_pieces(family(kind), make_batch(rows)) <= 1e-5


@given(st.sampled_from(sorted(FAMILIES)), st.lists(PIECES, min_size=2, max_size=20), st.integers(0, 19))
@settings(max_examples=60, deadline=None)
def test_changing_a_piece_changes_no_other_by_a_bit_in_any_layout(kind: str, row: list[Piece], number: int) -> None:
    batch = make_batch([row])
    before, after = (logits(family(kind), each) for each in (batch, change_piece(batch, number % len(row))))
    others = (batch.segment != number % len(row)) & (batch.segment >= 0)
    assert (before[others] == after[others]).all()


family = functools.cache(make_family)


def test_a_wrong_mask_would_be_seen(model: MultimodalModel) -> None:
    batch = make_batch(ROWS)
    through = dataclasses.replace(batch, positions=np.arange(batch.positions.shape[1])[None].repeat(3, axis=0))
    assert np.abs(logits(model, through) - logits(model, batch)).max() > 1e-2


def change_piece(batch: Batch, number: int) -> Batch:
    """Return `batch` with other ids and pictures in one piece, of the same lengths."""
    ids, pixels = batch.input_ids.copy(), batch.pixels.copy()
    changed = batch.segment == number
    ids[changed & (ids != 2)] = 5
    pixels[changed[batch.image_slots[:, 0], batch.image_slots[:, 1]]] += 1.0
    return dataclasses.replace(batch, input_ids=ids, pixels=pixels)


def test_changing_a_piece_changes_no_other_by_a_bit(model: MultimodalModel) -> None:
    batch = make_batch(ROWS)
    changed = batch.segment == 0
    before, after = logits(model, batch), logits(model, change_piece(batch, 0))
    assert (before[~changed] == after[~changed]).all()
    assert (before[changed] != after[changed]).any()


def test_changing_an_image_changes_no_earlier_token(model: MultimodalModel) -> None:
    batch = make_batch(ROWS)
    pixels = batch.pixels.copy()
    pixels[1] += 1.0
    row, first, _ = batch.image_slots[1]
    before, after = logits(model, batch), logits(model, dataclasses.replace(batch, pixels=pixels))
    assert (before[row, :first] == after[row, :first]).all()
    assert (before[row, first + IMAGE_TOKENS] != after[row, first + IMAGE_TOKENS]).any()


def test_image_tokens_go_to_their_slots_whatever_their_ids(model: MultimodalModel) -> None:
    batch = make_batch(ROWS)
    ids = np.where(batch.input_ids == 2, 3, batch.input_ids)
    assert (logits(model, batch) == logits(model, dataclasses.replace(batch, input_ids=ids))).all()


def test_places_count_along_the_rows() -> None:
    slots = np.array([[0, 1, 2], [2, 3, 2]])
    assert image_places(slots, 2, 10).tolist() == [[1, 2], [23, 24]]
    with pytest.raises(AssertionError, match="the model makes 4"):
        image_places(slots, 4, 10)


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (
            "opt",
            {"hidden_size": 32, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            "cannot be packed",
        ),
        ("llama", {"hidden_size": 32, "hidden_act": "gule"}, "cannot build this llama"),
        (
            "stablelm",
            {"hidden_size": 48, "num_attention_heads": 4, "num_key_value_heads": 4},
            "this stablelm cannot run",
        ),
    ],
)
def test_models_that_leak_or_cannot_be_built_are_refused(kind: str, fields: dict[str, int | str], words: str) -> None:
    tower = TowerSettings.model_validate({"type": kind, "config": {"num_hidden_layers": 1, **fields}})
    with pytest.raises(InputError, match=words):
        build_language(tower, Vocabulary(size=VOCABULARY, pad_id=0))


@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "granite", "cohere"])
def test_other_attention_families_pass_the_proof(kind: str) -> None:
    sizes: dict[str, int | float | bool | str] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"num_key_value_heads": 2} if kind == "qwen2" else {}
    if kind == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2}
    vocabulary = Vocabulary(size=VOCABULARY, pad_id=0, bos_id=1, eos_id=1)
    assert build_language(TowerSettings(type=kind, config=sizes), vocabulary).config.model_type == kind
