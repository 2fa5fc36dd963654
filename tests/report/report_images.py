"""A folder of images as the job leaves it: partitions, archives, three rounds of fetching, packs, found, masks."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image
from report_run import BREAK_OUT, ESCAPE, SCRIPT, write_stage

from carnac.core.schema import DOCUMENTS, FOUND, IMAGES, MASKS
from carnac.curate.masks import Reasons
from carnac.engine.manifest import Manifest, collect_parts, write_manifest
from carnac.engine.part import Part
from carnac.engine.unit import Stage, Unit, digest_of
from carnac.images.pack import PackWriter

INSPECT = {"max_pixels": 1000}
RULES = ["width < 150 [image]", "aspect > 2 [image]"]
PLAN = pa.schema([("unit", pa.int32())])
HOSTILE = f"http://{SCRIPT}.example/{BREAK_OUT}{ESCAPE}.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A part to write: its unit's name, its rows, what its ledger counts and has lost."""

    name: str
    rows: Sequence[Mapping[str, Any]] = ()
    counts: Mapping[str, int] | None = None
    lost: Sequence[tuple[str, str, str]] = ()
    key: str = ""


def write_parts(folder: Path, stage: str, schema: pa.Schema, parts: Sequence[Written]) -> list[Unit]:
    kind = Stage(name=stage, version=1, schema=schema, work=None)
    folder.mkdir(parents=True, exist_ok=True)
    units = []
    for written in parts:
        unit = kind.unit(written.name, None, settings={}, inputs=[written.key])
        with Part(kind, unit, folder) as part:
            for row in written.rows:
                part.write(dict(row))
            for name, number in (written.counts or {}).items():
                part.count(name, number)
            for record in written.lost:
                part.quarantine(*record, is_loss=False)
        units.append(unit)
    return units


def publish(folder: Path, stage: str, units: Sequence[Unit], settings: Mapping[str, Any] | None = None) -> None:
    entries = collect_parts(folder, units)
    write_manifest(
        Manifest(folder=folder, stage=stage, version=1, settings=dict(settings or {}), inputs={}, parts=entries)
    )


def photograph(number: int, size: tuple[int, int] = (200, 160)) -> bytes:
    """Return a JPEG of its own colour."""
    out = io.BytesIO()
    Image.new("RGB", size, ((37 * number) % 256, (91 * number) % 256, 128)).save(out, "JPEG")
    return out.getvalue()


def count_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return what a ledger counts of rows."""
    counts: dict[str, int] = {}
    for row in rows:
        name = row["status"] if row["status"] == "kept" else f"{row['status']}.{row['reason']}"
        counts[name] = counts.get(name, 0) + 1
    return counts


def kept_rows(folder: Path, count: int) -> list[dict[str, Any]]:
    """Write a pack of photographs and return their rows: their shorter sides are 100, 200, 300, 400 px, in turns."""
    (folder / "packs").mkdir(parents=True, exist_ok=True)
    rows = []
    with PackWriter(folder / "packs" / "a.tar") as pack:
        for number in range(count):
            side = 100 * (1 + number % 4)
            payload = photograph(number, (2 * side, side))
            sha256 = hashlib.sha256(payload).hexdigest()
            offset, length = pack.add(sha256, "image/jpeg", payload)
            rows.append(
                {
                    "url": f"http://h{number % 5}.example:8080/{number}.jpg",
                    "status": "kept",
                    "source": "http" if number % 2 else "warc",
                    "received_bytes": length if number % 2 else None,
                    "sha256": sha256,
                    "media_type": "image/jpeg",
                    "width": 2 * side,
                    "height": side,
                    "pack": "a.tar",
                    "offset": offset,
                    "length": length,
                }
            )
    return rows


def failed_rows() -> list[dict[str, Any]]:
    """Return rows that were not kept, of each kind of reason."""
    ends = (
        ("dropped", "http_404", 6, "", "h1.example"),
        ("dropped", "timeout", 3, "no byte for 10 s", "slow.example"),
        ("dropped", "robots_forbidden", 2, "", "h2.example"),
        ("dropped", "connection_failed", 1, "refused", "dead.example"),
        ("deferred", "retry_after", 4, "3600 s", "busy.example"),
    )
    rows = [
        {
            "url": f"http://{host}/{reason}{number}.png",
            "status": status,
            "reason": reason,
            "detail": detail or None,
            "source": "http",
            "received_bytes": 1000,
        }
        for status, reason, count, detail, host in ends
        for number in range(count)
    ]
    nobody = {"status": "dropped", "reason": "truncated_image", "source": "warc"}  # no --retry asks for it
    moved = {"location": "http://elsewhere.example/b"}
    return [*rows, {"url": HOSTILE, "detail": SCRIPT + ESCAPE, **nobody}, {"url": "data:,x", **nobody, **moved}]


def write_table(folder: Path) -> list[dict[str, Any]]:
    """Write `images/` with its table of two partitions and its inner steps, and return the rows."""
    kept, failed = kept_rows(folder, 20), failed_rows()
    parts = (failed[:9], [*kept, *failed[9:]])
    tables = [Written(name=f"images-p{n:04d}", rows=rows, counts=count_of(rows)) for n, rows in enumerate(parts)]
    units = write_parts(folder, "images", IMAGES, tables)
    write_rounds(folder)
    again = [("a.warc.gz@7", "second_record_of_url", "again")]
    write_parts(folder, "archived", IMAGES, [Written(name="archived~a", counts={"kept": 10}, lost=again)])
    publish(folder, "images", units, {"inspect": INSPECT, "fetch": True})
    return [*kept, *failed]


def write_rounds(folder: Path) -> None:
    """Write the parts of two rounds, the second by `--retry timeouts`, and the plans of both."""
    counts = {"kept": 5, "dropped.http_404": 6, "dropped.timeout": 3, "deferred.retry_after": 4, "moved": 2}
    asked = {"requests": 31, "received_bytes": 400_000, "robots_requests": 4}
    dead = [("http://h1.example/9.jpg", "out_of_memory", "900 MB")]
    first = [Written(name=f"r0001-p0000-u000{n}", counts={**counts, **asked}, lost=dead[:n]) for n in range(2)]
    second = [Written(name="r0002-p0001-u0000", counts={"kept": 2, "requests": 2, "received_bytes": 9_000})]
    # What was fetched under other settings lies there too, and was written before.
    others = [Written(name="r0001-p0000-u0000", counts={"kept": 900}, key="other")]
    for unit in write_parts(folder, "fetched", IMAGES, others):
        os.utime(folder / unit.file_name, (1_000_000_000, 1_000_000_000))
    write_parts(folder, "fetched", IMAGES, [*first, *second])
    for number, (retry, later) in enumerate(((None, 7), ("timeouts", 0)), 1):
        plan = folder / "rounds" / digest_of(INSPECT)[:8] / f"{number:04d}" / "plan"
        units = write_parts(plan, "fetch_plan", PLAN, [Written(name="p0000", counts={"planned": 40, "later": later})])
        publish(plan, "fetch_plan", units, {"retry": retry})
    for name in ("wanted", "urls", "joined"):
        write_stage(folder / name, name, [], schema=PLAN)


def write_found(run: Path, kept: Sequence[Mapping[str, Any]]) -> None:
    """Write documents of three blocks (text, image, image), what was found for them, and what two rules took of it."""
    documents = [
        {
            "id": f"d{n}",
            "url": f"http://page.example/{n}",
            "kinds": ["paragraph", "image", "image"],
            "texts": [f"Text {n}", None, None],
            "images": [None, kept[2 * n]["url"], kept[2 * n + 1]["url"]],
        }
        for n in range(len(kept) // 2)
    ]
    facts = [name for name in FOUND.names if name not in ("id", "row", "block")]
    found = [
        {"id": f"d{n // 2}", "row": n // 2, "block": 1 + n % 2, **{name: row.get(name) for name in facts}}
        for n, row in enumerate(kept)
    ]
    reasons = [[None, 0 if n % 2 == 0 else None, 1 if n == 0 else None] for n in range(len(documents))]
    masks = [
        {"id": f"d{n}", "keep": True, "keep_block": [why is None for why in whys], "block_reason": whys}
        for n, whys in enumerate(reasons)
    ]
    schema = MASKS.with_metadata(Reasons(tuple(RULES)).to_metadata())
    write_stage(run / "documents", "documents", documents, schema=DOCUMENTS)
    write_stage(run / "curated" / "masks" / "rules", "masks", masks, schema=schema, settings={"reasons": RULES})
    write_stage(run / "images" / "found", "found", found, schema=FOUND)
