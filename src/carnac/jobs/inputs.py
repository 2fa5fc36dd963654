"""Input files by name or pattern."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from upath import UPath

from carnac.core.errors import InputError
from carnac.core.http_files import is_http
from carnac.core.places import Place, absolute, is_local, place_of, source_of
from carnac.core.stores import store_errors, store_of


def find_files(patterns: Sequence[str], example: str = "*.warc.gz") -> list[Place]:
    """Return the files that `patterns` name, each once, in the order of the patterns and then of their names.

    `example` is what one may try in a folder. Raises InputError for a pattern without a file. Whether there is a file
    behind an HTTP(S) URL is told by who reads it.
    """
    found: dict[str, Place] = {}
    for pattern in patterns:
        place = place_named(pattern)
        if is_http(place):
            if "*" in place.path:
                raise InputError(f"{pattern}: a web server cannot be listed. Wanted the URL of each file, without *.")
            found.setdefault(absolute(place), place)
            continue
        if not is_local(place):
            for file in _in_store(place, example):
                found.setdefault(absolute(file), file)
            continue
        for path in _on_disk(place, pattern, example):
            found.setdefault(absolute(path.resolve()), path)
    return list(found.values())


def place_named(pattern: str) -> Place:
    """Return the place that a name or a pattern is written as. Raises InputError where it is none."""
    try:
        return source_of(pattern)
    except ValueError as error:
        raise InputError(f"{error}.") from None


def _on_disk(place: Path, pattern: str, example: str) -> list[Path]:
    """Return the files that a path names, with * and ** as in a shell."""
    if place.is_file():
        return [place]  # also one whose name has a [ or a * in it
    # A pattern may be absolute, which Path.glob does not take.
    files = [Path(name) for name in sorted(glob.glob(str(place), recursive=True)) if Path(name).is_file()]  # noqa: PTH207
    if files:
        return files
    if place.is_dir():
        raise InputError(f"{pattern}: a folder. Wanted files; try {pattern.rstrip('/')}/{example}.")
    raise InputError(f"{pattern}: no such file. Wanted input files; check the path, which is taken from {Path.cwd()}.")


def _in_store(pattern: UPath, example: str) -> list[Place]:
    """Return the objects that a URL names, with * and ** as in a shell."""
    try:
        with store_errors(pattern):
            found = store_of(pattern).glob(pattern.path, detail=True)
    except OSError as error:
        raise InputError(f"{pattern}: cannot be listed ({error.strerror}). Wanted input files.") from None
    files = sorted(name for name, facts in found.items() if facts["type"] == "file" and not name.endswith("/"))
    if files:
        return [place_of(store_of(pattern).unstrip_protocol(name)) for name in files]
    if found:
        raise InputError(f"{pattern}: a folder. Wanted files; try {pattern}/{example}.")
    bucket = pattern.path.partition("/")[0]
    what = "no such object" if store_of(pattern).exists(bucket) else f"there is no bucket {bucket!r} that one may see"
    raise InputError(f"{pattern}: {what}. Wanted input files; check the URL.")
