"""Token ids that come one by one -> text that is certain, up to the first text that ends an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

Decode = Callable[[Sequence[int]], str]
Encode = Callable[[str], Sequence[int]]
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
# Of a character of four bytes three may be missing theirs; some tokenizers spell each lone byte as one U+FFFD.
MAX_UNFINISHED = 3


class AnswerText:
    """The text of an answer while it grows.

    A character may take several ids, and the beginning of a stop text may turn out to be one: both wait until the next
    ids have settled it. Joined, what `add` and `close` return is the text of all ids up to the first stop text that is
    complete. `after` are the ids before the first one; the last of the prompt suffices.
    """

    def __init__(self, decode: Decode, stops: Sequence[str] = (), after: Sequence[int] = ()) -> None:
        self.stopped = False  # a stop text was found: nothing more comes
        self._decode = decode
        self._stops = tuple(stop for stop in stops if stop)
        # Ids are decoded behind those before them: some tokenizers drop the space of a word that nothing stands before.
        self._before = list(after)
        self._ids: list[int] = []
        self._seen = 0  # characters of `_ids` that are in `_waiting` or were returned
        self._waiting = ""

    def add(self, token: int) -> str:
        """Return the text that is certain now and was not before."""
        if self.stopped:
            return ""
        self._ids.append(token)
        text = self._new_text()
        certain = text[:-MAX_UNFINISHED] + text[-MAX_UNFINISHED:].rstrip(UNFINISHED)
        if len(certain) > self._seen:
            self._waiting += certain[self._seen :]
            self._seen = len(certain)
        if certain == text:
            self._before, self._ids, self._seen = self._ids, [], 0
        return self._release(last=False)

    @property
    def waits(self) -> bool:
        """Whether some text of the ids was not returned yet."""
        return bool(self._ids or self._waiting)

    def close(self) -> str:
        """Return what is left when no more ids come."""
        if self.stopped:
            return ""
        self._waiting += self._new_text()[self._seen :]
        return self._release(last=True)

    def _new_text(self) -> str:
        if not self._ids:
            return ""
        return self._decode([*self._before, *self._ids])[len(self._decode(self._before)) if self._before else 0 :]

    def _release(self, *, last: bool) -> str:
        found = [place for stop in self._stops if (place := self._waiting.find(stop)) >= 0]
        if found:
            self.stopped = True
            released, self._waiting = self._waiting[: min(found)], ""
            return released
        held = 0 if last else max((_begun(self._waiting, stop) for stop in self._stops), default=0)
        cut = len(self._waiting) - held
        released, self._waiting = self._waiting[:cut], self._waiting[cut:]
        return released


def _begun(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` are the beginning of `stop`."""
    return next((count for count in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:count])), 0)


def ids_until_stop(
    ids: Iterable[int], decode: Decode, encode: Encode, stops: Sequence[str], after: Sequence[int] = ()
) -> Iterator[int]:
    """Yield ids up to the first stop text: together they spell what stands before it.

    Where it begins inside a token, other ids spell the rest: those that `encode` gives a text that goes on from one.
    """
    words, held, said = AnswerText(decode, stops, after), [], ""
    for token in ids:
        held.append(token)
        said += words.add(token)
        if words.stopped:
            yield from encode(said) if said else ()
            return
        if not words.waits:
            yield from held
            held, said = [], ""
    yield from held
