"""The images of a story as a chapter of its page: states, hosts, rounds, sizes, and pictures that rules took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carnac.report.images import read_images
from carnac.report.images_facts import facts, ranges
from carnac.report.images_table import SIDES_PX, SIZES_KB, Bin
from carnac.report.story import Story

MAX_FOLDERS = 3  # told whole


def image_folders(story: Story) -> list[dict[str, Any]]:
    """Return what the page shows of each folder of images."""
    folders = [folder for folder in story.folders if folder.stage == "images"]
    shown = []
    for folder in folders[:MAX_FOLDERS]:
        images = read_images(folder)
        table, told = images.table, facts(images)
        bars = (
            ("Formats", _bars(table.formats)),
            ("Shorter side, px", _bars(ranges(table.sides, SIDES_PX))),
            ("Stored, kB", _bars(ranges(table.sizes, SIZES_KB))),
        )
        shown.append(
            {
                "name": folder.name if len(folders) > 1 else "",
                "lines": told.lines,
                "tables": [each for each in told.tables if not each.title.startswith(("formats", "sizes", "bytes"))],
                "bars": [(title, found) for title, found in bars if found],
                "samples": [
                    {"name": f"{state.status} {state.reason}", "number": state.number, "urls": state.samples}
                    for state in table.states
                    if state.samples
                ],
            }
        )
    return shown


def _bars(bins: Mapping[str, Bin]) -> list[tuple[str, int, float]]:
    """Return (name, number, width in per cent of the longest)."""
    most = max((found.number for found in bins.values()), default=0) or 1
    return [(name, found.number, 100 * found.number / most) for name, found in bins.items()]
