"""Answers of the cross-attention family: pictures are read once, whatever the rows, the prefix and what is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_builder import FAMILIES, VOCABULARY
from model_prompts import in_shapes, joined, make_native, make_prompt, make_reader, tensors_of

from carnac.core.seeds import generator
from carnac.model.cross_attention.blocks import GatedCrossAttention, KeysValues
from carnac.model.cross_attention.model import CrossAttentionModel
from carnac.model.generation.decoding import Decoding, Prefix, read_prefix
from carnac.model.generation.generate import answer_prompts
from carnac.model.generation.inputs import readable_alone
from carnac.model.generation.prompt import Prompt
from carnac.model.generation.sampling import choose
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import GenerationSettings, MlpSettings

GREEDY = GenerationSettings()
# Of the largest logit, all computed in float64: nothing but the order of sums. Gemma 2's softmax is in float32.
CLOSE = {"gemma2": 1e-5}
CLOSE_ELSE = 1e-12
VARIANTS: dict[str, dict[str, Any]] = {
    "previous": {"attend": "previous"},
    "previous, Idefics": {"attend": "previous", "text_tokens": "mlp", "gates": "vector"},
    "earlier": {"attend": "earlier"},
    "earlier, all through the MLP": {"attend": "earlier", "text_tokens": "mlp", "mlp": "gelu", "every": 4},
    "next": {"attend": "next"},
    "next, all through the MLP": {"attend": "next", "text_tokens": "mlp", "qk_norms": False},
    "previous, with the leak": {"attend": "previous", "mask": "uniform"},
    "next, with the leak": {"attend": "next", "mask": "uniform"},
    "earlier, patches themselves": {"attend": "earlier", "connector": MlpSettings(hidden_size=16)},
}


@cache
def reader(family: str = "llama", **fields: Any) -> CrossAttentionModel:
    """Return a tiny model that computes in float64."""
    return make_reader(family, **fields).double()


def prompt_of(layout: str, seed: int = 0) -> Prompt:
    """Return a prompt with a picture for each `i` and random words for each `.`."""
    draws = generator(seed, "layout", layout)
    places = np.array([place for place, mark in enumerate(layout) if mark == "i"], dtype=np.int64)
    ids = draws.integers(3, VOCABULARY, len(layout))
    ids[places] = 2
    return Prompt(ids=ids, places=places, pixels=draws.standard_normal((len(places), 3, 32, 32), dtype=np.float32))


# A picture first, last, alone, side by side, and none; beyond the families' windows of 7.
PROMPTS = [
    prompt_of("..i......i...i........"),
    prompt_of("i....."),
    prompt_of("....i"),
    prompt_of("."),
    prompt_of("i"),
    prompt_of("iii..ii........i"),
    prompt_of("........."),
]


def variant(name: str) -> CrossAttentionModel:
    """Return the model of one of `VARIANTS`, whose names are all that the cache needs to know."""
    return reader("llama", **VARIANTS[name])


@contextmanager
def logits_kept() -> Iterator[list[torch.Tensor]]:
    """Keep the logits of each step."""
    kept: list[torch.Tensor] = []

    def keep(logits: torch.Tensor, *others: Any) -> torch.Tensor:
        kept.append(logits.clone())
        return choose(logits, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carnac.model.generation.decoding.choose", keep)
        yield kept


def answer(
    model: MultimodalModel, prompts: Sequence[Prompt], counts: Sequence[int], prefix: Prefix | None = None
) -> list[tuple[list[int], torch.Tensor]]:
    """Return so many ids after each prompt, and the logits [count, V] that they were chosen from."""
    found: list[list[int]] = [[] for _ in prompts]
    logits: list[list[torch.Tensor]] = [[] for _ in prompts]
    going = Decoding(model, prompts, GREEDY, prefix)
    with logits_kept() as kept:
        while tokens := going.step():
            for row, (number, token) in enumerate(tokens.items()):
                found[number].append(token)
                logits[number].append(kept[-1][row])
                if len(found[number]) == counts[number]:
                    going.end(number)
    return [(ids, torch.stack(rows)) for ids, rows in zip(found, logits, strict=True)]


def assert_as_uncached(model: MultimodalModel, prompt: Prompt, said: tuple[list[int], torch.Tensor]) -> None:
    """Require the logits that one pass over prompt and answer gives, without any cache."""
    ids, logits = said
    with torch.no_grad():
        wanted = model(tensors_of(model, prompt, ids[:-1]))[0, len(prompt) - 1 :]
    close = CLOSE.get(model.language.config.model_type, CLOSE_ELSE)
    assert float((logits - wanted).abs().max()) <= close * float(wanted.abs().max())


@pytest.mark.parametrize("name", VARIANTS)
def test_pictures_anywhere_are_read_as_without_a_cache(name: str) -> None:
    model = variant(name)
    for prompt in PROMPTS:
        (said,) = answer(model, [prompt], [12])
        assert_as_uncached(model, prompt, said)
    assert len(set(said[0])) > 3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attend", ["previous", "earlier"])
def test_a_batch_answers_as_each_prompt_alone_beyond_the_window(family: str, attend: str) -> None:
    model = reader(family, attend=attend)
    counts = [24, 3, 24, 10, 24, 17, 5]
    for prompt, said in zip(PROMPTS, answer(model, PROMPTS, counts), strict=True):
        assert_as_uncached(model, prompt, said)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("beginning", ["..i....", "....", "i.i", "i"])
def test_a_prefix_read_once_is_as_the_whole(name: str, beginning: str) -> None:
    model = variant(name)
    shared = prompt_of(beginning, seed=1)
    prefix = read_prefix(model, shared)
    prompts = [joined(shared, prompt) for prompt in PROMPTS]
    for chosen in (prompts, prompts[3:4], prompts[1:3]):  # the prefix is as it was each time
        for prompt, said in zip(
            chosen, answer(model, chosen, [6, 3, 6, 4, 6, 6, 5][: len(chosen)], prefix), strict=True
        ):
            assert_as_uncached(model, prompt, said)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(list(VARIANTS)),
    shared=st.text("i..", max_size=9),
    layouts=st.lists(st.text("i..", min_size=1, max_size=9), min_size=1, max_size=5),
    counts=st.lists(st.integers(1, 6), min_size=5, max_size=5),
)
def test_any_batch_answers_as_each_alone(name: str, shared: str, layouts: list[str], counts: list[int]) -> None:
    model = variant(name)
    prompts = [prompt_of(layout, seed=row) for row, layout in enumerate(layouts)]
    prefix = None
    if shared:
        beginning = prompt_of(shared, seed=9)
        prefix, prompts = read_prefix(model, beginning), [joined(beginning, prompt) for prompt in prompts]
    for prompt, said in zip(prompts, answer(model, prompts, counts[: len(prompts)], prefix), strict=True):
        assert_as_uncached(model, prompt, said)


@pytest.mark.parametrize("name", VARIANTS)
def test_pictures_change_what_is_said_where_they_are_read(name: str) -> None:
    model = variant(name)
    prompt = PROMPTS[0]
    other = Prompt(ids=prompt.ids, places=prompt.places, pixels=prompt.pixels[::-1].copy())
    (_, one), (_, two) = (answer(model, [shown], [4])[0] for shown in (prompt, other))
    assert not torch.allclose(one, two, rtol=0, atol=1e-3 * float(one.abs().max()))


def test_a_text_alone_is_the_bare_language_models_to_the_bit() -> None:
    model = reader("mistral", attend="earlier")
    (said,) = answer(model, [prompt_of("." * 20)], [16])
    bare = reader("mistral", attend="earlier", gate_start=0.0, gate_spread=0.0)
    (wanted,) = answer(bare, [prompt_of("." * 20)], [16])
    for mine, theirs in zip(model.language.parameters(), bare.language.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert said[0] == wanted[0]
    assert torch.equal(said[1], wanted[1])


def test_a_text_alone_runs_neither_tower_nor_connector(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIANTS:
        model = variant(name)
        with monkeypatch.context() as patch:
            for part in (model.vision, model.connector):
                patch.setattr(part, "forward", lambda *_, **__: pytest.fail("pictures were looked for"))
            prefix = read_prefix(model, prompt_of("....", seed=1))
            prompts = [joined(prefix.prompt, prompt_of(layout)) for layout in ("..", ".....")]
            answer(model, prompts, [3, 3], prefix)


def test_each_picture_is_seen_once_and_each_block_reads_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = variant("earlier")
    seen: list[int] = []
    made: list[int] = []
    see, keys_values = model.see, GatedCrossAttention.keys_values

    def count_seen(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return see(pixels)

    def count_made(block: GatedCrossAttention, memory: torch.Tensor) -> KeysValues:
        made.append(len(memory))
        return keys_values(block, memory)

    monkeypatch.setattr(model, "see", count_seen)
    monkeypatch.setattr(GatedCrossAttention, "keys_values", count_made)
    examples = prompt_of("..i....i.........i..", seed=1)
    prompts = [joined(examples, prompt) for prompt in PROMPTS]
    answers = answer_prompts(model, prompts, GenerationSettings(max_new_tokens=8), str)
    own = sum(len(prompt.places) for prompt in PROMPTS)
    assert seen == [3, own]  # the examples' pictures, then those of the questions; none of them while answers grow
    assert sum(made) == len(model.fusion) * (3 + own)
    monkeypatch.undo()
    for prompt, found in zip(prompts, answers, strict=True):
        ((wanted, _),) = answer(model, [prompt], [8])
        assert list(found.ids) == wanted


def test_pictures_of_rows_that_have_ended_are_let_go() -> None:
    model = variant("previous")
    examples = prompt_of("i.i.", seed=1)
    going = Decoding(model, [joined(examples, prompt) for prompt in PROMPTS], GREEDY, read_prefix(model, examples))
    going.step()
    memory = going._memory
    assert memory is not None
    assert memory.count == 2 + sum(len(prompt.places) for prompt in PROMPTS)
    for number in (0, 2, 3, 4, 5, 6):
        going.end(number)
    going.step()
    memory = going._memory
    assert memory is not None
    assert memory.images == ((0, 1, 2),)
    assert all(len(keys) == len(values) == 3 for keys, values in memory.keys_values)


def test_what_waits_for_the_next_picture_is_no_part_of_a_prefix() -> None:
    prompt = prompt_of("..i..i....")
    assert readable_alone(variant("previous"), prompt) == readable_alone(variant("earlier"), prompt) == 10
    assert readable_alone(variant("next"), prompt) == len(read_prefix(variant("next"), prompt).prompt) == 6
    assert readable_alone(variant("next"), prompt_of("....")) == 0
    assert readable_alone(variant("previous, with the leak"), prompt) == 0


def test_draws_and_stop_texts_are_as_in_the_other_family() -> None:
    model = variant("previous")
    drawn = GenerationSettings(max_new_tokens=12, temperature=1.0, seed=3)
    spell = "".join
    texts = [chr(0x4E00 + number) for number in range(VOCABULARY)]
    whole = answer_prompts(model, PROMPTS, drawn, lambda ids: spell(texts[number] for number in ids))
    alone = answer_prompts(model, PROMPTS[:1], drawn, lambda ids: spell(texts[number] for number in ids))
    assert whole[0] == alone[0]
    stop = whole[0].text[5]
    stopped = answer_prompts(
        model, PROMPTS, drawn.model_copy(update={"stop": (stop,)}), lambda ids: spell(texts[number] for number in ids)
    )
    assert [answer.text for answer in stopped] == [answer.text.partition(stop)[0] for answer in whole]


def test_prompts_with_random_pictures_need_one_place_for_each() -> None:
    model = variant("previous")
    prompt = make_prompt(20, 3, places_of_one=1)
    (said,) = answer(model, [prompt], [4])
    assert_as_uncached(model, prompt, said)


@pytest.mark.parametrize("family", ["autoregressive", "cross_attention"])
def test_pictures_of_any_shape_are_read_side_by_side_as_alone(
    family: Literal["autoregressive", "cross_attention"],
) -> None:
    """Whole squares, a wide one, a high one and one of a single patch: NaN beyond each of them."""
    model = make_native(family)
    side = model.image_size_px
    shapes = [(side, side), (16, side), (64, 32), (16, 16)]
    words = make_prompt(24, 2, places_of_one=model.tokens_per_image)
    beginning = in_shapes(words, shapes[2:], side, seed=1)
    prefix = read_prefix(model, beginning)
    questions = [
        in_shapes(words, shapes[:2], side),
        in_shapes(make_prompt(3), [], side),
        in_shapes(make_prompt(9, 1, places_of_one=model.tokens_per_image), shapes[3:], side),
    ]
    prompts = [joined(beginning, question) for question in questions]
    for prompt, said in zip(prompts, answer(model, prompts, [8, 5, 8], prefix), strict=True):
        assert_as_uncached(model, prompt, said)
    for prompt, said in zip(questions, answer(model, questions, [8, 5, 8]), strict=True):
        assert_as_uncached(model, prompt, said)
    shared = answer_prompts(model, prompts, GenerationSettings(max_new_tokens=6), str)
    for prompt, found in zip(prompts, shared, strict=True):
        ((wanted, _),) = answer(model, [prompt], [6])
        assert list(found.ids) == wanted
