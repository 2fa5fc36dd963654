"""The images that a run kept: their rows by URL."""

from __future__ import annotations

from typing import Any

from carnac.engine.manifest import Manifest
from carnac.engine.tables import read_rows


def kept_images(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return the row of every kept image by URL. A URL met in two archives has two rows: the first one counts."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in manifest.parts:
        for row in read_rows(entry.path):
            if row["status"] == "kept":
                rows.setdefault(row["url"], row)
    return rows
