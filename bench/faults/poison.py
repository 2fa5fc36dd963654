"""Imported by the fork server of a run: makes one record (or unit) of one stage misbehave in every child.

What a stage calls per record, or its work function where it has no records, is replaced by one that looks at which it
is. The variables FAULTS_STAGE, FAULTS_CULPRIT and FAULTS_KIND say where, who and how.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib
import os
import time
from collections.abc import Callable
from typing import Any

STAGE, CULPRIT, KIND = "FAULTS_STAGE", "FAULTS_CULPRIT", "FAULTS_KIND"
Named = Callable[..., str]


def crash() -> None:
    """Read address 0."""
    ctypes.string_at(0)


def complain() -> None:
    """Raise what no stage expects."""
    raise ValueError("poisoned")


def hang() -> None:
    """Wait for ever."""
    while True:
        time.sleep(3600)


def spin() -> None:
    """Compute for ever."""
    while True:
        pass


def eat() -> None:
    """Take memory, 20 MB every 5 ms, until somebody ends it."""
    held = []
    while True:
        held.append(b"x" * 20_000_000)  # filled: pages that were never written to take no memory
        time.sleep(0.005)


# How a record misbehaves, and the reason under which the ledger is to name it.
KINDS: dict[str, tuple[Callable[[], None], str]] = {
    "raises": (complain, "raised"),
    "segfaults": (crash, "crashed"),
    "hangs": (hang, "stuck"),
    "spins": (spin, "too_slow"),
    "eats memory": (eat, "out_of_memory"),
}
ENDLESS = ("hangs", "spins")


def _unit_name(unit: Any, _part: Any) -> str:
    return str(unit.name)


# By stage: the module that calls, what it calls, and how one tells the culprit by the arguments.
RECORDS: dict[str, tuple[str, str, Named]] = {
    "documents": ("carnac.jobs.crawl", "extract_page", lambda record, warc, _: f"{warc}@{record.offset}"),
    "images": ("carnac.jobs.images_kept", "_take", lambda payload, _: hashlib.sha256(payload).hexdigest()),
    "signals": ("carnac.jobs.curate_measure", "measure", lambda document, _: document.id),
    "shards": ("carnac.jobs.shards", "sample_of", lambda document, *_: document["id"]),
    "pieces": ("carnac.jobs.plan", "pieces_of_sample", lambda _, place, *__: f"{place['shard']}@{place['row']}"),
}
UNITS: dict[str, tuple[str, str, Named]] = {
    "repeat_keys": ("carnac.jobs.repeats", "write_keys", _unit_name),
    "repeats": ("carnac.jobs.repeats", "search_bucket", _unit_name),
    "masks": ("carnac.jobs.curate_judge", "judge_unit", _unit_name),
    "tokenizer": ("carnac.jobs.plan", "train_tokenizer_unit", _unit_name),
    "plan": ("carnac.jobs.plan", "pack_rows", _unit_name),
}


def put(stage: str, culprit: str, misbehave: Callable[[], None]) -> None:
    """Replace a stage's function in this process by one that misbehaves for the culprit."""
    module_name, function_name, name_of = (RECORDS | UNITS)[stage]
    module = importlib.import_module(module_name)
    sound = getattr(module, function_name)

    @functools.wraps(sound)
    def poisoned(*args: Any, **kwargs: Any) -> Any:
        if name_of(*args, **kwargs) == culprit:
            misbehave()
        return sound(*args, **kwargs)

    setattr(module, function_name, poisoned)


if STAGE in os.environ:
    put(os.environ[STAGE], os.environ[CULPRIT], KINDS[os.environ[KIND]][0])
