"""What was made last is kept, as many bytes of it as allowed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key, made where they are not there; those used longest ago go when there are more than `max_bytes`.

    The newest one stays whatever its size.
    """

    def __init__(self, make: Callable[[K], V], size_of: Callable[[V], int], max_bytes: int) -> None:
        self._make, self._size_of, self._max_bytes = make, size_of, max_bytes
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.num_bytes = 0

    def get(self, key: K) -> V:
        """Return the value of `key`; what `make` raises is raised, and nothing kept."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key][0]
        value = self._make(key)
        size = self._size_of(value)
        self._values[key] = (value, size)
        self.num_bytes += size
        while self.num_bytes > self._max_bytes and len(self._values) > 1:
            _, (_, gone) = self._values.popitem(last=False)
            self.num_bytes -= gone
        return value
