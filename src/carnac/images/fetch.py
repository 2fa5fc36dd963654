"""Image URLs -> their bytes, in a spool, or the reason why not, as they finish: politely, safely, and only once.

    schedule   which URL is asked for next, and when        hosts, robots
    transfer   one request -> one answer                    addresses, body, opt_outs
    answers    what follows from an answer: an end, or another request
    records    what is spooled of it, and read again by the next try

An event loop in a thread of its own asks; the caller takes what finished and inspects it meanwhile. What came of a
request is safe on the disk before its connection's place is given to another: of a process that is killed, the next
one repeats at most what was in flight.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from carnac.core.errors import RecordError
from carnac.engine.spool import Spool, SpoolPlace
from carnac.images.addresses import check_literal
from carnac.images.answers import OF_HOST, RETRIED, Answer, Pending, backoff_seconds, judge
from carnac.images.asks import Ask, Fetched, Status
from carnac.images.group_commit import GroupCommit
from carnac.images.hosts import Host
from carnac.images.records import Earlier, end_record, read_earlier, restore, robots_record, step_record
from carnac.images.robots import MAX_ROBOTS_REDIRECTS, ROBOTS_PATH, product_of, read_robots, rules_of
from carnac.images.schedule import Schedule, Turn
from carnac.images.settings import FetchSettings
from carnac.images.transfer import ImageReader, Transfers, open_session
from carnac.images.urls import Target, parse_url

__all__ = ["Ask", "Fetched", "Status", "fetch_images"]

SILENT_SECONDS = 1.0  # then the caller hears that nothing finished


def fetch_images(
    asks: Sequence[Ask], settings: FetchSettings, max_bytes: int, spool: Spool
) -> Iterator[Fetched | None]:
    """Fetch `asks`, each URL once; yield one `Fetched` for each, as they finish, and None when none did for a second.

    What `spool` holds of an earlier try comes first and is not asked for again. Transfers go on while the caller works
    on a result. At `settings.unit_seconds` what is left is `deferred`. Closing the iterator ends all transfers.

    Reasons: those of `parse_url`, `refused_address`, `unknown_host`, `robots_forbidden`, `opted_out`,
    `too_many_redirects`, `redirect_loop`, `too_many_bytes`, `bad_encoding`, `empty`, `not_an_image`, `timeout`,
    `connection_failed`, `tls_failed`, `bad_response`, `http_<status>`, and `fetch_failed` for what nobody thought of;
    of what is deferred: `deadline`, `retry_after`, `host_down`, `robots_unreachable`, `http_429`, `http_503`.
    """
    assert len({ask.url for ask in asks}) == len(asks), "a URL is asked for twice"
    if not asks:
        return
    fetching = _Fetching(asks, settings, max_bytes, spool)
    fetching.start()
    try:
        while True:
            try:
                finished = fetching.finished.get(timeout=SILENT_SECONDS)
            except queue.Empty:
                yield None
                continue
            if finished is None:
                break
            yield from finished
    finally:
        fetching.stop()
        fetching.join()
    if fetching.mistake is not None:
        raise fetching.mistake


class _Fetching(threading.Thread):
    """The thread of the event loop. `finished` ends with None; `mistake` is an error of ours, or of the disk."""

    def __init__(self, asks: Sequence[Ask], settings: FetchSettings, max_bytes: int, spool: Spool) -> None:
        super().__init__(name="carnac-fetch", daemon=True)
        self.finished: queue.SimpleQueue[list[Fetched] | None] = queue.SimpleQueue()
        self.mistake: BaseException | None = None
        self._asks, self._settings, self._max_bytes, self._spool = asks, settings, max_bytes, spool
        self._work: _Work | None = None
        self._is_stopped = False

    def stop(self) -> None:
        """End all transfers, if any are left."""
        self._is_stopped = True
        if (work := self._work) is not None:
            work.stop()

    def run(self) -> None:
        try:
            asyncio.run(self._do())
        except Exception as error:  # noqa: BLE001 - carried over to the caller's thread and raised there
            self.mistake = error
        finally:
            self.finished.put(None)

    async def _do(self) -> None:
        end = asyncio.get_running_loop().time() + self._settings.unit_seconds
        async with open_session(self._settings) as session:
            transfers = Transfers(session, self._settings, end)
            self._work = work = _Work(transfers, self._settings, self._max_bytes, self._spool, self.finished, end)
            if self._is_stopped:
                return
            await work.do(self._asks, read_earlier(self._spool))


class _Work:
    """The URLs of a unit on their way. Everything here happens in the loop, but `stop`."""

    def __init__(
        self,
        transfers: Transfers,
        settings: FetchSettings,
        max_bytes: int,
        spool: Spool,
        finished: queue.SimpleQueue[list[Fetched] | None],
        end: float,
    ) -> None:
        self._transfers, self._settings, self._finished, self._end = transfers, settings, finished, end
        self._loop = asyncio.get_running_loop()
        self._product = product_of(settings.user_agent)
        self._read_image = ImageReader(settings.opt_outs, self._product, max_bytes)
        self._schedule = Schedule(settings, end)
        self._commit = GroupCommit(spool, self._go_on, self._fail)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._done: asyncio.Future[None] = self._loop.create_future()

    async def do(self, asks: Sequence[Ask], earlier: Earlier) -> None:
        """Ask for all of `asks` and wait until each has ended."""
        try:
            self._begin(asks, earlier)
            self._go_on()
            await self._done
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._commit.close()

    def stop(self) -> None:
        """End all transfers; may be called from another thread."""
        try:
            self._loop.call_soon_threadsafe(self._finish)
        except RuntimeError:  # the loop is closed: there is nothing left to end
            return

    def _begin(self, asks: Sequence[Ask], earlier: Earlier) -> None:
        """Put out what ended before and queue the rest."""
        settled = self._schedule.settled
        settled += [earlier.ended[ask.url] for ask in asks if ask.url in earlier.ended]
        for origin, num_tries in earlier.robots_tries.items():
            if origin not in earlier.robots:
                self._schedule.host(parse_url(origin).host).num_rules_tries = num_tries
        for origin, answer in earlier.robots.items():
            self._schedule.host(parse_url(origin).host).take_rules(origin, rules_of(answer, self._product))
        now, today = self._loop.time(), time.time()
        for ask in asks:
            if ask.url in earlier.ended:
                continue
            try:
                target = parse_url(ask.url)
                check_literal(target.host, allow_private=self._settings.allow_private_addresses)
            except RecordError as error:
                refused = Fetched(
                    url=ask.url, status="refused", reason=error.reason, detail=error.detail[:500], hops=ask.hops
                )
                settled.append(refused)
                continue
            pending = Pending(ask=ask, target=target, hops=ask.hops)
            wait = 0.0
            if (step := earlier.steps.get(ask.url)) is not None:
                restore(pending, step)
                wait = step["until"] - today
            if wait > 0:
                # It may have been the host that asked to be left alone.
                self._schedule.host(pending.target.host).pause(now + wait)
                self._schedule.add(pending, now + wait)
            else:
                self._schedule.add(pending)
        for origin, answer in earlier.robots.items():
            self._note_host(self._schedule.host(parse_url(origin).host), answer)

    def _go_on(self) -> None:
        """Start what may be started, hand over what has ended, and see to it that this is called when it is time."""
        schedule, now = self._schedule, self._loop.time()
        if now >= self._end:
            schedule.end()
        while schedule.num_active < self._settings.num_connections and (turn := schedule.take(now)) is not None:
            task = self._loop.create_task(self._ask(turn) if turn.pending is not None else self._ask_rules(turn))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        if schedule.settled:
            self._finished.put(schedule.settled)
            schedule.settled = []
        if not schedule.num_active and not schedule.num_waiting:
            self._finish()
            return
        if self._timer is not None:
            self._timer.cancel()
        if now < self._end:  # what is under way ends with the unit's time at the latest, and calls this
            has_room = schedule.num_active < self._settings.num_connections
            when = min(schedule.next_time(), self._end) if has_room else self._end
            self._timer = self._loop.call_at(when, self._go_on)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    async def _ask(self, turn: Turn) -> None:
        """Make one request for a URL, and spool what came of it."""
        host, pending = turn.host, turn.pending
        assert pending is not None
        answer = await self._transfers.get(turn.target, self._read_image, is_last=turn.is_last)
        follows = judge(pending, answer, self._settings)
        wait = max(follows.wait_seconds, self._pause(host, answer, follows.wait_seconds))
        self._note_host(host, answer)
        ended = follows.ended
        if ended is not None:
            # For another try, which has time of its own, what was cut off has not ended.
            facts = step_record(pending, 0.0) if answer.is_cut_off else end_record(ended)
            self._commit.add(facts, answer.payload, lambda place: self._land(host, ended, place))
        else:
            facts = step_record(pending, time.time() + wait)
            self._commit.add(facts, b"", lambda _: self._again(host, pending, wait))

    def _land(self, host: Host, ended: Fetched, place: SpoolPlace) -> None:
        """Note the end of a URL, now that it is safe."""
        self._schedule.settled.append(replace(ended, place=place) if ended.status == "received" else ended)
        self._schedule.ended(host)

    def _again(self, host: Host, pending: Pending, wait: float) -> None:
        """Queue a URL that needs another request: first of its host, or after a while."""
        if wait > 0:
            self._schedule.add(pending, self._loop.time() + wait)
        else:
            self._schedule.add(pending, is_first=True)
        self._schedule.ended(host)

    def _note_host(self, host: Host, answer: Answer) -> None:
        """Note what an answer says of its host as a whole."""
        if not answer.is_cut_off:
            self._schedule.note_answer(host, is_silent=answer.is_silent)
        if answer.reason in OF_HOST:
            self._schedule.settle_host(host, "refused", answer.reason or "", answer.detail)

    def _pause(self, host: Host, answer: Answer, backoff: float) -> float:
        """Pause a host that asks for it, by Retry-After or by being asked too much; return for how long."""
        if answer.http_status not in (429, 503):
            return 0.0
        seconds = backoff if answer.retry_after is None else answer.retry_after
        host.pause(self._loop.time() + seconds)
        return seconds

    async def _ask_rules(self, turn: Turn) -> None:
        """Ask for the robots.txt of an origin, and spool what came of it."""
        host, origin = turn.host, turn.target.origin
        answer, num_requests = await self._follow_robots(host, turn.target)
        self._note_host(host, answer)
        has_tries = answer.reason in RETRIED and host.num_rules_tries < self._settings.retries
        is_final = not has_tries and not answer.is_cut_off
        if not is_final:
            host.num_rules_tries += 1
            backoff = backoff_seconds(origin, host.num_rules_tries, self._settings.backoff_seconds)
            host.pause(self._loop.time() + max(backoff, self._pause(host, answer, backoff)))
        facts = robots_record(origin, answer, num_requests, is_final=is_final)
        self._commit.add(facts, answer.payload, lambda _: self._land_rules(host, origin, answer, is_final=is_final))

    async def _follow_robots(self, host: Host, target: Target) -> tuple[Answer, int]:
        """Return the answer that an origin's robots.txt leads to, and the number of requests that it took."""
        place = replace(target, path=ROBOTS_PATH)
        answer = await self._transfers.get(place, read_robots)
        num_requests = 1
        while answer.location is not None and num_requests <= MAX_ROBOTS_REDIRECTS:
            try:
                place = parse_url(answer.location, place)
                check_literal(place.host, allow_private=self._settings.allow_private_addresses)
            except RecordError:
                break  # a redirect to nowhere is no file
            await asyncio.sleep(min(host.delay, max(0.0, self._end - self._loop.time())))
            answer = await self._transfers.get(place, read_robots)
            num_requests += 1
            if answer.reason in OF_HOST:  # of another host
                answer = Answer(reason="http_404", http_status=404, received_bytes=answer.received_bytes)
        return answer, num_requests

    def _land_rules(self, host: Host, origin: str, answer: Answer, *, is_final: bool) -> None:
        if is_final:
            host.num_rules_tries = 0
            host.take_rules(origin, rules_of(answer, self._product))
        self._schedule.ended(host)
