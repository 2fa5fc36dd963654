"""The manifest of a stage's folder: the parts that count, in order. Readers read only what it lists.

It is rebuilt by listing: every fact in it comes from the footers of the parts. Parts of other settings may lie beside
the ones it names; a run with those settings finds them done.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carnac import __version__
from carnac.core.errors import InputError
from carnac.engine.ledger import Ledger, read_ledger
from carnac.engine.part import write_file
from carnac.engine.unit import Stage, Unit, digest_of

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEntry:
    """One part that counts. `path` is absolute or relative as the folder was given."""

    path: Path
    unit: str
    key: str
    digest: str
    rows: int
    bytes: int
    seconds: float
    counts: dict[str, int]
    beside: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """Bytes of the part and of the files beside it."""
        return self.bytes + sum(self.beside.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A finished stage. `settings` and `inputs` are for the reader; the keys of the parts already depend on them."""

    folder: Path
    stage: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, Any]
    parts: tuple[PartEntry, ...]

    @property
    def digest(self) -> str:
        """Return the digest of all rows in order: the input digest of a stage that reads the whole folder."""
        return digest_of([[part.unit, part.digest] for part in self.parts])

    @property
    def rows(self) -> int:
        """Number of rows over all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def counts(self) -> dict[str, int]:
        """Counts summed over all parts."""
        total: Counter[str] = Counter()
        for part in self.parts:
            total.update(part.counts)
        return dict(sorted(total.items()))

    def part(self, unit: str) -> PartEntry:
        """Return the part of `unit`; raises InputError when the folder has none."""
        for part in self.parts:
            if part.unit == unit:
                return part
        raise InputError(f"{self.folder}: no part for unit {unit!r}. Run the recipe that writes this folder again.")

    def ledgers(self) -> list[Ledger]:
        """Read the ledgers of all parts, with their quarantined records."""
        return [read_ledger(part.path) for part in self.parts]


def collect_parts(folder: Path, units: Sequence[Unit]) -> tuple[PartEntry, ...]:
    """Return the entries of committed `units`, read from their footers."""
    return tuple(_entry(folder / unit.file_name) for unit in units)


def find_done(folder: Path, unit: Unit) -> PartEntry | None:
    """Return the entry of `unit`; None unless its part is there, and every file beside it with the size it had."""
    if not (folder / unit.file_name).is_file():
        return None
    entry = _entry(folder / unit.file_name)
    beside = {folder / name: size for name, size in entry.beside.items()}
    whole = all(file.is_file() and file.stat().st_size == size for file, size in beside.items())
    return entry if whole else None


def _entry(path: Path) -> PartEntry:
    ledger = read_ledger(path)
    return PartEntry(
        path=path,
        unit=ledger.unit,
        key=ledger.key,
        digest=ledger.digest,
        rows=ledger.rows,
        bytes=path.stat().st_size,
        seconds=ledger.seconds,
        counts=ledger.counts,
        beside=ledger.beside,
    )


def manifest_of(
    stage: Stage, folder: Path, entries: Sequence[PartEntry], settings: Mapping[str, Any], inputs: Mapping[str, Any]
) -> Manifest:
    """Return the manifest under which `entries` are the content of `folder`; nothing is written."""
    return Manifest(
        folder=folder,
        stage=stage.name,
        version=stage.version,
        settings=dict(settings),
        inputs=dict(inputs),
        parts=tuple(entries),
    )


def write_manifest(manifest: Manifest) -> None:
    """Write the manifest whole or not at all; an equal one is left as it is."""
    parts = [
        {"file": part.path.name, **{name: getattr(part, name) for name in PartEntry.__slots__ if name != "path"}}
        for part in manifest.parts
    ]
    content = {
        "stage": manifest.stage,
        "version": manifest.version,
        "carnac": __version__,
        "rows": manifest.rows,
        "counts": manifest.counts,
        "settings": manifest.settings,
        "inputs": manifest.inputs,
        "parts": parts,
    }
    text = (json.dumps(content, indent=1) + "\n").encode()
    path = manifest.folder / MANIFEST
    if not path.is_file() or path.read_bytes() != text:
        write_file(path, text)


def read_manifest(folder: Path, stage: str | None = None) -> Manifest:
    """Read the manifest of `folder`. Raises InputError when there is none, it is damaged, or it is another stage's."""
    path = folder / MANIFEST
    wanted = f"the finished folder of stage {stage!r}" if stage else "a finished stage's folder"
    try:
        content: Mapping[str, Any] = json.loads(path.read_bytes())
        parts = tuple(
            PartEntry(
                path=folder / entry["file"], **{name: entry[name] for name in PartEntry.__slots__ if name != "path"}
            )
            for entry in content["parts"]
        )
        manifest = Manifest(
            folder=folder,
            parts=parts,
            **{name: content[name] for name in ("stage", "version", "settings", "inputs")},
        )
    except FileNotFoundError:
        state = "has no manifest.json" if folder.is_dir() else "does not exist"
        raise InputError(f"{folder}: {state}; wanted {wanted}. Run the recipe that writes it first.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: damaged ({error}). Delete it and run the recipe that writes {folder} again."
        ) from None
    if stage is not None and manifest.stage != stage:
        raise InputError(f"{folder}: holds stage {manifest.stage!r}; wanted {wanted}. Check the path in the recipe.")
    for part in parts:
        if not part.path.is_file():
            raise InputError(
                f"{part.path}: listed in the manifest but missing. Run the recipe that writes {folder} again."
            )
    return manifest
