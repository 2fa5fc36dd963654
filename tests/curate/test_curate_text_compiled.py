"""Compiled functions where nothing may be kept: an installation that is not writable, a user without a home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MODULE = """
from carnac.curate.texts.compiled import compiled

@compiled("int64(int64)")
def double(number):
    return 2 * number

if __name__ == "__main__":
    print(double(21), len(double.signatures))
"""


def doubled(folder: Path, **environment: str) -> str:
    (folder / "module.py").write_text(MODULE)
    command = [sys.executable, "-W", "error", str(folder / "module.py")]
    return subprocess.run(command, env=os.environ | environment, check=True, capture_output=True, text=True).stdout


def test_what_is_compiled_is_kept_beside_its_source(tmp_path: Path) -> None:
    assert doubled(tmp_path).split() == ["42", "1"]
    assert [file.suffix for file in (tmp_path / "__pycache__").glob("*.nbi")] == [".nbi"]


def test_where_nothing_can_be_kept_functions_are_compiled_all_the_same(tmp_path: Path) -> None:
    # Numba then finds no place: of its own only that of zip files is left to it.
    assert doubled(tmp_path, NUMBA_CACHE_LOCATOR_CLASSES="ZipCacheLocator").split() == ["42", "1"]
    assert not (tmp_path / "__pycache__").exists()
