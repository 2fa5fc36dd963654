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

import torch

from carnac.core.errors import InputError
from carnac.model.cross_attention.memory import ImageMemory
from carnac.model.generation.cache import align_right, copied, new_cache, select
from carnac.model.generation.inputs import Keywords, nothing_read, pictures_of_next, read_prompts, readable_alone
from carnac.model.generation.prompt import Prompt, check_prompt
from carnac.model.generation.sampling import choose, draws_of
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import GenerationSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prefix:
    """A beginning that prompts have in common, read once; it may be answered any number of times."""

    prompt: Prompt
    cache: Any
    memory: ImageMemory | None


@torch.inference_mode()
def read_prefix(model: MultimodalModel, prompt: Prompt) -> Prefix:
    """Read a beginning, or as much of it as can be read without what follows (`readable_alone`).

    Raises InputError when the model cannot read it.
    """
    check_prompt(prompt, model.tokens_per_image, longest_of(model))
    model.eval()
    cache = new_cache(model.language.config)
    memory = nothing_read(model, 1)
    prompt = prompt.beginning(readable_alone(model, prompt))
    if len(prompt):
        inputs, memory = read_prompts(model, [prompt], memory)
        _forward(model, inputs, start=0, cache=cache, kept=1)
    return Prefix(prompt=prompt, cache=cache, memory=memory)


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
        self._memory: ImageMemory | None = None  # pictures that the next tokens may read, and how they do
        self._pictures: Keywords = {}

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
        before = prefix.memory.repeated(len(rows)) if prefix and prefix.memory else nothing_read(model, len(rows))
        model.eval()
        inputs, self._memory = read_prompts(model, rows, before)
        # Row by row the last token that is no padding: the head is the widest layer, and needed there alone.
        logits = _forward(model, inputs, start, self._cache, kept=lengths[:, None] - 1)
        self._pictures = pictures_of_next(model, self._memory)
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
            **self._pictures,
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
            self._memory = None if self._memory is None else self._memory.selected(kept)
            self._pictures = pictures_of_next(self._model, self._memory)


def _forward(
    model: MultimodalModel, inputs: Keywords, start: int, cache: Any, kept: int | torch.Tensor
) -> torch.Tensor:
    """Read tokens [R, T] from position `start` on; return the logits [R, K] at the places `kept`."""
    rows, tokens, _ = inputs["inputs_embeds"].shape
    positions = torch.arange(start, start + tokens, device=model.device)[None]
    outputs = model.language(
        **inputs,
        position_ids=positions.expand(rows, -1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=kept,
    )
    logits: torch.Tensor = outputs.logits[:, -1]
    return logits
