"""Conversations to training samples: turns that alternate, pictures as bytes, a role for every block.

Flow in: turns as a format gives them (`conversation_formats`). Flow out: rows of `core.schema.SAMPLES`, or a
RecordError that says what no conversation may be.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from carnac.core.errors import RecordError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture by its name: a path below the folder of the pictures."""

    name: str


Part = str | Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one speaker says before the other answers: texts and pictures in their order."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Turns that a model can learn from (`conversation_of`). `num_unanswered` questions at its end were left out."""

    id: str
    turns: tuple[Turn, ...]
    num_unanswered: int = 0

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the pictures, in order."""
        return tuple(part.name for turn in self.turns for part in turn.parts if isinstance(part, Picture))


def conversation_of(name: str, turns: Iterable[Turn]) -> Conversation:
    """Return turns as a conversation: an optional system turn, then questions and answers by turns.

    Texts side by side in a turn are joined as they are; a last question without an answer is left out. Raises
    RecordError `empty_turn`, `late_system`, `answer_before_question`, `roles_do_not_alternate`, `no_answer`,
    `picture_not_in_question`.
    """
    joined = [Turn(role=turn.role, parts=_joined(turn.parts)) for turn in turns]
    for number, turn in enumerate(joined):
        if not turn.parts:
            raise RecordError("empty_turn", f"turn {number} ({turn.role}) says nothing")
        if turn.role != "user" and any(isinstance(part, Picture) for part in turn.parts):
            raise RecordError("picture_not_in_question", f"turn {number} ({turn.role}); wanted pictures of the user")
        if turn.role == "system" and number:
            raise RecordError("late_system", f"turn {number} is the system's; wanted it first or not at all")
    start = 1 if joined and joined[0].role == "system" else 0
    said = joined[start:]
    if said and said[0].role == "assistant":
        raise RecordError("answer_before_question", "the assistant speaks first")
    for number, (turn, following) in enumerate(itertools.pairwise(said), start):
        if turn.role == following.role:
            raise RecordError("roles_do_not_alternate", f"turns {number} and {number + 1} are both the {turn.role}'s")
    num_unanswered = 1 if said and said[-1].role == "user" else 0
    said = said[: len(said) - num_unanswered]
    if not said:
        raise RecordError("no_answer", "no question is answered")
    return Conversation(id=name, turns=(*joined[:start], *said), num_unanswered=num_unanswered)


def conversation_row(
    conversation: Conversation,
    pictures: Mapping[str, tuple[bytes, str]],
    source: str,
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a row of `core.schema.SAMPLES`. `pictures` maps names to (bytes, file name)."""
    texts: list[str | None] = []
    images: list[dict[str, Any] | None] = []
    roles: list[str] = []
    for turn in conversation.turns:
        for part in turn.parts:
            roles.append(turn.role)
            if isinstance(part, Picture):
                payload, name = pictures[part.name]
                texts.append(None)
                images.append({"bytes": payload, "path": name})
            else:
                texts.append(part)
                images.append(None)
    return {
        "id": sound_text(conversation.id),
        "source": source,
        "texts": texts,
        "images": images,
        "roles": roles,
        "metadata": json.dumps({**metadata, "image_names": conversation.pictures}, ensure_ascii=True, sort_keys=True),
    }


def root_of(conversation: Conversation, digests: Mapping[str, str]) -> str:
    """Return what decides a conversation's split: the smallest digest of its pictures, without one that of its text.

    So all conversations about one picture, or about the same pictures in any order, fall on one side.
    """
    if conversation.pictures:
        return min(digests[name] for name in conversation.pictures)
    said = [[turn.role, *turn.parts] for turn in conversation.turns]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def sound_name(name: Any) -> str:
    """Return the name of a picture, made plain. Raises RecordError `bad_record`, `image_by_url`, `path_leaves_folder`.

    Judged as text: a link that lies in the folder is the doing of whoever owns the folder.
    """
    if not isinstance(name, str) or not name.strip():
        raise RecordError("bad_record", f"a picture is named {name!r:.100}; wanted a path")
    if "://" in name or name.startswith("data:"):
        raise RecordError("image_by_url", f"{name[:100]}: nothing is fetched here; wanted a path")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise RecordError("path_leaves_folder", f"{name[:100]}; wanted a path below the folder of the pictures")
    return str(path)


def sound_text(text: str) -> str:
    """Return text that has a UTF-8 form: a lone surrogate, which JSON can spell, becomes `?`."""
    return text.encode(errors="replace").decode()


def _joined(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return parts without empty texts, neighbouring texts as one."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Picture):
            found.append(part)
        elif found and isinstance(found[-1], str):
            found[-1] += sound_text(part)
        elif part:
            found.append(sound_text(part))
    return tuple(part for part in found if isinstance(part, Picture) or part.strip())
