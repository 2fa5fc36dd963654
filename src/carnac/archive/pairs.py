"""A WebDataset tar of image-text pairs -> its pairs in file order, and what was damaged.

Members that share a key (the name up to the first dot after the folder) and follow one another are a pair: an image
(.jpg, .png, ...), and a caption in a .txt, or in a .json with a `caption` or `text` and the image's `url`, as
img2dataset writes them.
"""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import quote

from carnac.archive.records import Damage, Response
from carnac.core.errors import InputError, RecordError
from carnac.core.places import Place, open_binary
from carnac.core.stores import store_errors

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif")
MAX_MEMBERS = 8  # of one key that are looked at: an image, its caption and facts are three
MAX_TEXT_BYTES = 1 << 20  # of a caption or of the facts beside it: a thousand times the usual
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An image and its caption. `url` is that of the image: its own, or `tar://FILE/MEMBER` where none is told.

    `offset` is that of its first member; `page_url` is told by few sets.
    """

    key: str
    offset: int
    url: str
    page_url: str | None
    caption: str
    image: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    key: str
    suffix: str
    name: str
    offset: int
    content: bytes | RecordError


def read_pairs(path: Place, *, max_image_bytes: int) -> Iterator[Pair | Damage]:
    """Yield the pairs of the tar at `path`, and the damage met on the way.

    Reasons: `not_a_tar`, `truncated_archive`, `damaged_record`, `no_image`, `no_caption`, `bad_metadata`,
    `payload_too_large`. Raises InputError if the file itself cannot be read.
    """
    try:
        with open_binary(path) as stream, store_errors(path):
            yield from _pairs_of(_members(stream, max_image_bytes), path.name)
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror or error}); wanted a tar of image-text pairs."
        raise InputError(message) from error


def read_pair_images(path: Place, *, max_payload_bytes: int) -> Iterator[Response | Damage]:
    """Yield the images of `read_pairs` as the responses that they once were."""
    for pair in read_pairs(path, max_image_bytes=max_payload_bytes):
        if isinstance(pair, Damage):
            yield pair
            continue
        yield Response(
            url=pair.url,
            offset=pair.offset,
            fetched_at=None,
            status=200,
            media_type="",
            charset=None,
            payload=pair.image,
        )


def _pairs_of(members: Iterator[_Member | Damage], tar: str) -> Iterator[Pair | Damage]:
    for _, group in itertools.groupby(members, key=lambda item: item.key if isinstance(item, _Member) else item):
        found = list(itertools.islice(group, MAX_MEMBERS))
        first = found[0]
        if isinstance(first, Damage):
            yield first
            continue
        try:
            yield _pair([member for member in found if isinstance(member, _Member)], tar)
        except RecordError as error:
            yield Damage(offset=first.offset, url=None, reason=error.reason, detail=f"{first.key}: {error.detail}")


def _pair(members: list[_Member], tar: str) -> Pair:
    by_suffix = {member.suffix: member for member in members}
    image = next((by_suffix[suffix] for suffix in IMAGE_SUFFIXES if suffix in by_suffix), None)
    facts = _facts(by_suffix.get("json"))
    caption = _told(facts, "caption", "text")
    if (text := by_suffix.get("txt")) is not None:
        caption = _content(text).decode(errors="replace").strip() or caption
    if image is None:
        raise RecordError("no_image", f"no member .{', .'.join(IMAGE_SUFFIXES)}")
    if caption is None:
        raise RecordError("no_caption", "neither a .txt nor a caption in a .json")
    url = _told(facts, "url", "image_url")
    return Pair(
        key=image.key,
        offset=members[0].offset,
        url=url if url is not None and _is_web(url) else f"tar://{quote(tar)}/{quote(image.name)}",
        page_url=page if (page := _told(facts, "page_url", "document_url")) is not None and _is_web(page) else None,
        caption=caption,
        image=_content(image),
    )


def _facts(member: _Member | None) -> dict[str, Any]:
    if member is None:
        return {}
    try:
        facts = json.loads(_content(member))
    except (ValueError, RecursionError) as error:
        raise RecordError("bad_metadata", f"{member.name}: {error}") from None
    if not isinstance(facts, dict):
        raise RecordError("bad_metadata", f"{member.name}: no table")
    return facts


def _told(facts: dict[str, Any], *names: str) -> str | None:
    texts = (facts[name].strip() for name in names if isinstance(facts.get(name), str))
    return next((text for text in texts if text), None)


def _is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _content(member: _Member) -> bytes:
    if isinstance(member.content, RecordError):
        raise member.content
    return member.content


def _members(stream: IO[bytes], max_image_bytes: int) -> Iterator[_Member | Damage]:
    """Yield the files of a tar, and the stretches that are no members: reading goes on at the next sound header."""
    place, has_members = 0, False
    try:
        # Without `ignore_zeros` a damaged header would end the file, unseen.
        with tarfile.open(fileobj=stream, mode="r:", ignore_zeros=True) as tar:
            while (member := tar.next()) is not None:
                has_members = True
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all that it has seen
                yield from _gap(stream, place, member.offset)
                if member.isreg() and (found := _member(stream, member, max_image_bytes)) is not None:
                    yield found
                place = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            yield from _gap(stream, place, stream.seek(0, 2))
    except tarfile.TarError as error:
        reason = "truncated_archive" if has_members else "not_a_tar"
        yield Damage(offset=place, url=None, reason=reason, detail=str(error))


def _member(stream: IO[bytes], member: tarfile.TarInfo, max_image_bytes: int) -> _Member | None:
    folder, slash, base = member.name.rpartition("/")
    stem, _, suffix = base.partition(".")
    suffix = suffix.lower()
    if suffix not in (*IMAGE_SUFFIXES, "txt", "json"):
        return None
    max_bytes = max_image_bytes if suffix in IMAGE_SUFFIXES else MAX_TEXT_BYTES
    content: bytes | RecordError
    if member.size > max_bytes:
        content = RecordError("payload_too_large", f"{member.name}: {member.size:,} bytes, at most {max_bytes:,}")
    else:
        stream.seek(member.offset_data)
        content = stream.read(member.size)
        if len(content) < member.size:
            raise tarfile.ReadError(f"the file ends inside {member.name}")
    return _Member(key=f"{folder}{slash}{stem}", suffix=suffix, name=member.name, offset=member.offset, content=content)


def _gap(stream: IO[bytes], start: int, stop: int) -> Iterator[Damage]:
    """Yield damage where the bytes between two members, or after the last, are not all zero: those end a tar."""
    stream.seek(start)
    left = stop - start
    while left > 0 and (piece := stream.read(min(left, _BUFFER_BYTES))):
        left -= len(piece)
        if piece.strip(b"\0"):
            detail = f"{stop - start:,} bytes are no member of a tar"
            yield Damage(offset=start, url=None, reason="damaged_record" if start else "not_a_tar", detail=detail)
            return
