"""The manifest of a stage's folder: the parts that count, in order. Readers read only what it lists.

It is rebuilt by listing: every fact in it comes from the footers of the parts. Parts of other settings may lie beside
the ones it names; a run with those settings finds them done.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carnac import __version__
from carnac.core.errors import InputError
from carnac.core.places import Place, read_bytes
from carnac.engine.ledger import Ledger, read_ledger
from carnac.engine.storage import list_files, size_of, write_file
from carnac.engine.unit import Stage, Unit, digest_of

MANIFEST = "manifest.json"
LISTS = ("parts", "steps")  # of entries, in a manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEntry:
    """One part that counts. `path` is absolute or relative as the folder was given."""

    path: Place
    unit: str
    key: str
    digest: str
    rows_digest: str
    rows: int
    bytes: int
    seconds: float
    counts: dict[str, int]
    beside: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """Bytes of the part and of the files beside it."""
        return self.bytes + sum(self.beside.values())


@dataclass(frozen=True, kw_only=True)  # no slots: its parts by unit are kept
class Manifest:
    """A finished stage. `settings` and `inputs` are for the reader; the keys of the parts already depend on them.

    `steps` are parts of inner steps that lie in the same folder: their rows are none of the stage's, their losses are.
    """

    folder: Place
    stage: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, Any]
    parts: tuple[PartEntry, ...]
    steps: tuple[PartEntry, ...] = ()

    @property
    def digest(self) -> str:
        """Return the digest of all rows in order: the input digest of a stage that reads the whole folder."""
        return digest_of_parts(self.parts)

    @property
    def rows_digest(self) -> str:
        """Return the digest of all rows in order, whatever the schema calls them."""
        return digest_of([[part.unit, part.rows_digest] for part in self.parts])

    @property
    def rows(self) -> int:
        """Number of rows over all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def counts(self) -> dict[str, int]:
        """Counts summed over all parts, and what was lost in the steps before them."""
        total: Counter[str] = Counter()
        for part in self.parts:
            total.update(part.counts)
        for step in self.steps:
            total.update({name: number for name, number in step.counts.items() if name.startswith("lost.")})
        return dict(sorted(total.items()))

    def part(self, unit: str) -> PartEntry:
        """Return the part of `unit`; raises InputError when the folder has none."""
        part = self._by_unit.get(unit)
        if part is None:
            raise InputError(f"{self.folder}: no part for unit {unit!r}. Run the recipe that writes this folder again.")
        return part

    @functools.cached_property
    def _by_unit(self) -> dict[str, PartEntry]:
        return {part.unit: part for part in self.parts}

    def ledgers(self) -> list[Ledger]:
        """Read the ledgers of all parts and steps, with their quarantined records."""
        return [read_ledger(part.path) for part in (*self.steps, *self.parts)]


def digest_of_parts(parts: Iterable[PartEntry]) -> str:
    """Return the digest of all rows of parts, which unit they are of too: the input digest of who reads all of them."""
    return digest_of([[part.unit, part.digest] for part in parts])


def collect_parts(folder: Place, units: Sequence[Unit]) -> tuple[PartEntry, ...]:
    """Return the entries of committed `units`, read from their footers."""
    there = list_files(folder) if units else {}
    parts = [folder / unit.file_name for unit in units]
    # What another machine wrote to an NFS folder is listed up to a minute late; asked for by its name, it is there.
    return tuple(_entry(part, there.get(part.name) or size_of(part)) for part in parts)


def find_done(folder: Place, units: Sequence[Unit], there: Mapping[str, int]) -> dict[str, PartEntry | None]:
    """Return the entry of every unit by name; None unless its part is there, and every file beside it with its size.

    `there` is the listing of the folder (`list_files`). What the manifest knows of a part of that name and size need
    not be read from its footer again: 10,000 finished units cost one listing and one file.
    """
    known = _known(folder) if MANIFEST in there else {}
    found: dict[str, PartEntry | None] = {}
    for unit in units:
        size = there.get(unit.file_name)
        if size is None:
            found[unit.name] = None
            continue
        entry = known.get(unit.file_name)
        if entry is None or (entry.key, entry.bytes) != (unit.key, size):
            try:
                entry = _entry(folder / unit.file_name, size)
            except InputError:  # damaged: what can be made again need not be mended by hand
                found[unit.name] = None
                continue
        whole = all(there.get(name) == beside for name, beside in entry.beside.items())
        found[unit.name] = entry if whole else None
    return found


def _known(folder: Place) -> dict[str, PartEntry]:
    """Return the entries that the manifest lists, by file name; none where it cannot be read."""
    try:
        content = json.loads(read_bytes(folder / MANIFEST))
        return {entry.path.name: entry for listed in LISTS for entry in _entries(folder, content.get(listed, ()))}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _entries(folder: Place, listed: Sequence[Mapping[str, Any]]) -> tuple[PartEntry, ...]:
    names = [name for name in PartEntry.__slots__ if name != "path"]
    return tuple(PartEntry(path=folder / entry["file"], **{name: entry[name] for name in names}) for entry in listed)


def _entry(path: Place, size: int) -> PartEntry:
    ledger = read_ledger(path)
    return PartEntry(
        path=path,
        unit=ledger.unit,
        key=ledger.key,
        digest=ledger.digest,
        rows_digest=ledger.rows_digest,
        rows=ledger.rows,
        bytes=size,
        seconds=ledger.seconds,
        counts=ledger.counts,
        beside=ledger.beside,
    )


def manifest_of(
    stage: Stage,
    folder: Place,
    entries: Sequence[PartEntry],
    settings: Mapping[str, Any],
    inputs: Mapping[str, Any],
    steps: Sequence[PartEntry] = (),
) -> Manifest:
    """Return the manifest under which `entries` are the content of `folder`; nothing is written."""
    return Manifest(
        folder=folder,
        stage=stage.name,
        version=stage.version,
        settings=dict(settings),
        inputs=dict(inputs),
        parts=tuple(entries),
        steps=tuple(steps),
    )


def write_manifest(manifest: Manifest) -> None:
    """Write the manifest whole or not at all; an equal one is left as it is."""
    content = {
        "stage": manifest.stage,
        "version": manifest.version,
        "carnac": __version__,
        "rows": manifest.rows,
        "counts": manifest.counts,
        "settings": manifest.settings,
        "inputs": manifest.inputs,
        "parts": _listed(manifest.parts),
        **({"steps": _listed(manifest.steps)} if manifest.steps else {}),
    }
    text = (json.dumps(content, indent=1) + "\n").encode()
    path = manifest.folder / MANIFEST
    with contextlib.suppress(OSError):
        if read_bytes(path) == text:
            return
    write_file(path, text)


def _listed(entries: Sequence[PartEntry]) -> list[dict[str, Any]]:
    names = [name for name in PartEntry.__slots__ if name != "path"]
    return [{"file": part.path.name, **{name: getattr(part, name) for name in names}} for part in entries]


def read_manifest(folder: Place, stage: str | None = None) -> Manifest:
    """Read the manifest of `folder`, all of whose parts are there.

    Raises InputError when one is not, and as `read_listed`.
    """
    manifest = read_listed(folder, stage)
    there = list_files(folder)
    for part in manifest.parts:
        if part.path.name not in there:
            raise InputError(
                f"{part.path}: listed in the manifest but missing. Run the recipe that writes {folder} again."
            )
    return manifest


def read_listed(folder: Place, stage: str | None = None) -> Manifest:
    """Read what the manifest of `folder` lists, whether it is there or not.

    Raises InputError when there is no manifest, it is damaged, or it is another stage's.
    """
    path = folder / MANIFEST
    wanted = f"the finished folder of stage {stage!r}" if stage else "a finished stage's folder"
    try:
        content: Mapping[str, Any] = json.loads(read_bytes(path))
        manifest = Manifest(
            folder=folder,
            parts=_entries(folder, content["parts"]),
            steps=_entries(folder, content.get("steps", ())),
            **{name: content[name] for name in ("stage", "version", "settings", "inputs")},
        )
    except FileNotFoundError:
        state = "has no manifest.json" if folder.is_dir() else "does not exist"
        raise InputError(f"{folder}: {state}; wanted {wanted}. Run the recipe that writes it first.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check the path and its rights.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: damaged ({error}). Delete it and run the recipe that writes {folder} again."
        ) from None
    if stage is not None and manifest.stage != stage:
        raise InputError(f"{folder}: holds stage {manifest.stage!r}; wanted {wanted}. Check the path in the recipe.")
    return manifest
