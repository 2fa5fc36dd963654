"""Where the answers lie in a conversation's text, and whether that text only grows from turn to turn.

A model is asked with the beginning of a conversation. So an answer must stand behind the very text that it is asked for
with, and no later turn may change what was written before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from carnac.core.errors import RecordError
from carnac.sequence.chat_template import Message

Span = tuple[int, int]
Beginning = Callable[[int, bool], str]  # the text of the first so many messages; True: up to where an answer begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Where an assistant's turn lies in the whole text, in characters.

    The text up to `start` is what a model is asked with; its last text ends at `texts_stop`, the turn at `stop`, after
    what the template writes behind the texts.
    """

    start: int
    texts_stop: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Borders:
    """What a template writes before and behind the text of each answer: from its `start`, and up to its `stop`."""

    before: str
    behind: str


def find_answers(
    messages: Sequence[Message], text: str, given: Sequence[Span], beginning: Beginning
) -> tuple[Answer, ...]:
    """Return where each answer lies: each one's prompt and the text up to its end are written once more and compared.

    `given` are the places of the messages' texts in `text`, those without letters left out. Raises RecordError where
    one of them is not the beginning of the whole text.
    """
    found = []
    for number, spans in _answers(messages, given):
        start = _length(beginning(number, True) if number else "", text)
        stop = len(text) if number == len(messages) - 1 else _length(beginning(number + 1, False), text)
        texts_stop = spans[-1][1] if spans else start
        found.append(Answer(start=start, texts_stop=max(start, texts_stop), stop=stop))
    return tuple(found)


def answers_between(
    messages: Sequence[Message], text: str, given: Sequence[Span], borders: Borders, beginning: Beginning
) -> tuple[Answer, ...] | None:
    """Return where each answer lies between the borders that its template writes; None where they are not there.

    Writes once more the prompt of the last answer alone: 3 renderings of ten exchanges in all and not 22, 2.5 times as
    fast. Raises RecordError where that is not the beginning of the whole text.
    """
    found, number = [], 0
    for number, spans in _answers(messages, given):
        if len(spans) != 1 or messages[number].content != (text[slice(*spans[0])],):
            return None
        start, stop = spans[0][0] - len(borders.before), spans[0][1] + len(borders.behind)
        if text[start : spans[0][0]] != borders.before or text[spans[0][1] : stop] != borders.behind:
            return None
        found.append(Answer(start=start, texts_stop=spans[0][1], stop=stop))
    if found and number and _length(beginning(number, True), text) != found[-1].start:
        return None
    return tuple(found)


def borders_of(text: str, answers: Sequence[Answer], given: Sequence[Span]) -> Borders | None:
    """Return what stands before and behind the texts of answers, where that is the same for all of them."""
    starts = {stop: start for start, stop in given}
    found = {
        (text[answer.start : starts[answer.texts_stop]], text[answer.texts_stop : answer.stop]) for answer in answers
    }
    if len(found) != 1:
        return None
    before, behind = found.pop()
    return Borders(before=before, behind=behind)


def _answers(messages: Sequence[Message], given: Sequence[Span]) -> Iterator[tuple[int, Sequence[Span]]]:
    """Yield the number of each assistant's message, and the places of its texts."""
    at = 0
    for number, message in enumerate(messages):
        texts = sum(isinstance(part, str) and bool(part.strip()) for part in message.content)
        if message.role == "assistant":
            yield number, given[at : at + texts]
        at += texts


def _length(beginning: str, text: str) -> int:
    if text.startswith(beginning):
        return len(beginning)
    pairs = enumerate(zip(beginning, text, strict=False))
    first = next((place for place, (one, two) in pairs if one != two), len(text))
    wrote, writes = beginning[first : first + 40], text[first : first + 40]
    raise RecordError(
        "not_growing", f"the chat template writes a turn otherwise once another follows: {wrote!r} becomes {writes!r}"
    )
