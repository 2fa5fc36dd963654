"""The tree drawn in the README, read back: path -> phrase.

    <!-- tree -->
    ```
    src/carnac/     the package
      cli.py        few verbs
    ```
    <!-- /tree -->

Two spaces of indentation per level; a name, at least two spaces, a phrase; folders end with a slash.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def tracked_files() -> list[Path]:
    """Return what git tracks or would track, relative to the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(path for name in listed.split("\0") if name and (ROOT / (path := Path(name))).exists())


def drawn_tree(readme: str) -> dict[str, str]:
    """Return the phrase of every path drawn, folders with their slash. Raises ValueError for a line it cannot read."""
    found = re.search(r"<!-- tree -->\s*```[a-z]*\n(.*?)```\s*<!-- /tree -->", readme, re.DOTALL)
    if found is None:
        raise ValueError("no tree between <!-- tree --> and <!-- /tree -->")
    drawn: dict[str, str] = {}
    folders: list[str] = []
    for line in filter(str.strip, found[1].splitlines()):
        parts = re.fullmatch(r"((?:  )*)(\S+)(?: {2,}(\S.*))?", line.rstrip())
        level = len(parts[1]) // 2 if parts else 0
        if parts is None or level > len(folders):
            raise ValueError(f"not a line of a tree: {line!r}")
        path = "".join(folders[:level]) + parts[2]
        if path in drawn:
            raise ValueError(f"drawn twice: {path}")
        drawn[path] = parts[3] or ""
        folders = [*folders[:level], parts[2]] if path.endswith("/") else folders[:level]
    return drawn


def existing(files: Iterable[Path]) -> set[str]:
    """Return files and the folders around them, folders with their slash."""
    files = list(files)
    folders = {f"{parent.as_posix()}/" for path in files for parent in path.parents if parent != Path()}
    return folders | {path.as_posix() for path in files}


def wanted(files: Iterable[Path]) -> set[str]:
    """Return what the tree must name: top-level entries, packages and modules, recipe folders, chapters.

    Hidden files at the top, `py.typed` and modules such as `__init__.py` speak for themselves.
    """
    paths = existing(files)
    top = {path for path in paths if re.fullmatch(r"[^/]+/|[^/.][^/]*", path)}
    package = {path for path in paths if re.fullmatch(r"src/carnac/(.+/)?[^/]+(/|\.py)", path)}
    recipes = {path for path in paths if re.fullmatch(r"recipes/.*/", path)}
    chapters = {path for path in paths if re.fullmatch(r"docs/[^/]+\.md", path)}
    modules = {path for path in package if not re.search(r"/__\w+__\.py$", path)}
    return top | modules | recipes | chapters


def covered(path: str, drawn: Iterable[str]) -> bool:
    """Say whether a path is named, or is a folder that only leads to a named one (`src/` to `src/carnac/`)."""
    return any(name == path or (path.endswith("/") and name.startswith(path)) for name in drawn)
