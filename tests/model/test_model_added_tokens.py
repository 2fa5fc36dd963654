from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from model_builder import FAMILIES, IMAGE_SIZE_PX, VOCABULARY, make_batch, make_settings

from carnac.core.errors import InputError
from carnac.model.added_tokens import (
    AddedEmbedding,
    add_tokens,
    added_ids_of,
    added_parameters,
    base_rows,
    language_weights,
    vision_weights,
)
from carnac.model.build import build_model
from carnac.model.language import Vocabulary, language_from_config
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ConfigValue, ModelSettings
from carnac.model.towers import make_config, stored_fields

INSIDE, BEYOND, BOTH = (120, 7, 127), (128, 129), (130, 50, 129, 128)


def make_added(
    kind: str, added_ids: tuple[int, ...], trained: tuple[str, ...] = ("added_tokens",), **fields: ConfigValue
) -> MultimodalModel:
    """Return a model whose language model has 128 rows of its own, and rows far from them for `added_ids`."""
    settings = make_settings(kind, **FAMILIES.get(kind, {}), **fields)
    settings = ModelSettings.model_validate({**settings.model_dump(), "trained": trained})
    vocabulary = Vocabulary(size=VOCABULARY, pad_id=0, added_ids=added_ids)
    model = build_model(settings, vocabulary, IMAGE_SIZE_PX, seed=0).eval()
    with torch.no_grad():
        for rows in added_parameters(model.language):
            rows.copy_(torch.randn(rows.shape, generator=torch.Generator().manual_seed(1)))
    return model


def plain_language(model: MultimodalModel) -> Any:
    """Return transformers' own class with one table of all rows, as an export has it."""
    language = model.language
    fields = stored_fields(language.config)
    plain = language_from_config(make_config(language.config.model_type, fields)).eval()
    missing, unknown = plain.load_state_dict(language_weights(model), strict=False)
    tied = plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    assert (missing, unknown) == (["lm_head.weight"] if tied else [], [])
    return plain


def ids_with(added_ids: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([[*added_ids, *range(20), *added_ids]])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("added_ids", [INSIDE, BEYOND, BOTH])
@pytest.mark.parametrize("kind", FAMILIES)
def test_rows_beside_the_table_compute_what_one_table_computes(
    kind: str, added_ids: tuple[int, ...], tied: bool
) -> None:
    model = make_added(kind, added_ids, tie_word_embeddings=tied)
    plain, ids = plain_language(model), ids_with(added_ids)
    with torch.no_grad():
        found, wanted = (each(input_ids=ids, use_cache=False).logits for each in (model.language, plain))
    assert found.shape == wanted.shape == (1, ids.shape[1], max(VOCABULARY, max(added_ids) + 1))
    assert model.language.config.vocab_size == wanted.shape[-1]
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert torch.equal(model.language.get_input_embeddings()(ids), plain.get_input_embeddings()(ids))


def test_a_head_with_a_bias_keeps_it() -> None:
    sizes: dict[str, int] = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    language = language_from_config(make_config("phi", {**sizes, "intermediate_size": 64, "vocab_size": 128}))
    with torch.no_grad():
        language.lm_head.bias.normal_()
    before = language(input_ids=ids_with(()), use_cache=False).logits
    add_tokens(language, BOTH)
    after = language(input_ids=ids_with(()), use_cache=False).logits
    others = [number for number in range(128) if number not in BOTH]
    assert torch.equal(before[..., others], after[..., others])
    bias = after - torch.nn.functional.linear(language.model(input_ids=ids_with(())).last_hidden_state, table(language))
    assert torch.allclose(bias[..., 50], language.lm_head.base.bias[50], atol=1e-5)
    assert torch.allclose(bias[..., 128:], torch.zeros(()), atol=1e-5)


def table(language: Any) -> torch.Tensor:
    """Return the rows of a head [K, D], the added ones in their places."""
    head = language.get_output_embeddings()
    rows = torch.zeros(len(head.base.weight) + len(head.beyond), head.base.in_features)
    rows[: len(head.base.weight)] = head.base.weight.detach()
    rows[head.ids] = head.added.weight.detach()
    return rows


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_reach_the_added_rows_and_the_tables_get_none(tied: bool) -> None:
    model = make_added("llama", BOTH, tie_word_embeddings=tied)
    batch = make_batch([[(40, 1)], [(30, 0)]])
    batch.input_ids[0, 30:34] = batch.labels[0, 29:33] = BOTH
    torch.autograd.backward(model.loss(batch, 1)[0])
    added = added_parameters(model.language)
    assert len(added) == (1 if tied else 2)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == trained
    assert all(name.endswith("added.weight") for name in trained)
    assert all(rows.grad is not None and (rows.grad.abs().sum(1) > 0).all() for rows in added)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3_text"])
def test_added_rows_get_the_gradients_that_rows_of_one_table_would_get(kind: str, tied: bool) -> None:
    model = make_added(kind, BOTH, tie_word_embeddings=tied)
    plain, ids = plain_language(model), ids_with(BOTH)
    for language in (model.language, plain):
        torch.autograd.backward(language(input_ids=ids, use_cache=False).logits.softmax(-1).square().sum())
    tables = [plain.get_input_embeddings().weight, *([] if tied else [plain.get_output_embeddings().weight])]
    for rows, table in zip(added_parameters(model.language), tables, strict=True):
        assert rows.grad is not None
        assert (rows.grad - table.grad[list(BOTH)]).abs().max() <= 1e-5 * table.grad.abs().max()


def test_a_language_model_in_half_precision_takes_rows_in_full() -> None:
    model = make_added("gemma2", BOTH, tie_word_embeddings=True)
    full = {name: tensor.clone() for name, tensor in model.language.state_dict().items() if ".added." in name}
    model.language.to(torch.bfloat16)
    for rows in added_parameters(model.language):
        rows.data = full["model.embed_tokens.added.weight"]
    found = model.language(input_ids=ids_with(BOTH), use_cache=False).logits
    assert found.dtype == torch.bfloat16
    torch.autograd.backward(found.float().square().mean())
    (rows,) = added_parameters(model.language)
    assert rows.dtype == torch.float32
    assert rows.grad is not None and torch.isfinite(rows.grad).all()  # noqa: PT018 - the second needs the first


def test_an_added_token_starts_as_a_middling_one() -> None:
    torch.manual_seed(0)
    language = language_from_config(make_config("llama", {**stored_fields(make_added("llama", ()).language.config)}))
    add_tokens(language, BOTH)
    rows, own = language.get_input_embeddings().added.weight, language.get_input_embeddings().weight
    assert (rows - own.mean(0)).std() < 0.2 * own.std()
    assert len({tuple(row.tolist()) for row in rows}) == len(BOTH)


def test_without_added_tokens_nothing_is_wrapped() -> None:
    model = make_added("llama", ())
    assert type(model.language.get_input_embeddings()) is torch.nn.Embedding
    assert (added_ids_of(model.language), added_parameters(model.language)) == ((), [])
    assert language_weights(model).keys() == model.language.state_dict().keys() - {"lm_head.weight"}
    assert vision_weights(model).keys() == model.vision.state_dict().keys()


def test_ids_keep_the_order_of_their_rows() -> None:
    model = make_added("llama", BOTH)
    assert added_ids_of(model.language) == BOTH
    assert base_rows(model.language) == VOCABULARY
    rows = language_weights(model)["model.embed_tokens.weight"]
    assert torch.equal(rows[list(BOTH)], added_parameters(model.language)[0])


def test_a_model_with_added_tokens_can_be_copied_with_its_ties() -> None:
    model = make_added("llama", BEYOND)
    again = copy.deepcopy(model)
    assert len(added_parameters(again.language)) == 1
    assert isinstance(again.language.get_input_embeddings(), AddedEmbedding)


@pytest.mark.parametrize(
    ("added_ids", "words"),
    [
        ((128, 130), "none left out behind the 128 rows"),
        ((129,), "none left out behind the 128 rows"),
        ((5, 5), "each once"),
        ((-1,), "ids -1 to -1"),
    ],
)
def test_ids_that_no_table_can_hold_give_a_sentence(added_ids: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_added("llama", added_ids)
