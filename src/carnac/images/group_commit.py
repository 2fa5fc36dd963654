"""Records of several requests that end at about the same time -> one write and one flush of the spool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from carnac.engine.spool import Spool, SpoolPlace

Landed = Callable[[SpoolPlace], None]


class GroupCommit:
    """Adds records to a spool in a thread, and calls back in the loop once they are safe.

    While one group is flushed the next one gathers: a flush takes about half a millisecond on a disk, so at a hundred
    answers a second each has its own, and at ten thousand twenty share one. `after_group` is called after each group,
    `failed` with what the disk raises.
    """

    def __init__(self, spool: Spool, after_group: Callable[[], None], failed: Callable[[BaseException], None]) -> None:
        self._spool = spool
        self._after_group, self._failed = after_group, failed
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="carnac-spool")
        self._loop = asyncio.get_running_loop()
        self._gathering: list[tuple[Mapping[str, Any], bytes, Landed]] = []
        self._is_flushing = False

    def add(self, facts: Mapping[str, Any], payload: bytes, landed: Landed) -> None:
        """Add a record; `landed` is called with its place once it is safe."""
        self._gathering.append((facts, payload, landed))
        if not self._is_flushing:
            self._flush()

    def close(self) -> None:
        """Wait for the group on its way; what gathers meanwhile is given up."""
        self._gathering.clear()
        self._thread.shutdown(wait=True)

    def _flush(self) -> None:
        group, self._gathering = self._gathering, []
        self._is_flushing = True
        records = [(facts, payload) for facts, payload, _ in group]
        flushed = self._loop.run_in_executor(self._thread, self._spool.add, records)
        flushed.add_done_callback(lambda done: self._flushed(group, done))

    def _flushed(
        self, group: list[tuple[Mapping[str, Any], bytes, Landed]], done: asyncio.Future[list[SpoolPlace]]
    ) -> None:
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            self._failed(error)
            return
        self._is_flushing = False
        for (_, _, landed), place in zip(group, done.result(), strict=True):
            landed(place)
        if self._gathering:
            self._flush()
        self._after_group()
