"""A folder that appears under its name when it is whole: for commands that write one outside the engine's units."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from carnac.core.errors import OutputError
from carnac.engine.storage import open_to_others


def check_free(out: Path) -> None:
    """Raise OutputError unless `out` can become a new folder: it is not there, or empty and nobody's place."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: is not empty. Wanted a new folder; remove it or name another.")
    if out.is_symlink() or (out.exists() and out.resolve() == Path.cwd()):
        kind = "a link" if out.is_symlink() else "the working folder"
        raise OutputError(f"{out}: is {kind}, which cannot be replaced. Name a folder that is not there.")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out` to write in; it takes the name `out` when the block ends well, else nothing is left.

    What a killed process left behind is swept first. Raises OutputError where the disk refuses something.
    """
    from safetensors import SafetensorError

    check_free(out)
    _sweep(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.{os.getpid()}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"{out}: cannot be made ({error.strerror}).") from error
    try:
        partial.chmod(0o755)  # mkdtemp's folders are closed to others
        yield partial
        for path in partial.rglob("*.safetensors"):
            open_to_others(path)
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    except (OSError, SafetensorError) as error:  # the library has an error of its own for a full disk
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise OutputError(
            f"{out}: cannot be written ({said}). Nothing is left of it; free space and repeat."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sweep(out: Path) -> None:
    """Remove folders that processes which are gone had begun to write for `out`."""
    for left in out.parent.glob(f".{out.name}.*.*") if out.parent.is_dir() else ():
        owner = left.name.removeprefix(f".{out.name}.").partition(".")[0]
        if left.is_dir() and owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
