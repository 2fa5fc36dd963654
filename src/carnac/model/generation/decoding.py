"""Prompts read once into a cache, then a token per prompt and step.

Prompts of unequal lengths are read side by side with padding at their ends, where no token sees it; then each row of
the cache is moved to the right, so that the next tokens line up. What is left of a row is hidden by a mask of rows and
columns, from which transformers makes each family's own: windows count columns, which keep a row's own distances.

Legend of shapes: R prompts still being answered, T tokens, D width of the language model, K vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from carnac.core.errors import InputError
from carnac.model.generation.cache import align_right, copied, new_cache, select
from carnac.model.generation.prompt import Prompt, check_prompt
from carnac.model.generation.sampling import choose, draws_of
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import GenerationSettings
from carnac.model.tensors import image_places


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prefix:
    """A beginning that prompts have in common, read once; it may be answered any number of times."""

    prompt: Prompt
    cache: Any


@torch.inference_mode()
def read_prefix(model: MultimodalModel, prompt: Prompt) -> Prefix:
    """Read a beginning. Raises InputError when the model cannot read it."""
    check_prompt(prompt, model.tokens_per_image, longest_of(model))
    model.eval()
    cache = new_cache(model.language.config)
    _forward(model, _embedded(model, [prompt]), start=0, cache=cache, kept=1)
    return Prefix(prompt=prompt, cache=cache)


def longest_of(model: MultimodalModel) -> int:
    """Return the number of positions of the language model."""
    return int(getattr(model.language.config, "max_position_embeddings", None) or 2**31)


class Decoding:
    """The answers to some prompts, a token at a time: `step` finds the next ones, `end` says which are complete."""

    def __init__(
        self,
        model: MultimodalModel,
        prompts: Sequence[Prompt],
        settings: GenerationSettings,
        prefix: Prefix | None = None,
    ) -> None:
        """Check the prompts, which are whole: with `prefix`, each begins with it. They are read at the first step."""
        self._longest = longest_of(model)
        for prompt in prompts:
            check_prompt(prompt, model.tokens_per_image, self._longest)
            if prefix and not (len(prompt) > len(prefix.prompt) and prompt.begins_with(prefix.prompt)):
                raise InputError(
                    f"a prompt of {len(prompt)} tokens does not begin with the prefix of {len(prefix.prompt)} tokens "
                    "that was read, or ends with it. Give whole prompts, or read another prefix."
                )
        self._model = model
        self._settings = settings
        self._prefix = prefix
        self._prompts = tuple(prompts)
        self._numbers = list(range(len(prompts)))
        self._draws = [draws_of(settings, number) for number in self._numbers]
        self._ended: set[int] = set()
        self._last = torch.zeros(0, dtype=torch.long)  # [R], the tokens found last
        self._lengths = [len(prompt) for prompt in prompts]  # tokens read, or to be read in the first step
        self._padding: torch.Tensor | None = None  # [R] columns of the cache before a row's first; None: none anywhere
        self._columns = 0  # of the cache
        self._cache: Any = None
        self._positions = torch.zeros(0, dtype=torch.long)  # [R] of the next token

    @torch.inference_mode()
    def step(self) -> dict[int, int]:
        """Return the next id of each prompt that goes on, by the prompt's number; nothing when all have ended."""
        if self._cache is None:
            logits = self._read() if self._numbers else None
        else:
            self._drop_ended()
            logits = self._go_on() if self._numbers else None
        if logits is None:
            return {}
        self._last = choose(logits, self._settings, self._draws)
        return dict(zip(self._numbers, self._last.tolist(), strict=True))

    def end(self, number: int) -> None:
        """Take no more tokens for prompt `number`."""
        self._ended.add(number)

    def is_full(self, number: int) -> bool:
        """Return whether the last token of prompt `number` stands beyond the model's longest position."""
        return self._lengths[number] >= self._longest

    def _read(self) -> torch.Tensor:
        model, prefix = self._model, self._prefix
        start = len(prefix.prompt) if prefix else 0
        rows = [prompt.rest(start) for prompt in self._prompts]
        self._positions = torch.tensor(self._lengths, device=model.device)
        lengths = self._positions - start
        self._cache = copied(prefix.cache, len(rows)) if prefix else new_cache(model.language.config)
        model.eval()
        # Row by row the last token that is no padding: the head is the widest layer, and needed there alone.
        logits = _forward(model, _embedded(model, rows), start, self._cache, kept=lengths[:, None] - 1)
        padding = lengths.max() - lengths
        self._columns = start + max(len(row) for row in rows)
        if bool(padding.any()):
            align_right(self._cache, padding)
            self._padding = padding
        return logits

    def _go_on(self) -> torch.Tensor:
        embedded = self._model.language.get_input_embeddings()(self._last[:, None])
        self._columns += 1
        mask = None
        if self._padding is not None:
            columns = torch.arange(self._columns, device=self._padding.device)
            mask = columns >= self._padding[:, None]
        outputs = self._model.language(
            inputs_embeds=embedded,
            position_ids=self._positions[:, None],
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._positions = self._positions + 1
        for number in self._numbers:
            self._lengths[number] += 1
        logits: torch.Tensor = outputs.logits[:, -1]
        return logits

    def _drop_ended(self) -> None:
        numbers = [number for number in self._numbers if number not in self._ended and not self.is_full(number)]
        if len(numbers) == len(self._numbers):
            return
        kept = [self._numbers.index(number) for number in numbers]
        self._numbers = numbers
        self._draws = [self._draws[row] for row in kept]
        rows = torch.tensor(kept, dtype=torch.long, device=self._last.device)
        self._last, self._positions = self._last[rows], self._positions[rows]
        if kept:
            select(self._cache, rows)
            self._padding = None if self._padding is None else self._padding[rows]


def _embedded(model: MultimodalModel, prompts: Sequence[Prompt]) -> torch.Tensor:
    """Return [R, T, D]: prompts embedded, padded at their ends to the longest one."""
    width = max(len(prompt) for prompt in prompts)
    ids = np.zeros((len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = prompt.ids
    input_ids = torch.tensor(ids, device=model.device)
    if not any(len(prompt.places) for prompt in prompts):
        # Without the blank picture that `embed` runs for the sake of gradients.
        embedded: torch.Tensor = model.language.get_input_embeddings()(input_ids)
        return embedded
    count = model.tokens_per_image
    slots = np.array(
        [(row, place, count) for row, prompt in enumerate(prompts) for place in prompt.places.tolist()], dtype=np.int64
    )
    pixels = np.concatenate([prompt.pixels for prompt in prompts if len(prompt.places)])
    places = torch.tensor(image_places(slots, count, width), device=model.device)
    return model.embed(input_ids, places, torch.tensor(pixels).to(model.device, model.vision.dtype))


def _forward(
    model: MultimodalModel, embedded: torch.Tensor, start: int, cache: Any, kept: int | torch.Tensor
) -> torch.Tensor:
    """Read embedded tokens [R, T, D] from position `start` on; return the logits [R, K] at the places `kept`."""
    positions = torch.arange(start, start + embedded.shape[1], device=embedded.device)[None]
    outputs = model.language(
        inputs_embeds=embedded,
        position_ids=positions.expand(len(embedded), -1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=kept,
    )
    logits: torch.Tensor = outputs.logits[:, -1]
    return logits
