"""Other people's records to conversations: transformers' messages, LLaVA's, lists of single questions.

Flow in: a decoded JSON record. Flow out: a `Conversation`, or a RecordError with the reason why it is none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from carnac.core.errors import RecordError
from carnac.core.seeds import generator
from carnac.shards.conversations import Conversation, Part, Picture, Role, Turn, conversation_of, sound_name
from carnac.shards.settings import QuestionListSettings

MARK = "<image>"
MESSAGE_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
LLAVA_ROLES: Mapping[str, Role] = {**MESSAGE_ROLES, "human": "user", "gpt": "assistant"}
ID_CHARACTERS = 32  # of a digest, as of a document's id
Question = tuple[str, str]  # a question and its answer


def messages_conversation(record: Any) -> Conversation:
    """Return a record of transformers' `messages`: `{"messages": [{"role", "content"}, ...], "images": [...]}`.

    Content is a text, or a list of `{"type": "text", "text"}` and `{"type": "image"}` entries. A picture is named in
    its entry (`path`, `image`, `url`), or by the next name of `images`. In texts without such entries the pictures of
    `images` stand where `<image>` does; without marks, before the first question. Raises RecordError, as
    `conversation_of` and `sound_name`, and `bad_record`, `unknown_role`, `unsupported_content`, `pictures_differ`.
    """
    names = _listed(record, ("images", "image"))
    turns = [(role, message["content"]) for role, message in _messages(record, "messages", "role", MESSAGE_ROLES)]
    if any(_is_image(entry) for _, content in turns for entry in _entries(content)):
        return conversation_of(_id_of(record), _with_entries(turns, names))
    texts = [(role, "".join(_text_of(entry) for entry in _entries(content))) for role, content in turns]
    return conversation_of(_id_of(record), _with_marks(texts, names))


def llava_conversation(record: Any) -> Conversation:
    """Return a record as LLaVA has them: `{"image": name, "conversations": [{"from": "human", "value"}, ...]}`.

    Pictures (`image` or `images`, one or a list) stand where `<image>` does, the line ends around it left out; without
    a mark, before the first question. Raises RecordError, as `messages_conversation`.
    """
    names = _listed(record, ("image", "images"))
    turns = []
    for role, message in _messages(record, "conversations", "from", LLAVA_ROLES):
        if not isinstance(message["value"], str):
            raise RecordError("bad_record", f"a turn says {message['value']!r:.100}; wanted a text")
        turns.append((role, message["value"]))
    return conversation_of(_id_of(record), _with_marks(turns, names))


def question_of(record: Any) -> tuple[str, str, str]:
    """Return (question, answer, what the picture is called) of an entry of a list.

    Raises RecordError `bad_record`, and `empty_turn` here already: else it would cost all questions about its picture.
    """
    match record:
        case [str() as question, str() as answer, str() | int() as picture] if not isinstance(picture, bool):
            if not question.strip() or not answer.strip():
                raise RecordError("empty_turn", f"{json.dumps(record)[:200]}; wanted words as question and answer")
            return question, answer, str(picture)
    raise RecordError("bad_record", f"{json.dumps(record)[:200]}; wanted [question, answer, picture]")


def picture_conversations(
    picture: str, questions: Sequence[Question], settings: QuestionListSettings
) -> Iterator[Conversation]:
    """Yield the conversations about a picture: its questions in an order of their own, the picture before the first.

    Of sizes as even as can be, at most `questions_per_conversation`. Raises RecordError, as `conversation_of`.
    """
    order = generator(settings.seed, "questions", picture).permutation(len(questions))
    most = settings.questions_per_conversation or len(questions)
    shown = Picture(name=sound_name(settings.picture_name.replace("{id}", picture)))
    for number, chosen in enumerate(np.array_split(order, -(-len(questions) // most))):
        turns: list[Turn] = []
        for place in chosen.tolist():
            question, answer = questions[place]
            turns.append(Turn(role="user", parts=(question,) if turns else (shown, question)))
            turns.append(Turn(role="assistant", parts=(answer,)))
        yield conversation_of(f"{picture}-{number}", turns)


def _messages(
    record: Any, key: str, speaker: str, roles: Mapping[str, Role]
) -> Iterator[tuple[Role, Mapping[str, Any]]]:
    """Yield (role, message). Raises RecordError `bad_record`, `unknown_role`."""
    messages = record.get(key) if isinstance(record, dict) else None
    if not isinstance(messages, list) or not messages:
        found = ", ".join(map(str, record))[:100] if isinstance(record, dict) else type(record).__name__
        raise RecordError("bad_record", f"no list {key!r} in it (it has: {found})")
    content = "value" if speaker == "from" else "content"
    for message in messages:
        if not isinstance(message, dict) or message.get(content) is None or speaker not in message:
            raise RecordError("bad_record", f"{json.dumps(message)[:200]}; wanted {speaker!r} and {content!r}")
        role = message[speaker]
        if not isinstance(role, str) or role not in roles:
            raise RecordError("unknown_role", f"{role!r:.100}; known: {', '.join(roles)}")
        yield roles[role], message


def _listed(record: Any, keys: Sequence[str]) -> list[str]:
    """Return the names of the pictures that a record lists. Raises RecordError."""
    given = next((record[key] for key in keys if record.get(key)), None) if isinstance(record, dict) else None
    if given is None:
        return []
    entries = given if isinstance(given, list) else [given]
    return [sound_name(entry.get("path") if isinstance(entry, dict) else entry) for entry in entries]


def _entries(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _is_image(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("type") in ("image", "image_url")


def _text_of(entry: Any) -> str:
    if isinstance(entry, dict) and entry.get("type") == "text" and isinstance(entry.get("text"), str):
        return str(entry["text"])
    raise RecordError("unsupported_content", f"{json.dumps(entry)[:200]}; wanted texts and images")


def _with_entries(turns: Sequence[tuple[Role, Any]], names: Sequence[str]) -> Iterator[Turn]:
    """Yield turns whose pictures stand as entries among the texts."""
    waiting = list(names)
    for role, content in turns:
        parts: list[Part] = []
        for entry in _entries(content):
            if not _is_image(entry):
                parts.append(_text_of(entry))
                continue
            named = next((entry[key] for key in ("path", "image", "url", "image_url") if entry.get(key)), None)
            if isinstance(named, dict):
                named = named.get("url") or named.get("path")
            if named is None and not waiting:
                raise RecordError("pictures_differ", f"more pictures in the turns than the {len(names)} listed")
            parts.append(Picture(name=sound_name(named) if named is not None else waiting.pop(0)))
        yield Turn(role=role, parts=tuple(parts))
    if waiting:
        raise RecordError("pictures_differ", f"{len(waiting)} of {len(names)} listed pictures stand nowhere")


def _with_marks(turns: Sequence[tuple[Role, str]], names: Sequence[str]) -> Iterator[Turn]:
    """Yield turns with the listed pictures in the places of the marks."""
    marks = sum(text.count(MARK) for _, text in turns) if names else 0  # without pictures it is a word like others
    if marks not in (0, len(names)):
        raise RecordError("pictures_differ", f"{marks} times {MARK}, {len(names)} pictures listed")
    waiting = [Picture(name=name) for name in names]
    for role, text in turns:
        parts: list[Part] = []
        if marks:
            for number, piece in enumerate(text.split(MARK)):
                parts += [waiting.pop(0), piece.strip()] if number else [piece.strip() if MARK in text else piece]
        else:
            first = waiting if role == "user" else []
            parts = [*first, text]
            waiting = waiting[len(first) :]
        yield Turn(role=role, parts=tuple(parts))


def _id_of(record: Any) -> str:
    """Return the id that a record has, else the digest of it."""
    given = record.get("id")
    if isinstance(given, str | int) and not isinstance(given, bool) and str(given):
        return str(given)
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:ID_CHARACTERS]
