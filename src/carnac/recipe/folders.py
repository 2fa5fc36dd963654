"""What recipes read and write, and whether it fits: the shards that one writes are the shards that the next reads."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from carnac.recipe.load import LoadedRecipe
from carnac.recipe.mistakes import Mistake, did_you_mean


def check_folders(recipes: Sequence[LoadedRecipe], *, complete: bool = True) -> list[Mistake]:
    """Return the mistakes between recipes, which run in the order given.

    `complete` is False when some recipe of the run could not be loaded: what is read may be what that one writes.

    A mistake is: a folder to read that no recipe before writes and that does not lie there finished; a folder that
    holds another stage than the reader wants; two recipes that write one folder.
    """
    mistakes = []
    written: dict[str, tuple[str, Path]] = {}
    for recipe in recipes:
        for name, stage, folder in recipe.settings.folders_read():
            # Absolute and without "..": recipe://../x and recipes/x may be one folder.
            if (place := os.path.abspath(folder)) in written:  # noqa: PTH100 -- Path.absolute keeps ".."
                if written[place][0] != stage:
                    mistakes.append(recipe.mistake((name,), f"{folder} holds {written[place][0]}; wanted {stage}."))
            elif complete and not _is_finished(folder, stage):
                candidates = [str(path) for kind, path in written.values() if kind == stage]
                hint = did_you_mean(str(folder), candidates)
                message = f"{folder}: no recipe before this one writes {stage} there and none lie there.{hint}"
                mistakes.append(recipe.mistake((name,), message))
        for name, stage, folder in recipe.settings.folders_written():
            if (place := os.path.abspath(folder)) in written:  # noqa: PTH100
                mistakes.append(recipe.mistake((name,), f"{folder}: an earlier recipe of this run writes there too."))
            written[place] = stage, folder
    return mistakes


def _is_finished(folder: Path, stage: str) -> bool:
    try:
        return bool(json.loads((folder / "manifest.json").read_bytes())["stage"] == stage)
    except (OSError, ValueError, KeyError, TypeError):
        return False
