"""Whether what lies in two folders is the same, as a reader would find it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

# What says how long something took, and so the size of the footer that says it.
TIMES = ("seconds", "waiting_seconds", "bytes")
PART = re.compile(r".+-[0-9a-f]{16}\.(parquet|tar|json)")


def differences(whole: Path, found: Path, *, others: bool = False) -> list[str]:
    """Return in what `found` differs from `whole`: files too many or too few, rows, bytes; times do not count.

    With `others`, parts of other keys may lie beside, as after a run with other inputs.
    """
    wanted, there = _files(whole), _files(found)
    extra = {name for name in there - wanted if not (others and PART.fullmatch(Path(name).name))}
    said = [f"{name} is missing" for name in sorted(wanted - there)] + [
        f"{name} is left over" for name in sorted(extra)
    ]
    said += [f"{name} differs" for name in sorted(wanted & there) if not _equal(whole / name, found / name)]
    return said


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _equal(one: Path, other: Path) -> bool:
    if one.suffix == ".parquet":
        # Read, not believed: the digest in a footer says what was to be written.
        return bool(pq.read_table(one).equals(pq.read_table(other), check_metadata=False))
    if one.name == "manifest.json":
        return bool(_timeless(json.loads(one.read_bytes())) == _timeless(json.loads(other.read_bytes())))
    if one.name == "metrics.jsonl":
        return _lines(one) == _lines(other)
    return one.read_bytes() == other.read_bytes()


def _lines(path: Path) -> list[Any]:
    return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name not in TIMES}
    return [_timeless(item) for item in value] if isinstance(value, list) else value
