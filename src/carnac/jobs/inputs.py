"""Input files by name or pattern."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from carnac.core.errors import InputError


def find_files(patterns: Sequence[str]) -> list[Path]:
    """Return the files that `patterns` name, each once, in the order of the patterns and then of their names.

    Raises InputError for a pattern without a file.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        # A pattern may be absolute, which Path.glob does not take.
        files = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if Path(name).is_file()]  # noqa: PTH207
        if not files and Path(pattern).is_dir():
            raise InputError(f"{pattern}: a folder. Wanted files; try {pattern.rstrip('/')}/*.warc.gz.")
        if not files:
            raise InputError(
                f"{pattern}: no such file. Wanted input files; check the path, which is taken from {Path.cwd()}."
            )
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())
