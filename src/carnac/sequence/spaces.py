"""Spaces beside pictures, as the processors of Idefics and Idefics2 leave them.

Idefics's takes spaces away at both ends of each text. Idefics2's puts one behind a picture where a text begins at once,
unless it begins with `<`: the tokens of a word are then the same behind a picture as behind a word. A model reads in
training what it will be asked with. Pure: texts in, texts out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from carnac.sequence.answers import Answer, Span
from carnac.sequence.settings import MarkNames
from carnac.sequence.turns import Written


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """Characters [start, stop) of a text become `text`: spaces that go, or one that comes."""

    start: int
    stop: int
    text: str


def space_text(text: str, marks: MarkNames, *, behind_picture: bool) -> str:
    """Return a text of a document as it stands beside pictures; `behind_picture`, one stands right before it."""
    if marks == "idefics":
        return text.strip(" ")
    return f" {text}" if marks == "idefics2" and behind_picture and _begins_at_once(text) else text


def space_conversation(written: Written, pictures: Sequence[Span], marks: MarkNames) -> Written:
    """Return a conversation with the spaces beside its `pictures` ([start, stop) of each image token, in order)."""
    if marks == "idefics":
        changes = list(_bare(written.text, pictures))
    elif marks == "idefics2":
        behind = [stop for _, stop in pictures if _begins_at_once(written.text[stop : stop + 1])]
        changes = [_Change(start=stop, stop=stop, text=" ") for stop in behind]
    else:
        return written
    return _changed(written, changes) if changes else written


def _begins_at_once(text: str) -> bool:
    return bool(text) and not text[0].isspace() and text[0] != "<"


def _bare(text: str, pictures: Sequence[Span]) -> Iterable[_Change]:
    """Yield the spaces around pictures, in order."""
    last = 0
    for start, stop in pictures:
        before = len(text[last:start].rstrip(" ")) + last
        last = stop + len(text[stop:]) - len(text[stop:].lstrip(" "))
        yield from (_Change(start=a, stop=b, text="") for a, b in ((before, start), (stop, last)) if a < b)


def _changed(written: Written, changes: Sequence[_Change]) -> Written:
    text, at = [], 0
    for change in changes:
        text += [written.text[at : change.start], change.text]
        at = change.stop

    def moved(place: int) -> int:
        """A place where something comes stays before it: behind a picture that ends a prompt, the answer has it."""
        gone = (min(place, change.stop) - change.start for change in changes if change.start < place)
        come = (len(change.text) for change in changes if change.start < place)
        return place - sum(gone) + sum(come)

    return Written(
        text="".join([*text, written.text[at:]]),
        given=tuple((moved(start), moved(stop)) for start, stop in written.given),
        answers=tuple(
            Answer(start=moved(each.start), texts_stop=moved(each.texts_stop), stop=moved(each.stop))
            for each in written.answers
        ),
    )
