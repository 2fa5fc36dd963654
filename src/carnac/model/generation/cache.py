"""Keys and values of what was read, in buffers with room to grow.

transformers' own layers make a new tensor for every new token; here a token is written into room that is there, and the
buffer grows by half when it is full, so that a token costs the same however much was read before it.

Legend of shapes: R rows, H heads of keys and values, T tokens, D width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DummyLayer, DynamicCache, DynamicLayer

MIN_ROOM = 64  # tokens that a buffer has room for beyond what it holds, when it is made


class BufferLayer(CacheLayerMixin):  # type: ignore[no-untyped-call] # transformers is untyped
    """One layer's keys and values [R, H, T, D]; `window`: a token sees so many tokens, itself included (None: all).

    `length` tokens were seen. Column c of the buffers is token `first + c`: a sliding layer forgets, when it grows,
    what no later token can see.
    """

    is_compileable = False
    is_croppable = False

    def __init__(self, window: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # transformers is untyped
        self.window = window
        self.is_sliding = window is not None
        self.length = 0
        self.first = 0

    @property
    def visible_from(self) -> int:
        """The first token that the next one sees."""
        return 0 if self.window is None else max(self.length - self.window + 1, 0)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make empty buffers of the rows, heads and widths of `key_states` and `value_states`."""
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_keywords: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add tokens [R, H, T, D]; return the keys and values that these may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        visible, added = self.visible_from, key_states.shape[2]
        if self.length - self.first + added > self.keys.shape[2]:
            self._grow(added)
        self.length += added
        start, end = visible - self.first, self.length - self.first
        assert self.keys is not None
        assert self.values is not None
        self.keys[:, :, end - added : end] = key_states
        self.values[:, :, end - added : end] = value_states
        return self.keys[:, :, start:end], self.values[:, :, start:end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (number of keys, number of the first) that `query_length` new tokens meet."""
        return self.length - self.visible_from + query_length, self.visible_from

    def get_seq_length(self) -> int:
        """Return the number of tokens seen."""
        return self.length

    def get_max_length(self) -> int:
        """Return -1: no bound."""
        return -1

    def copied(self, rows: int) -> BufferLayer:
        """Return a layer of `rows` rows that begin with what this one of a single row holds; it is left as it is."""
        layer = BufferLayer(self.window)
        layer.length, layer.first = self.length, self.visible_from
        held = slice(self.visible_from - self.first, self.length - self.first)
        if self.is_initialized:
            assert self.keys is not None
            assert self.values is not None
            # Only looked at until the first update, which has no room and so moves it.
            layer.keys = self.keys[:, :, held].expand(rows, -1, -1, -1)
            layer.values = self.values[:, :, held].expand(rows, -1, -1, -1)
            layer.is_initialized = True
        return layer

    def select(self, rows: torch.Tensor) -> None:
        """Keep `rows` alone."""
        if self.is_initialized:
            assert self.keys is not None
            assert self.values is not None
            self.keys, self.values = self.keys[rows], self.values[rows]

    def align_right(self, padding: torch.Tensor) -> None:
        """Move each row to the right by its padding [R], so that its last token comes last.

        What is left of a row's first token is not to be seen. Keys hold their own positions (rotary), so that only the
        distance of columns is to be right: it is, within a row, before and after.
        """
        if not self.is_initialized:
            return
        assert self.keys is not None
        assert self.values is not None
        held = self.length - self.first
        columns = (torch.arange(held, device=padding.device) - padding[:, None]) % held  # [R, T]
        rows = torch.arange(len(padding), device=padding.device)[:, None]
        for buffer in (self.keys, self.values):
            buffer[:, :, :held] = buffer[rows, :, columns].transpose(1, 2)

    def _grow(self, added: int) -> None:
        assert self.keys is not None
        assert self.values is not None
        visible = self.visible_from
        held = slice(visible - self.first, self.length - self.first)
        kept = held.stop - held.start + added
        capacity = kept + max(kept // 2, MIN_ROOM)
        self.keys, self.values = _moved(self.keys, held, capacity), _moved(self.values, held, capacity)
        self.first = visible


def new_cache(config: Any) -> Cache:
    """Return an empty cache for a language model of this configuration."""
    return Cache(layers=[_layer_like(layer) for layer in DynamicCache(config=config).layers])


def copied(cache: Cache, rows: int) -> Cache:
    """Return a cache of `rows` rows that begin with what `cache` of a single row holds; that one is left as it is."""
    return Cache(layers=[layer.copied(rows) if isinstance(layer, BufferLayer) else layer for layer in cache.layers])


def select(cache: Cache, rows: torch.Tensor) -> None:
    """Keep `rows` of every layer alone."""
    for layer in cache.layers:
        if isinstance(layer, BufferLayer):
            layer.select(rows)


def align_right(cache: Cache, padding: torch.Tensor) -> None:
    """Move each row of every layer to the right by its padding [R]."""
    for layer in cache.layers:
        if isinstance(layer, BufferLayer):
            layer.align_right(padding)


def _layer_like(layer: Any) -> Any:
    if isinstance(layer, DummyLayer):  # of a layer that reads another one's keys
        return layer
    # Whatever else a family may keep, packing refused it (`model.towers`): attention only.
    assert isinstance(layer, DynamicLayer), type(layer)
    return BufferLayer(getattr(layer, "sliding_window", None))


def _moved(buffer: torch.Tensor, held: slice, capacity: int) -> torch.Tensor:
    larger = buffer.new_empty((*buffer.shape[:2], capacity, buffer.shape[3]))
    larger[:, :, : held.stop - held.start] = buffer[:, :, held]
    return larger
