"""The tokens that a chat template writes: found where it writes them, nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer

from carnac.sequence.chat_template import ChatTemplate

WORD, SPACE = re.compile(r"\w"), re.compile(r"\s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A token in a text: [start, stop) in characters, with the spaces around it that it takes in."""

    start: int
    stop: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlTokens:
    """The special tokens of a tokenizer by name, and `ids` of those that texts must never become."""

    tokens: Mapping[str, tuple[int, AddedToken]]
    pattern: re.Pattern[str]
    ids: frozenset[int]

    def cuts(self, text: str, given: Sequence[tuple[int, int]]) -> list[Cut]:
        """Return where tokens stand in `text`, in order, outside the stretches that are `given`: those are texts.

        As the tokenizers library finds them: from the left, the longest; some take in the spaces around them.
        """
        found: list[Cut] = []
        texts, at = iter([*given, (len(text), len(text) + 1)]), 0
        start, stop = next(texts)
        while match := self.pattern.search(text, at):
            while stop <= match.start():
                start, stop = next(texts)
            number, token = self.tokens[match[0]]
            if match.end() > start or (token.single_word and _in_word(text, match)):
                at = match.start() + 1
                continue
            at = match.end()
            before = found[-1].stop if found else 0
            found.append(_cut(text, match, number, token, before))
        return found


def control_tokens(tokenizer: Tokenizer, template: ChatTemplate, ids: Sequence[int | None]) -> ControlTokens:
    """Return the special tokens of a tokenizer, and those that its template names; these and `ids` are no text's.

    Other added tokens are words like any other: line ends and tags of Gemma's, which the library finds by itself.
    """
    added: dict[int, Any] = tokenizer.get_added_tokens_decoder()
    named = {value for name, value in template.special_tokens if name != "unk_token"}  # which letters do become
    written = {number for number, token in added.items() if token.content in named or _written(token, template)}
    tokens = {
        token.content: (number, token)
        for number, token in added.items()
        if token.content and (token.special or number in written)
    }
    longest_first = sorted(tokens, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
    return ControlTokens(
        tokens=tokens, pattern=pattern, ids=frozenset({*written, *(number for number in ids if number is not None)})
    )


def _written(token: AddedToken, template: ChatTemplate) -> bool:
    """Say whether a template names a token; `user` or a line end in its text is no name."""
    return token.content in template.text and not token.content.isspace() and not token.content.isalnum()


def _cut(text: str, match: re.Match[str], number: int, token: AddedToken, before: int) -> Cut:
    start, stop = match.span()
    while token.lstrip and start > before and SPACE.match(text[start - 1]):
        start -= 1
    while token.rstrip and stop < len(text) and SPACE.match(text[stop]):
        stop += 1
    return Cut(start=start, stop=stop, number=number)


def _in_word(text: str, match: re.Match[str]) -> bool:
    sides = text[max(match.start() - 1, 0) : match.start()], text[match.end() : match.end() + 1]
    return any(WORD.match(side) for side in sides)
