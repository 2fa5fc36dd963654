from __future__ import annotations

from typing import Any

import pytest
import torch
from model_builder import FAMILIES
from model_prompts import WINDOW, make_talker
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from carnac.model.generation.cache import MIN_ROOM, BufferLayer, new_cache

full_layer: Any = DynamicLayer
sliding_layer: Any = DynamicSlidingWindowLayer


def states(tokens: int, rows: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, 3, tokens, 5), torch.randn(rows, 3, tokens, 4)


@pytest.mark.parametrize("window", [None, 2, 7, 100])
@pytest.mark.parametrize("steps", [[1] * 200, [30, 1, 1, 90, *[1] * 70, 5], [7, 6, 1, 1], [6, 1, 1, 200, 1]])
def test_a_layer_shows_what_transformers_own_shows(window: int | None, steps: list[int]) -> None:
    torch.manual_seed(0)
    ours, theirs = BufferLayer(window), full_layer() if window is None else sliding_layer(window)
    for count in steps:
        keys, values = states(count)
        assert ours.get_mask_sizes(count) == theirs.get_mask_sizes(count)
        for got, want in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(got, want)
    assert ours.get_seq_length() == sum(steps)


def test_a_window_bounds_the_memory() -> None:
    layer = BufferLayer(WINDOW)
    for _ in range(1000):
        layer.update(*states(1))
    assert layer.keys is not None
    assert layer.keys.shape[2] <= WINDOW + MIN_ROOM


def test_few_tokens_are_moved_when_a_buffer_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = BufferLayer(None)
    moved: list[int] = []
    grow = layer._grow

    def count_tokens(added: int) -> None:
        moved.append(layer.length)
        grow(added)

    monkeypatch.setattr(layer, "_grow", count_tokens)
    for _ in range(2000):
        layer.update(*states(1))
    # Grown by half each time: at most 1 / (1.5 - 1) = 2 moves of a token on average, and one for the last.
    assert sum(moved) <= 3 * 2000


@pytest.mark.parametrize("window", [None, 7])
def test_a_copy_leaves_its_original_alone(window: int | None) -> None:
    torch.manual_seed(0)
    layer = BufferLayer(window)
    layer.update(*states(20, rows=1))
    keys, values = states(1)
    first = layer.copied(2).update(keys, values)
    second = layer.copied(2)
    second.update(*states(3))
    for got, want in zip(layer.copied(2).update(keys, values), first, strict=True):
        assert torch.equal(got, want)
    assert layer.get_seq_length() == 20


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_those_of_the_family(family: str) -> None:
    model = make_talker(family)
    config = model.language.config
    windows = [layer.window for layer in new_cache(config).layers if isinstance(layer, BufferLayer)]
    kind = "sliding_attention" if family == "mistral" else "full_attention"
    kinds = getattr(config, "layer_types", None) or [kind] * config.num_hidden_layers
    assert windows == [WINDOW if kind == "sliding_attention" else None for kind in kinds]
    assert (family == "llama") == (WINDOW not in windows)
