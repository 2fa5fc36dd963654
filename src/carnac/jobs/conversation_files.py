"""Files of conversations, looked through before the work: their slices, and where their pictures lie."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from carnac.core.errors import InputError, RecordError
from carnac.core.places import Place, absolute, is_local, open_binary
from carnac.core.stores import store_errors, store_of
from carnac.engine.unit import digest_of, outside_digests, unit_names
from carnac.shards.conversation_formats import question_of
from carnac.shards.json_records import Slice, form_of, parsed, raw_records, slices_of

# With a picture of 100 KB each a slice gives 500 MB in some minutes: what a killed run has to do again at most.
RECORDS_PER_SLICE = 5_000
PICTURES_PER_SLICE = 2_000
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationFile:
    """A file, looked through. `digests` are its own and that of the pictures in `folder`."""

    place: Place
    name: str
    folder: Place
    slices: tuple[Slice, ...]
    digests: tuple[str, str]


def look_through(
    files: Sequence[Place], folder: Place | None, limit: int | None, *, by_picture: bool
) -> list[ConversationFile]:
    """Return the files with their slices: of records, or (`by_picture`) of the pictures that a list asks about.

    `folder` is that of the pictures, by default each file's own. Raises InputError where something cannot be read.
    """
    pictures: dict[str, str] = {}
    found = []
    names = unit_names([file.with_suffix("") for file in files])
    for name, file, digest in zip(names, files, outside_digests(files), strict=True):
        where = file.parent if folder is None else folder
        if absolute(where) not in pictures:
            pictures[absolute(where)] = pictures_digest(where)
        slices = tuple(_slices(file, limit, by_picture=by_picture))
        if not slices:
            raise InputError(f"{file}: holds no record. Wanted JSON lines, or one JSON array.")
        digests = (digest, pictures[absolute(where)])
        found.append(ConversationFile(place=file, name=name, folder=where, slices=slices, digests=digests))
    return found


def questions_of(stream: IO[bytes], limit: int | None) -> Iterator[tuple[int, tuple[str, str, str] | RecordError]]:
    """Yield (number, question, answer and picture) of a list's entries, or what is wrong with one."""
    form, start = form_of(stream)
    for number, raw in enumerate(raw_records(stream, form, start)):
        if number == limit:
            return
        try:
            yield number, question_of(parsed(raw))
        except RecordError as error:
            yield number, error


def pictures_digest(folder: Place) -> str:
    """Return the digest of the picture files below `folder`: names, sizes, times of change (in a store, ETags).

    A picture whose name does not end like one's is not looked after.
    """
    try:
        if is_local(folder):
            return digest_of(sorted(_on_disk(os.fspath(folder))))
        with store_errors(folder):
            found = store_of(folder).find(folder.path, detail=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}). Wanted the folder of the pictures.") from None
    entries = [
        [name, facts["size"], str(facts.get("ETag") or facts.get("LastModified") or facts.get("mtime"))]
        for name, facts in sorted(found.items())
        if name.lower().endswith(PICTURE_SUFFIXES)
    ]
    return digest_of(entries)


def _on_disk(folder: str, below: str = "") -> Iterator[tuple[str, int, int]]:
    """Yield (name, bytes, time of change) of picture files; folders that are links are not entered. Raises OSError."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _on_disk(entry.path, f"{below}{entry.name}/")
            elif entry.name.lower().endswith(PICTURE_SUFFIXES) and entry.is_file():
                status = entry.stat()
                yield f"{below}{entry.name}", status.st_size, status.st_mtime_ns


def _slices(file: Place, limit: int | None, *, by_picture: bool) -> Iterator[Slice]:
    try:
        with open_binary(file) as stream, store_errors(file):
            _refuse_packed(file, stream)
            if not by_picture:
                yield from slices_of(stream, RECORDS_PER_SLICE, limit)
                return
            found = dict(questions_of(stream, limit))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}). Wanted a file of conversations.") from None
    pictures = {question[2] for question in found.values() if not isinstance(question, RecordError)}
    if found and not pictures:
        wrong = next(error for error in found.values() if isinstance(error, RecordError))
        raise InputError(f"{file}: holds no question. The first entry: {wrong}")
    for first in range(0, len(pictures), PICTURES_PER_SLICE):
        number = min(PICTURES_PER_SLICE, len(pictures) - first)
        yield Slice(first=first, number=number, start=0, stop=0)


def _refuse_packed(file: Place, stream: IO[bytes]) -> None:
    head = stream.read(8)
    for magic, kind in PACKED.items():
        if head.startswith(magic):
            raise InputError(f"{file}: packed ({kind}). Wanted JSON as text: unpack it first.")
