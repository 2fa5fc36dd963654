"""Messages to the text that a chat template makes of them, with the place of every text, picture and turn in it.

A template is a program: where it put what it was given cannot be read off its output. So it is run on texts between
marks (private characters that occur in none of them), and what it makes without marks must be the same text. Spaces at
both ends of a text stay outside its marks: most templates strip them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from typing import Any

from carnac.core.errors import InputError, RecordError
from carnac.sequence.answers import Answer, Beginning, Borders, Span, answers_between, borders_of, find_answers
from carnac.sequence.chat_template import ROLES, ChatTemplate, Message

PRIVATE = range(0xF0000, 0xFFFFE)  # Unicode's private use area A
ANOTHER = "Put another chat_template.jinja into the tokenizer's folder."

PROBE = tuple(
    Message(role=role, content=(text,))
    for word in ("one", "two", "three")
    for role, text in (("user", f"{word}?"), ("assistant", f"{word.capitalize()}."))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A conversation as text.

    text     what the template makes of it; a picture is the template's image token
    given    [start, stop) of the messages' texts in it: whatever they spell is text
    answers  one for each turn of the assistant; none in a prompt
    """

    text: str
    given: tuple[Span, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Characters that no text has: before and after a text, and for a picture where the content is one text."""

    open: str
    close: str
    image: str


def messages_of(
    texts: Sequence[str | None], images: Sequence[bytes | None], roles: Sequence[str | None]
) -> list[Message]:
    """Return the turns of a conversation's blocks: neighbours of one role are one turn.

    Raises RecordError when a block is not one text or one image, or has no role that there is.
    """
    if not len(texts) == len(images) == len(roles):
        raise RecordError("blocks_differ", f"{len(texts)} texts beside {len(images)} images and {len(roles)} roles")
    blocks = []
    for place, (text, image, role) in enumerate(zip(texts, images, roles, strict=True)):
        if (text is None) == (image is None):
            raise RecordError("bad_block", f"block {place} must be one text or one image")
        if role not in ROLES:
            raise RecordError("bad_role", f"block {place} is of {role!r}, wanted one of {', '.join(ROLES)}")
        part = image if text is None else text
        assert part is not None
        blocks.append((role, part))
    return [
        Message(role=role, content=tuple(part for _, part in run))
        for role, run in groupby(blocks, key=lambda block: block[0])
    ]


def write_conversation(messages: Sequence[Message], template: ChatTemplate) -> Written:
    """Return a whole conversation as text.

    Raises RecordError for a conversation that the template refuses or does not write whole, InputError where it is the
    template that cannot be learnt from.
    """
    borders = learnable(template)
    text, given, beginning = _write(messages, template, prompt=False)
    answers = None if borders is None else answers_between(messages, text, given, borders, beginning)
    if answers is None:
        answers = find_answers(messages, text, given, beginning)
    return Written(text=text, given=given, answers=answers)


def write_prompt(messages: Sequence[Message], template: ChatTemplate) -> Written:
    """Return a conversation as text up to where an answer begins. Raises as `write_conversation`."""
    text, given, _ = _write(messages, template, prompt=True)
    return Written(text=text, given=given, answers=())


def write_exchange(template: ChatTemplate) -> Written:
    """Return one question and its answer as text, whatever the template does then. Raises as `write_conversation`."""
    text, given, beginning = _write(PROBE[:2], template, prompt=False)
    return Written(text=text, given=given, answers=find_answers(PROBE[:2], text, given, beginning))


@lru_cache(maxsize=16)
def learnable(template: ChatTemplate) -> Borders | None:
    """Return what the template writes around an answer, where that is always the same.

    Raises InputError for one that writes a turn otherwise once another follows, or leaves turns out.
    """
    try:
        text, given, beginning = _write(PROBE, template, prompt=False)
        return borders_of(text, find_answers(PROBE, text, given, beginning), given)
    except RecordError as error:
        raise InputError(f"the chat template cannot be trained with: {error.detail}. {ANOTHER}") from None


@lru_cache(maxsize=16)
def takes_lists(template: ChatTemplate) -> bool:
    """Say whether the template takes a message's content as a list of texts and pictures; else it takes one text.

    Raises InputError where it takes neither.
    """
    question = [{"type": "image"}, {"type": "text", "text": "probe"}]
    shapes: tuple[tuple[bool, Any], ...] = ((True, question), (False, "probe"))
    said = ""
    for lists, content in shapes:
        try:
            found = template.render([{"role": "user", "content": content}], prompt=True)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 -- a template may raise what it likes
            said = str(error)
            continue
        if found.count("probe") == 1 and (not lists or found.count(template.image) == 1) and "'text'" not in found:
            return lists
        said = f"of a question with the text 'probe' it made {found[:80]!r}"
    raise InputError(
        f"the chat template writes no question, neither from one text nor from a list with {template.image} for a "
        f"picture ({said}). {ANOTHER}"
    )


def _write(
    messages: Sequence[Message], template: ChatTemplate, *, prompt: bool
) -> tuple[str, tuple[Span, ...], Beginning]:
    """Return the text, where the messages' texts lie in it, and what writes the text of the first messages."""
    if not messages:
        raise RecordError("no_turns", "a conversation has at least one turn")
    lists = takes_lists(template)
    marks = _marks(messages)
    marked = _render(template, [_table(message, template, lists, marks) for message in messages], prompt=prompt)
    plain = [_table(message, template, lists, None) for message in messages]
    text = _render(template, plain, prompt=prompt)
    if _unmarked(marked, marks, template) != text:
        raise RecordError("template_reads_texts", "the chat template writes this conversation by what its texts say")
    given, pictures = _places(marked, marks, template)
    _check_whole(messages, text, given, pictures)
    return text, given, lambda number, asked: _render(template, plain[:number], prompt=asked)


def _marks(messages: Sequence[Message]) -> Marks:
    used = {letter for message in messages for part in message.content if isinstance(part, str) for letter in part}
    free = (chr(number) for number in PRIVATE if chr(number) not in used)
    found = list(islice(free, 3))
    if len(found) < 3:
        raise RecordError("no_marks", "its texts use all private characters")
    return Marks(open=found[0], close=found[1], image=found[2])


def _table(message: Message, template: ChatTemplate, lists: bool, marks: Marks | None) -> dict[str, Any]:
    """Return a message as the template wants it, its texts between marks."""
    if lists:
        parts = [
            {"type": "text", "text": _marked(part, marks)} if isinstance(part, str) else {"type": "image"}
            for part in message.content
        ]
        return {"role": message.role, "content": parts}
    image = template.image if marks is None else marks.image
    texts = (_marked(part, marks) if isinstance(part, str) else image for part in message.content)
    return {"role": message.role, "content": "".join(texts)}


def _marked(text: str, marks: Marks | None) -> str:
    core = text.strip()
    if marks is None or not core:
        return text
    start = text.index(core)
    return f"{text[:start]}{marks.open}{core}{marks.close}{text[start + len(core) :]}"


def _render(template: ChatTemplate, tables: Sequence[dict[str, Any]], *, prompt: bool) -> str:
    try:
        return template.render(tables, prompt=prompt)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 -- a template may raise what it likes
        raise RecordError("refused_by_template", f"the chat template refuses it: {error}") from None


def _unmarked(text: str, marks: Marks, template: ChatTemplate) -> str:
    return text.replace(marks.open, "").replace(marks.close, "").replace(marks.image, template.image)


def _places(whole: str, marks: Marks, template: ChatTemplate) -> tuple[tuple[Span, ...], int]:
    """Return where texts stand once the marks are gone, and how many pictures there are."""
    given, pictures = [], 0
    token = re.escape(template.image)
    pattern = re.compile(f"{marks.open}(?P<text>[^{marks.close}]*){marks.close}|{marks.image}|{token}")
    moved = 0  # characters by which what follows moves to the right
    for found in pattern.finditer(whole):
        if found["text"] is not None:
            start = found.start() + moved
            given.append((start, start + len(found["text"])))
            moved -= 2
        else:
            pictures += 1
            moved += len(template.image) - len(found[0])
    return tuple(given), pictures


def _check_whole(messages: Sequence[Message], text: str, given: Sequence[Span], pictures: int) -> None:
    """Raise RecordError where the template left a text or a picture out, moved or doubled one."""
    parts = [part for message in messages for part in message.content]
    wanted = [part.strip() for part in parts if isinstance(part, str) and part.strip()]
    found = [text[start:stop] for start, stop in given]
    if found != wanted:
        lost = [f"{each[:30]!r}" for each in wanted if each not in found]
        said = f"it leaves out {lost[0]}" if lost else "it writes its texts more than once or in another order"
        raise RecordError("not_written_whole", f"the chat template does not write a conversation whole: {said}")
    shown = sum(isinstance(part, bytes) for part in parts)
    if pictures != shown:
        raise RecordError("not_written_whole", f"the chat template writes {pictures} image tokens for {shown} pictures")
