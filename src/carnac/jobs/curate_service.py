"""URLs of kept documents and images to what an opt-out service says of them.

A URL of which the service has said nothing is never kept: the run stops instead. Answers lie in the unit's spool until
its part is there, and then in the part: a run that was stopped asks for nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa

from carnac.core.errors import InputError, RecordError, RunError
from carnac.core.places import Place
from carnac.curate.lists.search import DOCUMENT_COLUMNS, MASK_COLUMNS, kept_images, kept_of, urls_kept
from carnac.curate.lists.settings import ListsPass, OptOutService
from carnac.curate.masks import check_same_rows
from carnac.engine.aligned import read_aligned_tables
from carnac.engine.manifest import Manifest
from carnac.engine.part import Part
from carnac.engine.run import Runner
from carnac.engine.spool import Spool
from carnac.engine.unit import Stage, Unit

if TYPE_CHECKING:
    import aiohttp

ASKED = pa.schema([("url", pa.string()), ("opted_out", pa.bool_())])
RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
MAX_WAIT_SECONDS = 600.0
MAX_ANSWER_BYTES = 64 << 20  # a thousand URLs of 2,000 characters each are two million


@dataclass(frozen=True, slots=True, kw_only=True)
class AskTask:
    """What a worker needs to ask after the URLs of one documents part."""

    documents: Place
    last: Place | None
    service: OptOutService


class _Refused(Exception):  # noqa: N818 -- no mistake of ours: the service may answer another time
    """An answer that is none. `wait_seconds` is what a Retry-After asks for; `is_final`: no other try would help."""

    def __init__(self, why: str, wait_seconds: float = 0.0, *, is_final: bool = False) -> None:
        super().__init__(why)
        self.wait_seconds, self.is_final = wait_seconds, is_final


def ask_service(
    runner: Runner, step: ListsPass, documents: Manifest, last: Manifest | None, folder: Place
) -> Manifest | None:
    """Write to `folder` what the service of a pass says of each URL of kept documents; None where it has no service."""
    service = step.service
    if service is None:
        return None
    _check_token(service)
    units = []
    for entry in documents.parts:
        mask = None if last is None else last.part(entry.unit)
        task = AskTask(documents=entry.path, last=None if mask is None else mask.path, service=service)
        inputs = [entry.digest, "" if mask is None else mask.rows_digest]
        units.append(ASKED_STAGE.unit(entry.unit, task, settings={"endpoint": service.endpoint}, inputs=inputs))
    parts = runner.do(ASKED_STAGE, units, folder)
    return runner.publish(ASKED_STAGE, folder, parts, {"endpoint": service.endpoint}, {})


def _check_token(service: OptOutService) -> None:
    if service.token_variable is not None and not os.environ.get(service.token_variable):
        raise InputError(
            f"service.token_variable: the environment has no {service.token_variable}. Set it to the token of "
            f"{service.endpoint}, or leave token_variable out."
        )


def ask_unit(unit: Unit, part: Part) -> None:
    """Ask after every URL of one documents part and write what was said, in the order of the documents."""
    task: AskTask = unit.task
    urls = _urls(task)
    with Spool(part.spool()) as spool:
        known: dict[str, bool] = {}
        for _, place in spool:
            known |= json.loads(spool.payload(place))
        left = iter([url for url in urls if url not in known])
        asyncio.run(_ask_all(task.service, left, known, spool, part))
    for url in urls:
        part.count("opted_out", known[url])
        part.write({"url": url, "opted_out": known[url]})


def _urls(task: AskTask) -> list[str]:
    """Return the URLs of kept documents and images of a part, each once."""
    parts: dict[str, tuple[Place, Sequence[str]]] = {"documents": (task.documents, DOCUMENT_COLUMNS)}
    if task.last is not None:
        parts["last"] = (task.last, MASK_COLUMNS)
    urls: dict[str, None] = {}
    for _, tables in read_aligned_tables(parts):
        check_same_rows(*tables.values())
        documents = tables["documents"]
        keep, keep_block = kept_of(documents, tables.get("last"))
        blocks = kept_images(documents, None, keep, keep_block)
        urls |= dict.fromkeys(urls_kept(documents, blocks, keep))
    return list(urls)


async def _ask_all(
    service: OptOutService, urls: Iterator[str], known: dict[str, bool], spool: Spool, part: Part
) -> None:
    """Ask after `urls`, so many at a time; what is said goes to `known`, and to the disk at once."""
    clock = asyncio.get_running_loop().time
    async with _session(service) as session:
        while batch := list(islice(urls, service.urls_per_request)):
            began = clock()
            said = await _ask(session, service, batch, part)
            spool.add([({}, json.dumps(said).encode())])
            known |= said
            await asyncio.sleep(max(0.0, began + 1 / service.requests_per_second - clock()))


async def _ask(
    session: aiohttp.ClientSession, service: OptOutService, urls: Sequence[str], part: Part
) -> dict[str, bool]:
    """Return whether each of `urls` is opted out. Raises RunError where the service does not say."""
    from carnac.images.answers import backoff_seconds

    for number in range(1, service.max_tries + 1):
        part.count("requests")
        try:
            opted_out = frozenset(await _post(session, service, urls))
            return {url: url in opted_out for url in urls}
        except _Refused as refused:
            why, is_final = str(refused), refused.is_final
            wait = max(refused.wait_seconds, backoff_seconds(urls[0], number, service.backoff_seconds))
        if is_final or number == service.max_tries:
            break
        await asyncio.sleep(min(wait, MAX_WAIT_SECONDS))
    raise RunError(
        f"{service.endpoint} was asked {number} time{'s' * (number > 1)} after {len(urls):,} URLs and gave no answer "
        f"({why}). None of them is kept unseen: run the same command again when it answers; what it has said is not "
        "asked again."
    )


async def _post(session: aiohttp.ClientSession, service: OptOutService, urls: Sequence[str]) -> list[str]:
    """Return those of `urls` that the service knows as opted out. Raises _Refused for anything but a whole answer."""
    import aiohttp

    from carnac.images.answers import retry_after_seconds

    try:
        async with session.post(service.endpoint, json={"urls": list(urls)}, allow_redirects=False) as response:
            status = response.status
            if status != 200:
                wait = retry_after_seconds(response.headers.get("Retry-After")) or 0.0
                raise _Refused(f"status {status} {response.reason}", wait, is_final=status not in RETRIED)
            body = b""
            async for chunk in response.content.iter_chunked(1 << 18):
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise _Refused(f"an answer of more than {MAX_ANSWER_BYTES:,} bytes", is_final=True)
    except RecordError as error:
        raise _Refused(f"{error.reason}: {error.detail}; see allow_private_addresses", is_final=True) from None
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        if isinstance(error.__cause__, RecordError):
            raise _Refused(f"{error.__cause__}; see allow_private_addresses", is_final=True) from None
        raise _Refused(f"{type(error).__name__}: {error}"[:300]) from None
    return _opted_out_in(body, urls)


def _opted_out_in(body: bytes, urls: Sequence[str]) -> list[str]:
    """Return the URLs of an answer. One that was not asked after was spelled anew: others may be missed."""
    try:
        answer: Any = json.loads(body)
        found = answer["opted_out"]
        strange = set(found) - set(urls)
    except (ValueError, KeyError, TypeError) as error:
        wanted = '{"opted_out": [URL, ...]}'
        raise _Refused(f"wanted {wanted}, got {body[:80]!r}: {type(error).__name__}", is_final=True) from None
    if strange:
        raise _Refused(f"it names {min(map(str, strange))!r}, which was not asked after", is_final=True)
    return list(found)


@asynccontextmanager
async def _session(service: OptOutService) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session to the service: no cookies, no proxy; to addresses of this machine's network only if allowed."""
    import aiohttp

    from carnac.images.addresses import CheckedAddresses, check_literal

    host = urlsplit(service.endpoint).hostname or ""
    try:
        check_literal(host, allow_private=service.allow_private_addresses)
    except RecordError as error:
        raise InputError(
            f"service.endpoint: {service.endpoint} is in this machine's own network ({error.reason}). Set "
            "service.allow_private_addresses = true if that is meant."
        ) from None
    addresses = CheckedAddresses({}, allow_private=service.allow_private_addresses, num_threads=1)
    token = None if service.token_variable is None else os.environ[service.token_variable]
    headers = {"User-Agent": "carnac/0.1", "Accept": "application/json"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=addresses, socket_factory=addresses.socket),
        headers=headers | ({} if token is None else {"Authorization": f"Bearer {token}"}),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=service.timeout_seconds),
    ) as session:
        yield session


ASKED_STAGE = Stage(name="asked", version=1, schema=ASKED, work=ask_unit, is_step=True)
