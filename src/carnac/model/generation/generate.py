"""Prompts with pictures -> answers, as ids or as text, one after another or many at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from carnac.model.generation.answer_text import AnswerText, Decode
from carnac.model.generation.decoding import Decoding, Prefix, longest_of, read_prefix
from carnac.model.generation.prompt import Prompt, check_prompt, shared_beginning
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import GenerationSettings

Ending = Literal["stop", "length", "context"]
# Tokens that prompts must have in common to be read apart: for fewer, one pass more costs more than it saves.
MIN_SHARED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model said.

    `ids` are the tokens found, without the stop id; with a stop text they may go on beyond `text`, which ends before
    it. `ending`: a stop id or text came, `max_new_tokens` were found, or the model's longest position was reached.
    """

    ids: tuple[int, ...]
    text: str
    ending: Ending


def generate(
    model: MultimodalModel,
    input_ids: npt.NDArray[np.int64],
    image_slots: npt.NDArray[np.int64],
    pixels: npt.NDArray[np.float32],
    settings: GenerationSettings,
    stop_ids: Collection[int] = (),
) -> Iterator[int]:
    """Yield the ids that follow a prompt, as they are found; a stop id ends the stream and is not yielded.

    `input_ids` [T] with the places of the pictures in it, `image_slots` [N, 3] (row 0, first position, count) of each
    square, `pixels` [N, 3, S, S]. The stream also ends at the language model's longest position. Stop texts are not
    looked at: `stream_answers` does. Raises InputError, at once, when the model cannot read the prompt.
    """
    prompt = Prompt(ids=input_ids, places=image_slots[:, 1], pixels=pixels)
    check_prompt(prompt, model.tokens_per_image, longest_of(model))
    return _ids(Decoding(model, [prompt], settings), settings.max_new_tokens, frozenset(stop_ids))


def stream_answers(
    model: MultimodalModel,
    prompts: Sequence[Prompt],
    settings: GenerationSettings,
    decode: Decode,
    stop_ids: Collection[int] = (),
    prefix: Prefix | None = None,
) -> Iterator[tuple[int, str | Answer]]:
    """Answer prompts side by side: yield (number of a prompt, more of its text) and, when complete, (number, Answer).

    With `prefix`, each prompt begins with it and it is not read again. Raises InputError, at once, when the model
    cannot read a prompt.
    """
    decoding = Decoding(model, prompts, settings, prefix)
    growing = [_Growing(decode, settings, prompt.ids[-1:].tolist()) for prompt in prompts]
    return _stream(decoding, growing, frozenset(stop_ids))


def answer_prompts(
    model: MultimodalModel,
    prompts: Sequence[Prompt],
    settings: GenerationSettings,
    decode: Decode,
    stop_ids: Collection[int] = (),
    prefix: Prefix | None = None,
) -> list[Answer]:
    """Return the answer of each prompt, as `stream_answers` ends with it.

    Without `prefix`, a long beginning that all have in common is found and read once.
    """
    if prefix is None and len(prompts) > 1:
        prefix = _shared_prefix(model, prompts)
    stream = stream_answers(model, prompts, settings, decode, stop_ids, prefix)
    found = {number: said for number, said in stream if isinstance(said, Answer)}
    return [found[number] for number in range(len(prompts))]


def _shared_prefix(model: MultimodalModel, prompts: Sequence[Prompt]) -> Prefix | None:
    for prompt in prompts:
        check_prompt(prompt, model.tokens_per_image, longest_of(model))
    length = shared_beginning(prompts, model.tokens_per_image)
    return read_prefix(model, prompts[0].beginning(length)) if length >= MIN_SHARED else None


class _Growing:
    """An answer so far."""

    def __init__(self, decode: Decode, settings: GenerationSettings, after: Sequence[int]) -> None:
        self.ids: list[int] = []
        self._most = settings.max_new_tokens
        self._words = AnswerText(decode, settings.stop, after)
        self._said: list[str] = []

    def add(self, token: int) -> tuple[str, Ending | None]:
        """Return the text that a token makes certain, and how the answer ends with it."""
        self.ids.append(token)
        said = self._words.add(token)
        self._said.append(said)
        return said, "stop" if self._words.stopped else "length" if len(self.ids) >= self._most else None

    def close(self, ending: Ending) -> tuple[str, Answer]:
        """Return the text that was still waiting, and the answer."""
        said = self._words.close()
        return said, Answer(ids=tuple(self.ids), text="".join([*self._said, said]), ending=ending)


def _stream(
    decoding: Decoding, growing: Sequence[_Growing], stop_ids: frozenset[int]
) -> Iterator[tuple[int, str | Answer]]:
    while tokens := decoding.step():
        for number, token in tokens.items():
            answer = growing[number]
            said, ending = ("", "stop") if token in stop_ids else answer.add(token)
            if ending is None and decoding.is_full(number):
                ending = "context"
            if said:
                yield number, said
            if ending is not None:
                decoding.end(number)
                said, complete = answer.close(ending)
                if said:
                    yield number, said
                yield number, complete


def _ids(decoding: Decoding, most: int, stop_ids: frozenset[int]) -> Iterator[int]:
    for _ in range(most):
        token = decoding.step().get(0)
        if token is None or token in stop_ids:
            return
        yield token
