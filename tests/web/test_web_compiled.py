"""The modules of `web` that `setup.py` compiles read pages as the files themselves do."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from web_pages import sample_pages

import carnac
from carnac.core.errors import InputError
from carnac.web import _refuse_stale, walk
from carnac.web.extract import read_page
from carnac.web.settings import ExtractSettings

PACKAGE = Path(carnac.__file__).parent
READ = """
import sys
from carnac.web import walk
from test_web_compiled import digest_of_pages
print(walk.__file__)
print(digest_of_pages())
"""


def digest_of_pages() -> str:
    """Return a digest of the blocks of the 198 sample pages."""
    digest = hashlib.sha256()
    for url, page in sorted(sample_pages().items()):
        digest.update(repr((url, read_page(page.payload, url, page.charset, ExtractSettings()))).encode())
    return digest.hexdigest()


def test_compiled_modules_read_pages_as_the_files_do(tmp_path: Path) -> None:
    if walk.__file__.endswith(".py"):
        pytest.skip("carnac.web is not compiled here: no C compiler, or CARNAC_COMPILE=0")
    shutil.copytree(PACKAGE, tmp_path / "carnac", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path(__file__).parent)))}
    done = subprocess.run(
        [sys.executable, "-c", READ], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    module, digest = done.stdout.split()
    assert module == str(tmp_path / "carnac/web/walk.py")
    assert digest == digest_of_pages()


def test_a_module_changed_after_it_was_compiled_is_refused(tmp_path: Path) -> None:
    source, compiled = tmp_path / "walk.py", tmp_path / "walk.cpython-311-x86_64-linux-gnu.so"
    source.touch()
    compiled.touch()
    os.utime(compiled, (1000, 1000))
    os.utime(source, (1005, 1005))
    _refuse_stale(tmp_path)
    os.utime(source, (1020, 1020))
    with pytest.raises(InputError, match="changed after it was compiled"):
        _refuse_stale(tmp_path)
