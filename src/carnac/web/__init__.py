"""Web pages -> documents: text blocks and images in reading order.

The modules that cost most may lie here compiled too (`setup.py`), and Python then takes those.
"""

from pathlib import Path

from carnac.core.errors import InputError

_SLACK_SECONDS = 10  # files of one wheel are written in any order


def _refuse_stale(folder: Path) -> None:
    """Raise InputError where a module was changed after it was compiled: what runs would not be what one reads."""
    for compiled in folder.glob("*.so"):
        source = folder / f"{compiled.name.partition('.')[0]}.py"
        if source.exists() and source.stat().st_mtime > compiled.stat().st_mtime + _SLACK_SECONDS:
            raise InputError(
                f"{source}: was changed after it was compiled. Run scripts/install to compile it again, "
                f"or remove {folder}/*.so to run the files as they are."
            )


_refuse_stale(Path(__file__).parent)
