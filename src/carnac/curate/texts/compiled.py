"""Functions compiled to machine code by numba, once for all processes of an installation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(signature: str) -> Callable[[Function], Function]:
    """Return a decorator that compiles a function for `signature` while its module is imported.

    What was compiled is kept beside the source, or in the user's cache folder; where neither may be written it is
    compiled anew by every process (about 15 s).
    """

    def compile_function(function: Function) -> Function:
        try:
            return cast("Function", njit(signature, cache=True)(function))
        except RuntimeError as error:  # numba has no class of its own for it
            if "no locator available" not in str(error):
                raise
            return cast("Function", njit(signature)(function))

    return compile_function
