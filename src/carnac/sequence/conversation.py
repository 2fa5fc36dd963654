"""Conversations to token ids, labels and image slots, as their tokenizer's chat template writes them.

The template's text is cut at its special tokens and its pictures; what lies between is tokenised as one stretch, so
that the ids are those that transformers makes of the whole text, save that a text which spells a special token stays
text. Learnt is what a model must say: from the end of the prompt to the token that ends the answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from carnac.core.errors import InputError, RecordError
from carnac.sequence.answers import Answer
from carnac.sequence.chat_template import Message
from carnac.sequence.control_tokens import Cut
from carnac.sequence.positions import Layout, Positions
from carnac.sequence.settings import PictureSettings
from carnac.sequence.spaces import space_conversation
from carnac.sequence.tokenizer import LoadedTokenizer
from carnac.sequence.turns import ANOTHER, Written, write_conversation, write_exchange, write_prompt


def lay_out_conversation(messages: Sequence[Message], tokenizer: LoadedTokenizer, pictures: PictureSettings) -> Layout:
    """Lay out a whole conversation; labels are on answers only.

    Raises RecordError for one that the template cannot write, InputError where the template cannot be trained with.
    """
    written, cuts = _cut(write_conversation(messages, tokenizer.template), tokenizer, pictures)
    learnt = bytearray(len(written.text))
    for answer in written.answers:
        stop = _end_of_answer(answer, cuts, tokenizer.image).stop
        learnt[answer.start : stop] = b"\1" * (stop - answer.start)
    positions, starts = _positions(written, cuts, learnt, messages, Positions(tokenizer, pictures))
    return positions.layout([bisect_left(starts, answer.stop) for answer in written.answers])


def lay_out_messages(messages: Sequence[Message], tokenizer: LoadedTokenizer, pictures: PictureSettings) -> Layout:
    """Lay out a conversation up to where its next answer begins: what a model is asked with. It has no labels.

    Raises RecordError for one that the template cannot write, InputError where the template is none.
    """
    written, cuts = _cut(write_prompt(messages, tokenizer.template), tokenizer, pictures)
    return _positions(written, cuts, bytes(len(written.text)), messages, Positions(tokenizer, pictures))[0].layout()


def stop_ids(tokenizer: LoadedTokenizer) -> tuple[int, ...]:
    """Return the ids that end an answer: the end of a document, and what the chat template ends an answer with."""
    try:
        written = write_exchange(tokenizer.template)
        cuts = tokenizer.controls.cuts(written.text, written.given)
        ends = [_end_of_answer(answer, cuts, tokenizer.image).number for answer in written.answers]
    except (InputError, RecordError):
        ends = []
    return tuple(dict.fromkeys((tokenizer.end, *ends)))


def begins_itself(tokenizer: LoadedTokenizer) -> bool:
    """Say whether the chat template writes the begin token, where documents have one."""
    try:
        return write_exchange(tokenizer.template).text.startswith(tokenizer.roles.begin or "")
    except (InputError, RecordError):
        return True


def _cut(written: Written, tokenizer: LoadedTokenizer, pictures: PictureSettings) -> tuple[Written, list[Cut]]:
    """Return a conversation with the spaces that stand beside pictures, and where tokens stand in its text."""
    cuts = tokenizer.controls.cuts(written.text, written.given)
    places = [(cut.start, cut.stop) for cut in cuts if cut.number == tokenizer.image]
    spaced = space_conversation(written, places, pictures.marks)
    return spaced, cuts if spaced is written else tokenizer.controls.cuts(spaced.text, spaced.given)


def _end_of_answer(answer: Answer, cuts: Sequence[Cut], image: int) -> Cut:
    first = bisect_left(cuts, answer.texts_stop, key=lambda cut: cut.stop - 1)
    end = next((cut for cut in cuts[first:] if cut.number != image), None)
    if end is None or end.stop > answer.stop:
        raise InputError(
            "the chat template ends an answer with no special token, so a model could not learn to stop. Wanted one "
            f"that writes an end behind each answer, such as {{{{ eos_token }}}}. {ANOTHER}"
        )
    return end


def _positions(
    written: Written,
    cuts: Sequence[Cut],
    learnt: bytes | bytearray,
    messages: Sequence[Message],
    positions: Positions,
) -> tuple[Positions, list[int]]:
    """Return the positions of a text, and for each the character of the text at which it begins."""
    tokenizer = positions.tokenizer
    payloads = [part for message in messages for part in message.content if isinstance(part, bytes)]
    found = sum(cut.number == tokenizer.image for cut in cuts)
    if found != len(payloads):
        raise RecordError(
            "not_written_whole", f"the chat template writes {found} image tokens for {len(payloads)} pictures"
        )
    left, starts, at = iter(payloads), list[int](), 0
    for cut in [*cuts, Cut(start=len(written.text), stop=len(written.text), number=-1)]:
        ids, places = tokenizer.encode_with_places(written.text[at : cut.start], at_start=at == 0)
        positions.add(ids, learnt=[bool(learnt[at + max(start, stop - 1)]) for start, stop in places])
        starts += [at + start for start, _ in places]
        if cut.number == tokenizer.image:
            positions.add_picture(next(left))
        elif cut.number >= 0:
            positions.add([cut.number], learnt=bool(learnt[cut.stop - 1]))
        starts += [cut.start] * (len(positions) - len(starts))
        at = cut.stop
    return positions, starts
