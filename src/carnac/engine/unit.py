"""The unit of work: one input slice -> one output file.

A job computes a pure list of units from its inputs and settings; the engine does those whose output is missing. A key
is sha256 over (stage, version, output-affecting settings, input digests), so a changed setting or input gives a new
file name and nothing else has to be remembered.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from carnac.core.errors import InputError
from carnac.core.http_files import is_http, look
from carnac.core.places import Place, is_local
from carnac.core.stores import store_errors, store_of

if TYPE_CHECKING:
    from carnac.engine.part import Part

KEY_CHARACTERS = 16  # of the 64 hex digits, in file names: 64 bits, no collision among the units of a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One slice of a stage's work. `task` is what the work function needs; it must bear a trip to another process."""

    name: str
    key: str
    task: Any

    def __post_init__(self) -> None:
        assert re.fullmatch(r"[A-Za-z0-9._~-]+", self.name), f"unit name {self.name!r} does not fit a file name"

    @property
    def stem(self) -> str:
        """What all files of this unit are called before their suffix: NAME-KEY16."""
        return f"{self.name}-{self.key[:KEY_CHARACTERS]}"

    @property
    def file_name(self) -> str:
        """Name of the part that this unit commits."""
        return f"{self.stem}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What all units of a folder share.

    `version` is raised by hand when the output of `work` changes. `work(unit, part)` is a module-level function that
    writes rows of `schema` to the part, in a worker process; None where the job does its units itself (training).
    `rows_per_group` bounds the rows held in memory. `is_step`: an inner step of a job, of which a run says nothing
    unless it takes long.
    """

    name: str
    version: int
    schema: pa.Schema
    work: Callable[[Unit, Part], None] | None
    rows_per_group: int = 1000
    is_step: bool = False

    def unit(self, name: str, task: Any, *, settings: Mapping[str, Any], inputs: Sequence[str]) -> Unit:
        """Return the unit `name` with its key. `settings` are those that change the output, `inputs` are digests."""
        identity = {
            "stage": self.name,
            "version": self.version,
            "settings": settings,
            "inputs": list(inputs),
            "unit": name,
        }
        return Unit(name=name, key=digest_of(identity), task=task)


def digest_of(value: Any) -> str:
    """Return the sha256 (hex) of a JSON-able value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def outside_digests(paths: Sequence[Place]) -> list[str]:
    """Return the `outside_digest` of every file. In a store one listing tells of all files of a folder."""
    stored = [path for path in paths if not is_local(path) and not is_http(path)]
    listed = _looked_at([path for path in paths if is_http(path)])
    for folder in {str(path.parent): path.parent for path in stored}.values():
        listed |= _listed(folder)
    return [outside_digest(path, listed) for path in paths]


def _looked_at(paths: Sequence[Place]) -> dict[str, Mapping[str, Any]]:
    """Return what servers say of files, by path: a web server lists nothing, each is asked after."""
    try:
        return look([path for path in paths if not is_local(path)])
    except OSError as error:
        raise _unseen(error.filename, error) from None


def _unseen(path: object, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read ({error.strerror}). Wanted an input file; check the path.")


def _listed(folder: Place) -> Mapping[str, Mapping[str, Any]]:
    """Return what a store says of the files right in `folder`, by path; nothing where it may not be listed."""
    assert not is_local(folder)
    try:
        with store_errors(folder):
            return {str(facts["name"]): facts for facts in store_of(folder).ls(folder.path, detail=True)}
    except OSError:
        return {}


def outside_digest(path: Place, listed: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> str:
    """Return the digest of a file that carnac did not write, without reading it: name, size and its store's ETag.

    Where there is no ETag (a disk has none) the modification time stands for the content. `listed` is what its store
    said of files by path. Raises InputError when the file cannot be seen.
    """
    try:
        if is_local(path):
            status = path.stat()
            return digest_of({"name": path.name, "bytes": status.st_size, "modified_ns": status.st_mtime_ns})
        facts = listed.get(path.path)
        if facts is None:
            with store_errors(path):
                facts = look([path])[path.path] if is_http(path) else store_of(path).info(path.path)
    except OSError as error:
        raise _unseen(path, error) from None
    version = {name: str(facts[name]) for name in ("ETag", "etag") if facts.get(name)}
    changed = {name: str(facts[name]) for name in ("LastModified", "mtime", "updated") if facts.get(name)}
    return digest_of({"name": path.name, "bytes": facts["size"], **(version or changed)})


def unit_names(paths: Sequence[Place]) -> list[str]:
    """Return a readable unit name per input file: its stem made safe, numbered from the second file of one stem on.

    No position goes into a name, and so into a key: a file added to a crawl redoes no other.
    """
    met: Counter[str] = Counter()
    names = []
    for path in paths:
        stem = re.sub(r"\.(warc|parquet)$", "", re.sub(r"\.(gz|zst)$", "", path.name))
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:80] or "_"
        met[name] += 1
        names.append(name if met[name] == 1 else f"{name}~{met[name]}")
    return names
