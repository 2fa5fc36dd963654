"""Where files lie: on a disk (`Path`), or in a store that fsspec opens, such as S3 (`UPath`). Both read alike.

What is only read may also lie behind HTTP(S) (`source_of`, `core/http_files.py`): a UPath too.

A store has no folders, no rename and no append: one PUT makes an object whole. What differs between the two when
something is written is in `engine/storage.py`; what a store's library raises becomes an OSError in `core/stores.py`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO, Annotated, Any
from urllib.parse import unquote

import fsspec
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypeIs
from upath import UPath

from carnac.core.http_files import HTTP, http_place, is_http, open_http, read_range
from carnac.core.stores import EXTRAS, LIBRARIES, PROTOCOLS, options_of, store_errors, store_of

Place = Path | UPath

WANTED = f"wanted a path, or a URL such as s3://bucket/folder (known: {', '.join(dict.fromkeys(PROTOCOLS.values()))})"
# Of a large file in a store so much is fetched at once. At 100 MB/s and 30 ms a request, waiting costs a quarter.
BLOCK_BYTES = 8 << 20
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def place_of(text: str | Place) -> Place:
    """Return the place that `text` names: a path, or a URL such as `s3://bucket/folder`.

    Raises ValueError for a protocol that is not known or whose library is not installed, and for a URL that names
    nothing.
    """
    if not isinstance(text, str):
        return text
    url = _URL.fullmatch(text)
    if url is None:
        return Path(text)
    protocol, rest = url[1].lower(), url[2]
    if protocol == "file":
        return _of_file(text, rest)
    if protocol not in PROTOCOLS:
        raise ValueError(f"{text}: no store is known by {protocol}://; {WANTED}")
    protocol, path = PROTOCOLS[protocol], rest.rstrip("/")
    # A store takes any name, also "a//b" and "..", and keeps each apart; who writes one means a path.
    if not path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"{text}: wanted {protocol}://BUCKET/NAME/..., without empty parts, . and ..")
    try:
        fsspec.get_filesystem_class(protocol)  # UPath itself asks for the library at the first request only
        place: Place = UPath(f"{protocol}://{path}", **options_of(protocol))
    except ImportError as error:
        raise ValueError(f"{text}: {error}; try: pip install {EXTRAS[protocol]}") from None
    return place


def source_of(text: str | Place) -> Place:
    """Return the place of something that is only read: as `place_of`, also `http(s)://host/file`. Raises ValueError."""
    if isinstance(text, str) and text.partition("://")[0].lower() in HTTP:
        return http_place(text)
    return place_of(text)


def _of_file(text: str, rest: str) -> Path:
    host, slash, path = rest.partition("/")
    if not slash or host not in ("", "localhost"):
        raise ValueError(f"{text}: wanted file:///absolute/path, of this machine")
    return Path("/" + unquote(path))


def is_local(place: Place) -> TypeIs[Path]:
    """Say whether `place` is on a disk of this machine (or one that it mounts, such as NFS)."""
    return isinstance(place, Path)


def library_of(place: Place) -> str | None:
    """Return the module that opens the store of `place`; None for a disk. It takes a third of a second to import."""
    return None if is_local(place) else LIBRARIES[place.protocol]


def absolute(place: Place) -> str:
    """Return a place's one full name, whatever the working folder and however many `..`."""
    return os.path.abspath(place) if is_local(place) else str(place)  # noqa: PTH100 -- Path.absolute keeps ".."


def below(place: Place, root: Place) -> str:
    """Return the name of `place` relative to `root`, in which it lies."""
    if is_local(place) and is_local(root):
        return place.relative_to(root).as_posix()
    assert str(place).startswith(str(root).rstrip("/")), f"{place} is not below {root}"
    return str(place)[len(str(root).rstrip("/")) :].lstrip("/") or "."


def open_binary(place: Place, *, exact: bool = False) -> IO[bytes]:
    """Open `place` for reading. Raises OSError.

    From a store blocks of `BLOCK_BYTES` are fetched and the last two kept, for a reader that goes on and looks back a
    little. With `exact`, each read is a request for its own bytes: for a reader that knows what it wants.
    """
    if is_local(place):
        return place.open("rb")
    if is_http(place):
        return open_http(place, BLOCK_BYTES, exact=exact)
    # The library's choice, 50 MB from wherever one reads, is fetched again for each small step back.
    options: dict[str, Any] = {"cache_type": "none"}
    if not exact:
        options = {"cache_type": "blockcache", "block_size": BLOCK_BYTES, "cache_options": {"maxblocks": 2}}
    with store_errors(place):
        return store_of(place).open(place.path, "rb", **options)  # type: ignore[no-any-return]


def read_bytes(place: Place, start: int | None = None, stop: int | None = None) -> bytes:
    """Return the bytes of `place`, all or those from `start` (negative: from the end) to `stop`, in one request.

    Raises OSError (FileNotFoundError where there is none).
    """
    if is_http(place):
        return read_range(place, start, stop)
    if not is_local(place):
        with store_errors(place):
            return store_of(place).cat_file(place.path, start=start, end=stop)  # type: ignore[no-any-return]
    with place.open("rb") as file:
        if start is not None:
            file.seek(start, os.SEEK_SET if start >= 0 else os.SEEK_END)
        return file.read(-1 if stop is None else stop - (start or 0))


def _validate(value: Any) -> Place:
    if value == "":
        raise ValueError("empty; wanted a folder, or a URL such as s3://bucket/folder")
    if not isinstance(value, str | Path | UPath):
        raise ValueError(WANTED)
    return place_of(value)


class _PlaceField:
    """Lets a field of settings be a Place: it reads a string and writes one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _validate, serialization=core_schema.to_string_ser_schema(when_used="always")
        )


PLACE = _PlaceField()
Folder = Annotated[Place, PLACE]
