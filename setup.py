"""Compiles the reading of pages with mypyc where a C compiler is at hand: twice as fast on pages with many elements.

Without a compiler, or with CARNAC_COMPILE=0, the same files run as they are.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from setuptools import setup

if TYPE_CHECKING:
    from setuptools import Extension

# Where the time of a page goes. The rest of web/ was tried and gained nothing: it waits for libraries and for memory.
MODULES = ("article", "blocks", "elements", "main_content", "names", "outline", "sources", "tags", "trim", "walk")


def compiled_modules() -> list[Extension]:
    """Return what to compile; nothing, and a sentence, where mypyc cannot."""
    if os.environ.get("CARNAC_COMPILE") == "0":
        return []
    paths = [f"src/carnac/web/{name}.py" for name in MODULES]
    try:
        from mypyc.build import mypycify

        # The libraries of a stage are not there while a wheel is built; nor are they read without --ignore.
        options = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
        modules: list[Extension] = mypycify([*options, *paths], group_name="carnac_web")
    except (ImportError, SystemExit) as error:
        print(f"carnac.web is not compiled, and slower for it: {error}", file=sys.stderr)
        return []
    for module in modules:
        module.optional = True  # no compiler is no mistake
    return modules


setup(ext_modules=compiled_modules())
