"""A conversation and its pictures -> a row of shards: pictures are read, looked at, and decide the split."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from carnac.core.errors import RecordError
from carnac.core.places import Place, is_local, read_bytes
from carnac.core.taken_down import TakenDown
from carnac.images.inspect import take_image
from carnac.images.settings import ImageSettings
from carnac.shards.conversations import Conversation, conversation_row, root_of
from carnac.shards.settings import QuestionListSettings, SplitSettings
from carnac.shards.split import Split, split_of

Format = Literal["messages", "llava", "questions"]
# Of a name that no file can have; another error of the disk stops the run.
NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSettings:
    """How conversations of a file become rows. `split` is None where the files say what is held out."""

    format: Format
    folder: Place
    source: str
    part: Split
    split: SplitSettings | None
    questions: QuestionListSettings
    inspect: ImageSettings


class RowMaker:
    """Makes rows. It keeps the pictures of the last conversation: the next one is often about the same."""

    def __init__(self, settings: RowSettings) -> None:
        self.settings = settings
        self._read: dict[str, bytes] = {}
        self._named: dict[str, tuple[bytes, str]] = {}

    @property
    def leaves_losses(self) -> bool:
        """Whether a record that is lost before its split is known was counted by the other split."""
        return self.settings.split is not None and self.settings.part == "heldout"

    def is_mine(self, conversation: Conversation) -> bool:
        """Say whether a conversation falls into this split. Raises RecordError `missing_picture`."""
        names, split = dict.fromkeys(conversation.pictures), self.settings.split
        self._read = {name: self._read[name] if name in self._read else self._bytes_of(name) for name in names}
        if split is None:
            return True
        digests = {name: hashlib.sha256(payload).hexdigest() for name, payload in self._read.items()}
        return split_of(root_of(conversation, digests), split.held_out, split.seed) == self.settings.part

    def row(self, conversation: Conversation, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row (`core.schema.SAMPLES`) of the conversation that `is_mine` was asked of last.

        Raises RecordError, as `take_image`.
        """
        named = {name: self._named[name] for name in self._read if name in self._named}
        for name, payload in self._read.items():
            if name not in named:
                taken = take_image(payload, self.settings.inspect)
                kind = taken.facts.media_type.partition("/")[2]
                named[name] = (taken.payload, f"{taken.facts.sha256}.{kind}")
        self._named = named
        return conversation_row(conversation, named, self.settings.source, metadata)

    def has_any(self, taken_down: TakenDown) -> bool:
        """Say whether a picture of the conversation that `row` was last asked for was taken down, as read or kept."""
        if not taken_down.images:
            return False
        kept = (name.partition(".")[0] for _, name in self._named.values())
        return taken_down.has_image(*kept, *(hashlib.sha256(payload).hexdigest() for payload in self._read.values()))

    def _bytes_of(self, name: str) -> bytes:
        return picture_bytes(self.settings.folder, name, self.settings.inspect.max_image_bytes + 1)


def picture_bytes(folder: Place, name: str, max_bytes: int) -> bytes:
    """Return the first `max_bytes` bytes of a picture below `folder`. Raises RecordError `missing_picture`."""
    place = folder / name
    try:
        if not is_local(place):
            return read_bytes(place, 0, max_bytes)
        if not place.is_file():  # a pipe would never end
            raise RecordError("missing_picture", f"{place}: no such file")
        return read_bytes(place, 0, max_bytes)
    except OSError as error:
        if error.errno in NO_SUCH_FILE:
            raise RecordError("missing_picture", f"{place}: {error.strerror}") from None
        raise
