"""Conversations of shards -> questions that are asked alone, with their own pictures and with others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from carnac.core.errors import RecordError
from carnac.core.places import Place
from carnac.core.seeds import generator
from carnac.engine.tables import open_part
from carnac.evaluate.grounding import Condition
from carnac.jobs.models import OpenModel
from carnac.sequence.chat_template import Message
from carnac.sequence.layout import Sample, lay_out_messages
from carnac.sequence.pixels import Pixels, grey_pixels, load_pixels
from carnac.sequence.turns import messages_of

if TYPE_CHECKING:
    from carnac.model.generation.prompt import Prompt

Pool = Sequence[tuple[str, bytes]]  # (id of a conversation, one of its pictures) to draw other pictures from


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A question and its answer.

    `messages` ask it alone: the system's turn, if there is one, then the pictures shown so far and the question.
    """

    messages: tuple[Message, ...]
    question: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """An exchange ready to be asked: its prompt under each condition."""

    row: Mapping[str, Any]
    prompts: Mapping[Condition, Prompt]


def rows_between(part: Place, first: int, stop: int) -> Iterator[dict[str, Any]]:
    """Yield rows [first, stop) of a part; row groups without one of them are not read."""
    with open_part(part) as file:
        start = 0
        for group in range(file.num_row_groups):
            number = file.metadata.row_group(group).num_rows
            if start < stop and start + number > first:
                rows = file.read_row_group(group, use_threads=False).to_pylist()
                yield from rows[max(0, first - start) : stop - start]
            start += number


def exchanges(sample: Sample) -> Iterator[Exchange]:
    """Yield the questions of a conversation that are answered. Raises RecordError where it is none."""
    if sample.roles is None:
        raise RecordError("no_conversation", "no roles: a document. Wanted shards of the job conversations")
    before: list[Message] = []
    shown: list[str | bytes] = []
    question: Message | None = None
    for message in messages_of(sample.texts, sample.images, sample.roles):
        if message.role == "system":
            before = [message]
        elif message.role == "user":
            question = message
        elif question is not None:
            asked = Message(role="user", content=(*shown, *question.content))
            said = " ".join(part for part in question.content if isinstance(part, str))
            reference = " ".join(part for part in message.content if isinstance(part, str))
            yield Exchange(messages=(*before, asked), question=said, reference=reference)
            shown += [part for part in question.content if isinstance(part, bytes)]
            question = None


def questions_of(sample: Sample, opened: OpenModel, pool: Pool, longest: int, seed: int) -> list[Question]:
    """Return the questions of a conversation with their prompts.

    Under `shuffled` each picture gives way to one of another conversation, drawn by the conversation's id; under `none`
    the places stay and are grey. Without a picture, or without another one in `pool`, those are left out. Raises
    RecordError where a picture does not decode, the template does not write it, or no answer fits behind it.
    """
    pictures = [payload for payload in sample.images if payload is not None]
    others = _others(sample.id, pictures, pool, seed)
    pixels = {payload: load_pixels(payload, opened.inputs.pictures) for payload in {*pictures, *others.values()}}
    found = []
    for number, exchange in enumerate(exchanges(sample)):
        own = [part for message in exchange.messages for part in message.content if isinstance(part, bytes)]
        right = _prompt(exchange.messages, opened, pixels, longest)
        prompts: dict[Condition, Prompt] = {"right": right}
        if own and others:
            prompts["shuffled"] = _prompt(_exchanged(exchange.messages, others), opened, pixels, longest)
        if own:
            prompts["none"] = _greyed(right, opened)
        row = {
            "id": sample.id,
            "number": number,
            "picture": _root(pictures) or sample.id,
            "question": exchange.question,
            "reference": exchange.reference,
        }
        found.append(Question(row=row, prompts=prompts))
    return found


def _root(pictures: Sequence[bytes]) -> str:
    return min((hashlib.sha256(payload).hexdigest() for payload in pictures), default="")


def _others(name: str, pictures: Sequence[bytes], pool: Pool, seed: int) -> dict[bytes, bytes]:
    """Return another conversation's picture for each; nothing where there is no other."""
    others = [payload for owner, payload in pool if owner != name and payload not in pictures]
    if not others:
        return {}
    distinct = list(dict.fromkeys(pictures))
    chosen = generator(seed, "shuffled", name).integers(0, len(others), len(distinct))
    return {payload: others[place] for payload, place in zip(distinct, chosen.tolist(), strict=True)}


def _exchanged(messages: Sequence[Message], others: Mapping[bytes, bytes]) -> list[Message]:
    return [
        Message(
            role=message.role,
            content=tuple(others[part] if isinstance(part, bytes) else part for part in message.content),
        )
        for message in messages
    ]


def _prompt(messages: Sequence[Message], opened: OpenModel, pixels: Mapping[bytes, Pixels], longest: int) -> Prompt:
    from carnac.model.generation.prompt import NO_PIXELS, Prompt

    layout = lay_out_messages(messages, opened.tokenizer, opened.inputs.pictures)
    if len(layout.ids) >= longest:
        raise RecordError("too_long", f"{len(layout.ids)} tokens before the answer; the model takes {longest - 1}")
    shown = [pixels[part] for message in messages for part in message.content if isinstance(part, bytes)]
    squares = np.concatenate(shown) if shown else NO_PIXELS
    return Prompt(ids=layout.ids, places=layout.image_slots[:, 1], pixels=squares)


def _greyed(prompt: Prompt, opened: OpenModel) -> Prompt:
    from carnac.model.generation.prompt import Prompt

    grey = grey_pixels(opened.inputs.pictures)
    return Prompt(ids=prompt.ids, places=prompt.places, pixels=np.broadcast_to(grey, prompt.pixels.shape))
