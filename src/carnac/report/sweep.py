"""What a sweep found: its sentences, the table of its kinds of runs, the rule by which runs count as broken.

Flow in: the `sweep.json` beside the manifest of a sweep's runs. Flow out: text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from carnac.core.errors import InputError
from carnac.core.places import Place, read_bytes
from carnac.report.layout import figures_table
from carnac.report.story import Story

SUMMARY = "sweep.json"


def sweeps_text(story: Story, *, brief: bool = False) -> str:
    """Return the sentences of each finished sweep, and unless it is to be brief its table and the rule."""
    folders = [folder for folder in story.folders if folder.stage == "sweep" and folder.is_finished]
    return "\n\n".join(
        "\n".join(_lines(folder.content.folder, folder.name if len(folders) > 1 else "", brief)) for folder in folders
    )


def _lines(folder: Place, name: str, brief: bool) -> Iterator[str]:
    path = folder / SUMMARY
    try:
        content = json.loads(read_bytes(path))
        verdict, rule, shown = content["verdict"], content["rule"], content["shown"]
        table = figures_table(shown["head"], shown["rows"])
    except FileNotFoundError:  # the run was stopped between its last unit and its summary
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}). Delete it and run its recipe again.") from None
    yield f"sweep{f' ({name})' if name else ''}:"
    yield from verdict
    if not brief:
        yield table
        yield rule
